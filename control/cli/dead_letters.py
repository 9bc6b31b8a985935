"""`waxtap dlq`: look at dead letters, deliver them once more, or delete them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.table import Table

from connectors.errors import ConfigError
from connectors.jetstream import letter_index
from connectors.jetstream.connection import connect
from connectors.subjects import topic_of
from control.cli.client import Service
from control.cli.letter_choice import Choice
from control.cli.output import Format, console, exact, print_payload, show, text_of
from control.cli.served_letters import discarded, listed, replayed
from control.letters import search
from control.letters.actions import carry_out
from control.letters.selection import place
from dataflows.spec import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.jetstream.connection import Connection
    from connectors.letters import Head, LetterAnswer
    from control.letters.selection import Selection
    from dataflows.spec import Config

File = Annotated[Path | None, Parameter(name=["--config", "-c"])]
Patience = Annotated[float, Parameter(name="--wait")]

_DONE, _FAILED, _NOBODY = 0, 1, 3

app = App(name="dlq", help="Dead letters: changes that sinks have put aside.")


@app.command(name="list")
def list_(
    *,
    choice: Choice | None = None,
    limit: int = 100,
    output: Format = "table",
    config: File = None,
    service: Service | None = None,
) -> int:
    """List dead letters, the oldest first.

    Args:
        choice: Which.
        limit: At most so many.
        output: A table, JSON or YAML.
        config: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
        service: With --server or $WAXTAP_SERVER and no --config, the control service is asked.
    """
    if served := _served_by(service, config):
        found, total = listed(served, _selection(choice), limit)
    else:
        with connect(_config(config).nats) as connection:
            chosen = _chosen(connection, choice)
        found, total = [_told(head) for head in chosen[:limit]], len(chosen)
    if output != "table":
        show(found, output)
        return _DONE
    table = Table(box=None, pad_edge=False)
    for name in ("sink", "stream", "id", "state", "topic", "key", "tried", "at", "error"):
        table.add_column(name, overflow="fold")
    for each in found:
        error = f"[{each['code']}] {each['error']}" if each["code"] else ""
        table.add_row(
            *(str(each[name]) for name in ("sink", "stream", "id", "state", "topic")),
            _key(each),
            *(str(each[name]) for name in ("attempts", "failed_at")),
            error,
        )
    out = console()
    out.print(table)
    if total > limit:
        out.print(f"{total - limit} more: --limit {total}")
    return _DONE


@app.command(name="show")
def show_(
    *,
    choice: Choice | None = None,
    limit: int = 10,
    output: Format = "table",
    config: File = None,
    service: Service | None = None,
) -> int:
    """Show dead letters with the change that each of them holds.

    Args:
        choice: Which.
        limit: At most so many.
        output: Text, JSON or YAML.
        config: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
        service: With --server or $WAXTAP_SERVER and no --config, the control service is asked.
    """
    if served := _served_by(service, config):
        told, _ = listed(served, _selection(choice), limit, whole=True)
    else:
        with connect(_config(config).nats) as connection:
            chosen = _chosen(connection, choice)[:limit]
            opened = list(letter_index.read(connection, chosen))
        told = [
            _told(head) | {"change": exact(change.envelope.decode())} for head, change in opened
        ]
    if output != "table":
        show(told, output)
        return _DONE
    out = console()
    for each in told:
        change = each.pop("change")
        each["key"] = _key(each)
        for name, text in each.items():
            out.print(f"{name:<10} {text}", highlight=False)
        print_payload(out, text_of(change))
        out.print()
    return _DONE


@app.command
def replay(
    *,
    choice: Choice | None = None,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    wait: Patience = 10.0,
    output: Format = "table",
    config: File = None,
    service: Service | None = None,
) -> int:
    """Deliver dead letters once more, while the flow runs.

    All letters of a row are delivered, from its first one on, and before its newer changes. One
    that is refused again stays, and so do those behind it.

    Args:
        choice: Which.
        all_: Every letter, where no condition is given.
        wait: Seconds without an answer of the flow after which it is left to itself.
        output: Text, JSON or YAML.
        config: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
        service: With --server or $WAXTAP_SERVER and no --config, the control service is asked.
    """
    if served := _served_by(service, config):
        _check_choice(choice, sure=all_)
        return _served(replayed(served, _selection(choice), sure=all_), output)
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
    service: Service | None = None,
) -> int:
    """Delete dead letters undelivered. Those that wait behind them stay until they are replayed.

    Args:
        choice: Which.
        all_: Every letter, where no condition is given.
        yes: Do it; without, it is only told how many there are.
        wait: Seconds without an answer of the flow after which it is left to itself.
        output: Text, JSON or YAML.
        config: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
        service: With --server or $WAXTAP_SERVER and no --config, the control service is asked.
    """
    served = _served_by(service, config)
    if yes and served:
        _check_choice(choice, sure=all_)
        return _served(discarded(served, _selection(choice), sure=all_), output)
    if yes:
        return _act("discard", choice, config, output, wait, sure=all_)
    if served:
        _, count = listed(served, _selection(choice), 1)
    else:
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
    _check_choice(choice, sure=sure)
    config = _config(file)
    with connect(config.nats) as connection:
        chosen = _chosen(connection, choice)
        done = carry_out(connection, action, chosen, config.sinks, wait)
    _tell(done.total, len(chosen), done.unanswered, done.silent, output)
    if done.unanswered:
        return _NOBODY
    return _FAILED if done.total.failed or done.total.waiting else _DONE


def _check_choice(choice: Choice | None, *, sure: bool) -> None:
    if (choice is None or choice.selection.is_all) and not sure:
        raise ConfigError(
            "dlq.no_choice",
            "no letter is chosen",
            cure="name a --sink, --topic, --key, --error or another condition, or give --all",
        )


def _served_by(service: Service | None, file: Path | None) -> Service | None:
    """The control service, if it is to be asked: where it is named, and no file is."""
    service = service or Service()
    is_named = bool(os.environ.get("WAXTAP_SERVER")) and file is None
    return service if service.server or is_named else None


def _served(counts: dict[str, object], output: Format) -> int:
    """Tell what the service has done; returns the exit status."""
    if output != "table":
        show(counts, output)
    else:
        told = [f"{count} {name}" for name, count in counts.items() if count and name != "error"]
        print(", ".join(told) or "nothing done")
        if counts.get("error"):
            print(f"the first reason: {counts['error']}")
    if counts["unanswered"]:
        print("no answer yet: requests wait for their flows, a day at most", file=sys.stderr)
        return _NOBODY
    return _FAILED if counts.get("failed") or counts.get("waiting") else _DONE


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
    if output != "table":
        show(counts, output)
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


def _selection(choice: Choice | None) -> Selection:
    return (choice or Choice()).selection


def _chosen(connection: Connection, choice: Choice | None) -> list[Head]:
    selection = _selection(choice)
    return sorted(search.chosen(connection, selection), key=place)


def _key(told: dict[str, object]) -> str:
    """A letter's key, as --key takes it."""
    return text_of(told["key"]) if told["key"] else ""


def _told(head: Head) -> dict[str, object]:
    return {
        "sink": head.sink,
        "stream": head.stream,
        "id": head.sequence,
        "state": head.state.value,
        "topic": topic_of(head.subject),
        "key": exact(head.key) if head.key else None,
        "attempts": head.attempts,
        "failed_at": head.failed_at,
        "class": head.reason.kind,
        "code": head.reason.code,
        "error": head.reason.message,
        "position": head.position,
    }
