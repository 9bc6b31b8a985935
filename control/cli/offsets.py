"""`waxtap offsets, lag`: how far sources and sinks are."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.live import Live
from rich.table import Table

from connectors.errors import ConfigError
from control.cli.client import Service
from control.cli.output import Format, console, plain, show, show_messages
from control.cli.pages import pages
from control.cli.stored import moment
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc, config_pb2

if TYPE_CHECKING:
    import grpc
    from google.protobuf.duration_pb2 import Duration

_DONE = 0
_UNKNOWN = "unknown"
_SINKS = (
    "sink", "source", "topic", "part", "position", "lag", "bytes", "behind", "ack floor", "pending",
    "unacked", "redelivered",
)  # fmt: skip
_SOURCES = ("source", "position", "server", "slot", "lag bytes", "retained", "behind", "stored")

app = App(name="offsets", help="How far sinks are, and setting them to another place.")


@app.default
def offsets(sink: str = "", *, output: Format = "table", service: Service | None = None) -> int:
    """List how far sinks are, by partition.

    Args:
        sink: One sink only.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    with (service or Service()).channel() as channel:
        found = _of_sinks(channel, sink)
    show_messages(found, output, map(_row, found), _SINKS)
    return _DONE


@app.command
def reset(
    sink: str,
    *,
    to: Annotated[str, Parameter(name="--to")],
    source: str = "",
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    output: Format = "table",
    service: Service | None = None,
) -> int:
    """Let a paused sink go on at another place of its streams.

    Args:
        sink: Which; its flow must be paused.
        to: beginning, end, a sequence (with --source), or a time such as 2026-01-31T12:00:00Z.
        source: Of this source's stream only.
        yes: Do it; without, nothing is done.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    target = _target(to)
    if not yes:
        raise ConfigError(
            "cli.not_sure",
            f"{sink} would be given everything from {to} on",
            cure="add --yes to do it",
        )
    request = cdc_pb2.ResetSinkOffsetRequest(sink=sink, source=source, to=target)
    with (service or Service()).channel() as channel:
        found = cdc_pb2_grpc.OffsetServiceStub(channel).ResetSinkOffset(request).offsets
    show_messages(found, output, map(_row, found), _SINKS)
    return _DONE


def lag(
    *,
    watch: Annotated[bool, Parameter(name=["--watch", "-w"], negative=())] = False,
    every: float = 1.0,
    output: Format = "table",
    service: Service | None = None,
) -> int:
    """Show how far sources and sinks are behind, all partitions of a sink's source together.

    Args:
        watch: Go on until Ctrl-C.
        every: Seconds between two looks.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    with (service or Service()).channel() as channel, suppress(KeyboardInterrupt):
        if not watch:
            _print(channel, output)
            return _DONE
        if output != "table" or not sys.stdout.isatty():  # one after the other
            while True:
                _print(channel, output)
                sys.stdout.flush()
                time.sleep(every)
        with Live(_both(channel), console=console(), auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(_both(channel), refresh=True)
    return _DONE


def _print(channel: grpc.Channel, output: Format) -> None:
    if output == "table":
        console().print(_both(channel))
        return
    sources, sinks = _of_sources(channel), _of_sinks(channel, "")
    told = {"sources": [*map(plain, sources)], "sinks": [*map(plain, sinks)]}
    show(told, output)


def _both(channel: grpc.Channel) -> Table:
    outer = Table.grid()
    upper = Table(box=None, pad_edge=False)
    for name in _SOURCES:
        upper.add_column(name.upper(), overflow="fold")
    for source in _of_sources(channel):
        upper.add_row(
            source.source,
            source.position,
            source.server_position,
            source.slot + ("" if source.slot_active or not source.slot else " (idle)"),
            _known(source.lag_bytes),
            str(source.retained_bytes) if source.server_position else _UNKNOWN,
            _behind(source.lag_bytes, source.lag_time),
            moment(source.checkpoint_time),
        )
    lower = Table(box=None, pad_edge=False)
    for name in ("sink", "source", "messages", "bytes", "behind", "unacknowledged"):
        lower.add_column(name.upper(), overflow="fold")
    for (sink, of), parts in _grouped(_of_sinks(channel, "")).items():
        known = all(part.lag_messages >= 0 for part in parts)
        lower.add_row(
            sink,
            of,
            str(sum(part.lag_messages for part in parts)) if known else _UNKNOWN,
            str(sum(part.lag_bytes for part in parts)) if known else _UNKNOWN,
            _behind(
                0 if known else -1,
                max(parts, key=lambda part: part.lag_time.ToNanoseconds()).lag_time,
            ),
            str(max(part.unacknowledged for part in parts)),
        )
    outer.add_row(upper)
    outer.add_row("")
    outer.add_row(lower)
    return outer


def _grouped(
    found: list[cdc_pb2.SinkOffset],
) -> dict[tuple[str, str], list[cdc_pb2.SinkOffset]]:
    groups: dict[tuple[str, str], list[cdc_pb2.SinkOffset]] = {}
    for each in found:
        groups.setdefault((each.sink, each.source), []).append(each)
    return groups


def _of_sinks(channel: grpc.Channel, sink: str) -> list[cdc_pb2.SinkOffset]:
    stub = cdc_pb2_grpc.OffsetServiceStub(channel)
    request = cdc_pb2.ListSinkOffsetsRequest(sink=sink, page_size=1000)
    return [each for page in pages(stub.ListSinkOffsets, request) for each in page.offsets]


def _of_sources(channel: grpc.Channel) -> list[cdc_pb2.SourceOffset]:
    stub = cdc_pb2_grpc.OffsetServiceStub(channel)
    request = cdc_pb2.ListSourceOffsetsRequest(page_size=1000)
    return [each for page in pages(stub.ListSourceOffsets, request) for each in page.offsets]


def _row(offset: cdc_pb2.SinkOffset) -> dict[str, object]:
    return {
        "sink": offset.sink,
        "source": offset.source,
        "topic": offset.topic,
        "part": offset.partition,
        "position": _known(offset.position),
        "lag": _known(offset.lag_messages),
        "bytes": _known(offset.lag_bytes),
        "behind": _behind(offset.lag_messages, offset.lag_time),
        "ack floor": offset.ack_floor,
        "pending": offset.pending,
        "unacked": offset.unacknowledged,
        "redelivered": offset.redelivered,
    }


def _target(text: str) -> config_pb2.Start:
    if text == "beginning":
        return config_pb2.Start(beginning=True)
    if text == "end":
        return config_pb2.Start(end=True)
    if text.isdigit():
        return config_pb2.Start(sequence=int(text))
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            "cli.place", f"{text!r} is no place", where="--to",
            cure="beginning, end, a sequence, or a time such as 2026-01-31T12:00:00Z",
        ) from None  # fmt: skip
    target = config_pb2.Start()
    target.time.FromDatetime(given.astimezone(UTC) if given.tzinfo else given)
    return target


def _known(number: int) -> str:
    return str(number) if number >= 0 else _UNKNOWN


def _behind(lag: int, time: Duration) -> str:
    """How long it is behind, unless nobody knows how much (-1)."""
    return f"{time.ToNanoseconds() / 1e9:.1f} s" if lag >= 0 else _UNKNOWN
