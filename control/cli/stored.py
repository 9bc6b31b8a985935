"""`waxtap topics, messages, tail`: what lies in the streams, as the control service sees it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from connectors.errors import ConfigError
from control.cli.client import Service
from control.cli.output import Format, console, plain, print_payload, show, show_messages, utc
from control.cli.pages import pages
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

_DONE = 0
_ORDERS = {
    "newest": cdc_pb2.ORDER_TIME_DESCENDING,
    "oldest": cdc_pb2.ORDER_TIME_ASCENDING,
    "last": cdc_pb2.ORDER_SEQUENCE_DESCENDING,
    "first": cdc_pb2.ORDER_SEQUENCE_ASCENDING,
}
_STATES = {
    "unsent": cdc_pb2.DELIVERY_STATE_UNSENT,
    "sent": cdc_pb2.DELIVERY_STATE_SENT,
    "failed": cdc_pb2.DELIVERY_STATE_FAILED,
    "parked": cdc_pb2.DELIVERY_STATE_PARKED,
}
_WORDS = {number: word for word, number in _STATES.items()}
_COLUMNS = ("message", "time", "topic", "part", "op", "key", "delivered", "payload")
_SHOWN = 80


@Parameter(name="*", group="Filter")
@dataclass(frozen=True)
class Which:
    """Conditions that all must hold.

    Attributes:
        topic: Of this topic; `db.*` for all below.
        partition: Of this partition.
        source: Of this source.
        key: Of this row: its key as JSON, such as {"id": 17}.
        op: One of c, u, d, r, t, m; may be given several times.
        text: With this somewhere in the payload.
    """

    topic: str = ""
    partition: int | None = None
    source: str = ""
    key: str = ""
    op: tuple[str, ...] = ()
    text: str = ""

    @property
    def filter(self) -> cdc_pb2.MessageFilter:
        """As the API has it."""
        return cdc_pb2.MessageFilter(
            topic=self.topic,
            partition=self.partition,
            source=self.source,
            key=self.key,
            ops=self.op,
            text=self.text,
        )


def topics(pattern: str = "", *, output: Format = "table", service: Service | None = None) -> int:
    """List the topics that are found in the streams, by partition.

    Args:
        pattern: A topic, or `db.*` for all below.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    with (service or Service()).channel() as channel:
        list_topics = cdc_pb2_grpc.MessageServiceStub(channel).ListStoredTopics
        request = cdc_pb2.ListStoredTopicsRequest(filter=pattern)
        found = [topic for page in pages(list_topics, request) for topic in page.topics]
    rows = [
        {
            "topic": topic.name.removeprefix("storedTopics/"),
            "source": part.source,
            "part": part.partition,
            "messages": part.messages,
            "bytes": part.bytes,
            "first": part.first_sequence,
            "last": part.last_sequence,
            "first at": moment(part.first_time),
            "last at": moment(part.last_time),
            "rate/s": f"{part.rate:.1f}",
            "sinks": ", ".join(topic.sinks),
        }
        for topic in found
        for part in topic.partitions
    ]
    columns = tuple(rows[0]) if rows else ("topic", "source", "part", "messages", "bytes")
    show_messages(found, output, rows, columns)
    return _DONE


