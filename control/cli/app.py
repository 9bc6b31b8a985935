"""The command `waxtap`.

Exit status: 0 done, 1 it went wrong while running, 2 wrong input (arguments, configuration), 3 the
environment is not there (a server cannot be reached).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError

from connectors.errors import ConfigError, RetryableError, WaxtapError
from dataflows import reporting

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, FAILED, WRONG_INPUT, NO_ENVIRONMENT = range(4)

app = App(name="waxtap", help="Change data capture on Bytewax and NATS JetStream.")
app.register_install_completion_command()
app.command("control.cli.serve:serve", name="serve")
for _name in ("plan", "apply", "rollback"):
    app.command(f"control.cli.planning:{_name}", name=_name)
for _name in ("get", "delete", "check"):
    app.command(f"control.cli.resources:{_name}", name=_name)
app.command("control.cli.resources:list_", name="list")
for _name in ("pause", "resume", "restart"):
    app.command(f"control.cli.flows:{_name}", name=_name)
for _name in ("topics", "messages", "tail"):
    app.command(f"control.cli.stored:{_name}", name=_name)
app.command("control.cli.offsets:app", name="offsets")
app.command("control.cli.offsets:lag", name="lag")
app.command("control.cli.schemas:schemas", name="schemas")
app.command("control.cli.try_pipeline:try_pipeline", name="try")
app.command("control.cli.dead_letters:app", name="dlq")
app.command("control.cli.backfills:app", name="backfill")
app.command("control.cli.ingest:ingest", name="ingest")


def main() -> None:
    """Run the command line of this process, and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit status."""
    reporting.configure(os.environ)
    try:
        status = app(
            list(arguments), exit_on_error=False, print_error=True, result_action="return_value"
        )
    except CycloptsError:
        return WRONG_INPUT
    except WaxtapError as error:
        reporting.report(error)
        return exit_status(error)
    except ImportError as error:
        # A command's module is imported when it is run.
        missing = error.__cause__
        if not isinstance(missing, ModuleNotFoundError) or _is_ours(missing.name or ""):
            raise
        reporting.report(
            ConfigError(
                "cli.extra_missing",
                f"the package {missing.name} is not installed, which this command needs",
                cure="pip install 'waxtap[control]'",
            )
        )
        return WRONG_INPUT
    return status if isinstance(status, int) else OK


def exit_status(error: WaxtapError) -> int:
    """The status that tells of an error."""
    if isinstance(error, ConfigError):
        return WRONG_INPUT
    return NO_ENVIRONMENT if isinstance(error, RetryableError) else FAILED


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("connectors", "control", "dataflows", "")
