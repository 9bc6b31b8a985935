"""`waxtap backfill`: rows of a source's tables read again, or for the first time."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from connectors.errors import ConfigError
from control.cli.client import Service
from control.cli.output import Format, plain, show, show_messages
from control.cli.pages import pages
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from control.pb.cdc.v1.cdc_pb2_grpc import BackfillServiceStub

_DONE, _FAILED = 0, 1
_LOOK_EVERY = 0.5
_STATE = cdc_pb2.Backfill
_OVER = (_STATE.STATE_DONE, _STATE.STATE_CANCELLED, _STATE.STATE_FAILED)
_COLUMNS = (
    "name", "state", "rows", "of", "rows/s", "left", "table", "tables", "where", "sink", "error",
)  # fmt: skip

Rate = Annotated[int, Parameter(name="--rate")]
Wait = Annotated[bool, Parameter(name="--wait", negative=())]

app = App(name="backfill", help="Rows of a source's tables, read again or for the first time.")


@app.command
def start(
    source: str,
    *,
    table: Annotated[list[str], Parameter(name=["--table", "-t"], negative=())],
    where: str = "",
    sink: str = "",
    rate: Rate = 0,
    name: Annotated[str, Parameter(name="--id")] = "",
    wait: Wait = False,
    output: Format = "table",
    service: Service | None = None,
) -> int:
    """Ask for rows of tables, which come behind those that were asked for before.

    Args:
        source: Whose tables.
        table: Which: public.orders, or a pattern such as 'public.*'; may be given several times.
        where: What may stand behind WHERE, in the source's SQL: only rows that fulfil it.
        sink: Only this sink is given the rows; all are unless given.
        rate: At most so many rows a second; 0: as many as can be stored.
        name: Its id; one is made up unless given.
        wait: Until it is over, and tell how far it is meanwhile.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    request = cdc_pb2.CreateBackfillRequest(
        parent=f"sources/{source.removeprefix('sources/')}",
        backfill_id=name,
        backfill=cdc_pb2.Backfill(
            tables=table, where=where, sink=sink, max_rows_per_second=_checked(rate)
        ),
    )
    with (service or Service()).channel() as channel:
        stub = cdc_pb2_grpc.BackfillServiceStub(channel)
        found = stub.CreateBackfill(request)
        if wait:
            found = _awaited(stub, found.name)
    return _shown(found, output)


@app.command(name="list")
def list_(source: str = "", *, output: Format = "table", service: Service | None = None) -> int:
    """List backfills, and first snapshots as `initial`.

    Args:
        source: Of this source only.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    parent = f"sources/{source.removeprefix('sources/')}" if source else ""
    request = cdc_pb2.ListBackfillsRequest(parent=parent, page_size=500)
    with (service or Service()).channel() as channel:
        stub = cdc_pb2_grpc.BackfillServiceStub(channel)
        found = [each for page in pages(stub.ListBackfills, request) for each in page.backfills]
    show_messages(found, output, map(_row, found), _COLUMNS)
    return _DONE


@app.command
def get(
    name: str, *, wait: Wait = False, output: Format = "yaml", service: Service | None = None
) -> int:
    """Show one, with how far it is.

    Args:
        name: SOURCE/ID, such as shop/initial.
        wait: Until it is over, and tell how far it is meanwhile.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    with (service or Service()).channel() as channel:
        stub = cdc_pb2_grpc.BackfillServiceStub(channel)
        full = _full(name)
        found = stub.GetBackfill(cdc_pb2.GetBackfillRequest(name=full))
        if wait:
            found = _awaited(stub, full)
    return _shown(found, output)