def messages(
    name: str = "",
    *,
    which: Which | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    sink: str = "",
    state: tuple[Literal["unsent", "sent", "failed", "parked"], ...] = (),
    limit: int = 20,
    page: int = 1,
    order: Literal["newest", "oldest", "first", "last"] = "newest",
    preview: int = 256,
    output: Format = "table",
    service: Service | None = None,
) -> int:
    """List stored messages, or show one of them whole.

    Args:
        name: Of one message: streams/CDC_shop/messages/4711, or CDC_shop/4711.
        which: Which.
        since: Stored then or later; UTC unless it says otherwise.
        until: Stored before.
        sink: Only what this sink reads; needed with --state.
        state: What became of it there; may be given several times.
        limit: At most so many.
        page: Which page of so many.
        order: By time over all streams, or by sequence.
        preview: How many bytes of each payload are read.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    with (service or Service()).channel() as channel:
        stub = cdc_pb2_grpc.MessageServiceStub(channel)
        if name:
            return _one(stub, name, output)
        choice = (which or Which()).filter
        choice.sink = sink
        choice.states.extend(_STATES[each] for each in state)
        if since is not None:
            choice.start_time.FromDatetime(utc(since))
        if until is not None:
            choice.end_time.FromDatetime(utc(until))
        if limit < 1 or page < 1:
            raise ConfigError("cli.page", "--limit and --page begin at 1", where="--limit")
        request = cdc_pb2.ListMessagesRequest(
            filter=choice, limit=limit, page=page, order=_ORDERS[order], preview_bytes=preview
        )
        found: list[cdc_pb2.Message] = []
        while True:
            answer = stub.ListMessages(request)
            found += answer.messages
            # The look ended before the page was full: it goes on where it stopped.
            if not answer.incomplete or not answer.next_page_token:
                break
            request.page, request.page_token = 0, answer.next_page_token
            request.limit = limit - len(found)
    show_messages(found, output, map(_row, found), _COLUMNS)
    if output == "table" and answer.total_size > len(found):
        print(f"page {page} of {-(-answer.total_size // limit)}", file=sys.stderr)
    return _DONE


def tail(
    *,
    which: Which | None = None,
    last: Annotated[int, Parameter(name=["--last", "-n"])] = 0,
    output: Literal["table", "json"] = "table",
    service: Service | None = None,
) -> int:
    """Show messages as they are stored, until Ctrl-C.

    Args:
        which: Which.
        last: Begin with so many stored ones.
        output: A line each, or one JSON object a line.
        service: Where the control service is.
    """
    request = cdc_pb2.TailMessagesRequest(filter=(which or Which()).filter, last=last)
    with (service or Service()).channel() as channel:
        try:
            for message in cdc_pb2_grpc.MessageServiceStub(channel).TailMessages(request):
                if output == "json":
                    print(json.dumps(plain(message), ensure_ascii=False))
                else:
                    row = _row(message)
                    print("  ".join(str(row[name]) for name in _COLUMNS if row[name] != ""))
                sys.stdout.flush()
        except KeyboardInterrupt:
            return _DONE
    return _DONE


def _one(stub: cdc_pb2_grpc.MessageServiceStub, name: str, output: Format) -> int:
    if not name.startswith("streams/"):
        stream, _, sequence = name.rpartition("/")
        name = f"streams/{stream}/messages/{sequence}"
    request = cdc_pb2.GetMessageRequest(name=name)
    message = stub.GetMessage(request)
    if message.payload_cut:
        whole = b"".join(piece.data for piece in stub.ReadMessagePayload(request))
        message.payload, message.payload_cut = whole.decode(), False
    if output != "table":
        show(plain(message), output)
        return _DONE
    out = console()
    for label, text in _row(message).items():
        if label != "payload":
            out.print(f"{label:<10} {text}", highlight=False)
    if message.schema_version:
        out.print(f"{'schema':<10} version {message.schema_version}", highlight=False)
    for header in message.headers:
        out.print(f"{header.name}: {header.value}", highlight=False)
    print_payload(out, message.payload or "null")
    return _DONE


def _row(message: cdc_pb2.Message) -> dict[str, object]:
    payload = message.payload[:_SHOWN]
    return {
        "message": f"{message.stream}/{message.sequence}",
        "time": moment(message.time),
        "topic": message.topic,
        "part": message.partition,
        "op": message.op,
        "key": message.key,
        "delivered": ", ".join(
            f"{each.sink}: {_WORDS.get(each.state, 'unknown')}" for each in message.deliveries
        ),
        "payload": payload + ("…" if len(payload) < message.size else ""),
    }


def moment(given: Timestamp) -> str:
    """A time as it is shown; empty: there is none."""
    if not given.seconds:
        return ""
    return given.ToDatetime(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
