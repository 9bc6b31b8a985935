"""`waxtap dlq`: look at dead letters, deliver them once more, or delete them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from connectors.errors import ConfigError
from connectors.jetstream import letter_index
from connectors.jetstream.connection import connect
from connectors.subjects import topic_of
from control.cli.letter_choice import Choice
from control.letters.actions import carry_out
from dataflows.spec import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.jetstream.connection import Connection
    from connectors.letters import Head, LetterAnswer
    from dataflows.spec import Config

Format = Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])]
File = Annotated[Path | None, Parameter(name=["--config", "-c"])]
Patience = Annotated[float, Parameter(name="--wait")]

_DONE, _FAILED, _NOBODY = 0, 1, 3
# Wide enough for a line a letter where no terminal tells how wide it is.
_WIDTH = 200

app = App(name="dlq", help="Dead letters: changes that sinks have put aside.")


@app.command(name="list")
def list_(
    *, choice: Choice | None = None, limit: int = 100, output: Format = "table", config: File = None
) -> int:
    """List dead letters, the oldest first.

    Args:
        choice: Which.
        limit: At most so many.
        output: A table, or JSON.
        config: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
    """
    with connect(_config(config).nats) as connection:
        chosen = _chosen(connection, choice)
    if output == "json":
        print(json.dumps([_told(head) for head in chosen[:limit]], indent=2))
        return _DONE
    table = Table(box=None, pad_edge=False)
    for name in ("sink", "stream", "id", "state", "topic", "key", "tried", "at", "error"):
        table.add_column(name, overflow="fold")
    for head in chosen[:limit]:
        table.add_row(
            head.sink,
            head.stream,
            str(head.sequence),
            head.state,
            topic_of(head.subject),
            head.key or "",
            str(head.attempts),
            head.failed_at,
            _error(head),
        )
    console = _console()
    console.print(table)
    if len(chosen) > limit:
        console.print(f"{len(chosen) - limit} more: --limit {len(chosen)}")
    return _DONE


@app.command
def show(
    *, choice: Choice | None = None, limit: int = 10, output: Format = "table", config: File = None
) -> int:
    """Show dead letters with the change that each of them holds.

    Args:
        choice: Which.
        limit: At most so many.
        output: Text, or JSON.
        config: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
    """
    with connect(_config(config).nats) as connection:
        chosen = _chosen(connection, choice)[:limit]
        opened = list(letter_index.read(connection, chosen))
    told = [_told(head) | {"change": json.loads(change.envelope)} for head, change in opened]
    if output == "json":
        print(json.dumps(told, indent=2))
        return _DONE
    console = _console()
    for each in told:
        change = each.pop("change")
        # As --key takes it.
        each["key"] = json.dumps(each["key"], separators=(",", ":")) if each["key"] else ""
        for name, text in each.items():
            console.print(f"{name:<10} {text}", highlight=False)
        console.print_json(json.dumps(change))
        console.print()
    return _DONE


@app.command
def replay(
    *,
    choice: Choice | None = None,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    wait: Patience = 10.0,
    output: Format = "table",
    config: File = None,
) -> int:
    """Deliver dead letters once more, while the flow runs.

    All letters of a row are delivered, from its first one on, and before its newer changes. One
    that is refused again stays, and so do those behind it.

    Args:
        choice: Which.
        all_: Every letter, where no condition is given.
        wait: Seconds without an answer of the flow after which it is left to itself.
        output: Text, or JSON.
        config: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
    """
    return _act("replay", choice, config, output, wait, sure=all_)


@app.command
def discard(
    *,
    choice: Choice | None = None,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    wait: Patience = 10.0,
    output: Format = "table",
    config: File = None,
) -> int:
    """Delete dead letters undelivered. Those that wait behind them stay until they are replayed.

    Args:
        choice: Which.
        all_: Every letter, where no condition is given.
        yes: Do it; without, it is only told how many there are.
        wait: Seconds without an answer of the flow after which it is left to itself.
        output: Text, or JSON.
        config: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
    """
    if yes:
        return _act("discard", choice, config, output, wait, sure=all_)
    with connect(_config(config).nats) as connection:
        count = len(_chosen(connection, choice))
    raise ConfigError(
        "dlq.not_sure", f"{count} letters would be lost for good", cure="add --yes to discard them"
    )


def _act(
    action: Literal["replay", "discard"],
    choice: Choice | None,
    file: Path | None,
    output: Format,
    wait: float,
    *,
    sure: bool,
) -> int:
    if (choice is None or choice.selection.is_all) and not sure:
        raise ConfigError(
            "dlq.no_choice",
            "no letter is chosen",
            cure="name a --sink, --topic, --key, --error, --from or --to, or give --all",
        )
    config = _config(file)
    with connect(config.nats) as connection:
        chosen = _chosen(connection, choice)
        done = carry_out(connection, action, chosen, config.sinks, wait)
    _tell(done.total, len(chosen), done.unanswered, done.silent, output)
    if done.unanswered:
        return _NOBODY
    return _FAILED if done.total.failed or done.total.waiting else _DONE


def _tell(
    total: LetterAnswer, chosen: int, unanswered: int, silent: Sequence[str], output: Format
) -> None:
    counts = {
        "chosen": chosen,
        "replayed": total.replayed,
        "failed": total.failed,
        "waiting": total.waiting,
        "discarded": total.discarded,
        "gone": total.gone,
        "unanswered": unanswered,
        "error": total.error,
    }
    if output == "json":
        print(json.dumps(counts, indent=2))
        return
    meanings = {
        "replayed": "delivered",
        "failed": "refused again",
        "waiting": "left behind those",
        "discarded": "deleted",
        "gone": "no letters any more",
    }
    told = [f"{counts[name]} {words}" for name, words in meanings.items() if counts[name]]
    nothing = "nothing done yet" if chosen else "no letter is like that"
    print(f"{chosen} chosen: {', '.join(told) or nothing}")
    if total.replayed > chosen:
        print("letters of the same rows go along, so that their order stays")
    if total.error:
        print(f"the first reason: {total.error}")
    if unanswered:
        flows = ", ".join(silent)
        print(f"no answer yet: the request waits for {flows}, a day at most", file=sys.stderr)


def _config(file: Path | None) -> Config:
    return load(file or Path(os.environ.get("WAXTAP_CONFIG", "waxtap.yaml")), os.environ)


def _chosen(connection: Connection, choice: Choice | None) -> list[Head]:
    selection = (choice or Choice()).selection
    return selection.of(letter_index.heads(connection, selection.sink))


def _console() -> Console:
    # Without markup: keys and errors have brackets of their own.
    return Console(markup=False, width=None if sys.stdout.isatty() else _WIDTH)


def _error(head: Head) -> str:
    return f"[{head.reason.code}] {head.reason.message}" if head.reason.code else ""


def _told(head: Head) -> dict[str, object]:
    return {
        "sink": head.sink,
        "stream": head.stream,
        "id": head.sequence,
        "state": head.state.value,
        "topic": topic_of(head.subject),
        "key": json.loads(head.key) if head.key else None,
        "attempts": head.attempts,
        "failed_at": head.failed_at,
        "class": head.reason.kind,
        "code": head.reason.code,
        "error": head.reason.message,
        "position": head.position,
    }
