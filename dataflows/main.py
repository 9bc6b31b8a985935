"""What `python -m bytewax.run dataflows.main` runs: the flows of `waxtap.yaml`.

`WAXTAP_CONFIG` names the file. `WAXTAP_FLOW` picks one flow of it (`capture/shop`,
`deliver/warehouse`); without it all of them run in one dataflow.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bytewax.dataflow import Dataflow

from connectors.errors import WaxtapError
from dataflows import metrics_endpoint, reporting, stopping, tracing
from dataflows.present import Present
from dataflows.spec import check_flow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dataflows.spec import Config

_FLOW = "waxtap"


def flow() -> Dataflow:
    """Build the dataflow and prepare the recovery folder that the command line names.

    Exits with status 2 and one line when the configuration does not allow it.
    """
    reporting.configure(os.environ)
    stopping.install()
    try:
        metrics_endpoint.serve(os.environ)
        tracing.configure(os.environ)
        file = Path(os.environ.get("WAXTAP_CONFIG", "waxtap.yaml"))
        chosen = os.environ.get("WAXTAP_FLOW", "")
        present = Present(file, os.environ, chosen)
        dataflow, parts = build(present(), chosen, present)
        _prepare_recovery(sys.argv[1:], os.environ, chosen or "all", parts)
    except WaxtapError as error:
        reporting.report(error)
        sys.exit(2)
    return dataflow


def build(
    config: Config, chosen: str, present: Callable[[], Config] | None = None
) -> tuple[Dataflow, dict[str, list[str]]]:
    """Build the dataflow of one flow, or of all.

    Args:
        config: The whole configuration.
        chosen: `capture/<source>`, `deliver/<sink>`, or empty for every flow.
        present: The configuration as it is when it is called, for what is done anew with old
            changes; None: as it is now.

    Returns:
        The dataflow, and the partitions of its input and output steps by full step id.

    Raises:
        ConfigError: There is no such flow.
    """
    check_flow(chosen, config.sources, config.sinks)
    dataflow = Dataflow(_FLOW)
    parts: dict[str, list[str]] = {}
    sources = {
        name: source for name, source in config.sources.items() if chosen in ("", f"capture/{name}")
    }
    # What a flow does not do is not imported for it either.
    if sources:
        from dataflows import capture

        capture.add_capture(dataflow, config, sources)
        parts |= capture.parts(config, sources)
    sinks = [sink for name, sink in config.sinks.items() if chosen in ("", f"deliver/{name}")]
    if sinks:
        from dataflows import deliver

        for sink in sinks:
            deliver.add_delivery(dataflow, config, sink, present)
            parts |= deliver.parts(sink)
    return dataflow, {f"{_FLOW}.{step}": names for step, names in parts.items()}


def _prepare_recovery(
    arguments: list[str],
    environment: Mapping[str, str],
    name: str,
    parts: Mapping[str, list[str]],
) -> None:
    """Prepare the folder of Bytewax's own `-r`, whose other arguments are none of our business."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(
        "-r", "--recovery-directory", default=environment.get("BYTEWAX_RECOVERY_DIRECTORY")
    )
    parser.add_argument(
        "-i", "--process-id", type=int, default=environment.get("BYTEWAX_PROCESS_ID")
    )
    known, _ = parser.parse_known_args(arguments)
    if known.recovery_directory is None:
        return
    from dataflows import recovery

    folder = Path(known.recovery_directory)
    if known.process_id in (None, 0):
        recovery.prepare(folder, name, parts)
    else:
        recovery.await_prepared(folder)