@app.command
def update(
    name: str, *, rate: Rate, output: Format = "table", service: Service | None = None
) -> int:
    """Change how fast one is, also while it runs.

    Args:
        name: SOURCE/ID.
        rate: At most so many rows a second; 0: as many as can be stored.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    changed = cdc_pb2.Backfill(name=_full(name), max_rows_per_second=_checked(rate))
    with (service or Service()).channel() as channel:
        stub = cdc_pb2_grpc.BackfillServiceStub(channel)
        found = stub.UpdateBackfill(cdc_pb2.UpdateBackfillRequest(backfill=changed))
    return _shown(found, output)


@app.command
def pause(name: str, *, output: Format = "table", service: Service | None = None) -> int:
    """Hold one up until it is resumed; those behind it wait if it has begun.

    Args:
        name: SOURCE/ID.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    with (service or Service()).channel() as channel:
        stub = cdc_pb2_grpc.BackfillServiceStub(channel)
        found = stub.PauseBackfill(cdc_pb2.PauseBackfillRequest(name=_full(name)))
    return _shown(found, output)


@app.command
def resume(name: str, *, output: Format = "table", service: Service | None = None) -> int:
    """Let one go on behind the last row that was stored.

    Args:
        name: SOURCE/ID.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    with (service or Service()).channel() as channel:
        stub = cdc_pb2_grpc.BackfillServiceStub(channel)
        found = stub.ResumeBackfill(cdc_pb2.ResumeBackfillRequest(name=_full(name)))
    return _shown(found, output)


@app.command
def cancel(name: str, *, output: Format = "table", service: Service | None = None) -> int:
    """End one for good; the rows that were read stay.

    Args:
        name: SOURCE/ID.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    with (service or Service()).channel() as channel:
        stub = cdc_pb2_grpc.BackfillServiceStub(channel)
        found = stub.CancelBackfill(cdc_pb2.CancelBackfillRequest(name=_full(name)))
    return _shown(found, output)


def _checked(rate: int) -> int:
    if not 0 <= rate < 1 << 31:
        raise ConfigError("cli.rate", f"{rate} is no number of rows a second", where="--rate")
    return rate


def _full(name: str) -> str:
    source, _, backfill = name.removeprefix("sources/").partition("/")
    return f"sources/{source}/backfills/{backfill.removeprefix('backfills/')}"


def _awaited(stub: BackfillServiceStub, name: str) -> cdc_pb2.Backfill:
    """How it is once it is over; told on the standard error meanwhile, in one line."""
    live = sys.stderr.isatty()
    told = ""
    while True:
        found = stub.GetBackfill(cdc_pb2.GetBackfillRequest(name=name))
        line = _line(found)
        if live:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif line != told:
            print(line, file=sys.stderr, flush=True)
        told = line
        if found.state in _OVER:
            if live:
                print(file=sys.stderr)
            return found
        time.sleep(_LOOK_EVERY)


def _line(found: cdc_pb2.Backfill) -> str:
    of = f" of about {found.estimated_rows}" if found.estimated_rows else ""
    speed = f", {found.rows_per_second:.0f}/s" if found.rows_per_second else ""
    left = f", {_left(found.time_left)} left" if found.HasField("time_left") else ""
    return f"{_state(found)}: {found.rows} rows{of}{speed}{left} {found.table}".rstrip()


def _shown(found: cdc_pb2.Backfill, output: Format) -> int:
    """Show one; returns the exit status."""
    if output == "table":
        show_messages([found], output, [_row(found)], _COLUMNS)
    else:
        show(plain(found), output)
    return _FAILED if found.state == _STATE.STATE_FAILED else _DONE


def _row(found: cdc_pb2.Backfill) -> dict[str, object]:
    return {
        "name": found.name.removeprefix("sources/").replace("/backfills/", "/"),
        "state": _state(found),
        "rows": found.rows,
        "of": f"~{found.estimated_rows}" if found.estimated_rows else "",
        "rows/s": f"{found.rows_per_second:.0f}" if found.rows_per_second else "",
        "left": _left(found.time_left) if found.HasField("time_left") else "",
        "table": found.table,
        "tables": ", ".join(found.tables) or "all",
        "where": found.where,
        "sink": found.sink.removeprefix("sinks/") or "all",
        "error": found.error,
    }


def _state(found: cdc_pb2.Backfill) -> str:
    return cdc_pb2.Backfill.State.Name(found.state).removeprefix("STATE_").lower()


def _left(left: Duration) -> str:
    seconds = left.seconds
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
