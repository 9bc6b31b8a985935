"""Filters and orders of messages: from the API's messages to what the explorer takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from connectors.errors import ConfigError
from connectors.jetstream.topics import filter_subjects
from control.explorer.deliveries import Fate
from control.explorer.pages import Ordered
from control.explorer.wanted import Wanted, key_text
from control.pb.cdc.v1 import cdc_pb2
from control.server.statuses import invalid
from control.services.moments import moment

if TYPE_CHECKING:
    from collections.abc import Sequence


_OPS = frozenset("cudrtm")
_SOURCE = re.compile(r"[A-Za-z0-9_-]*")
_FATES: dict[int, Fate] = {
    cdc_pb2.DELIVERY_STATE_UNSENT: Fate.UNSENT,
    cdc_pb2.DELIVERY_STATE_SENT: Fate.SENT,
    cdc_pb2.DELIVERY_STATE_FAILED: Fate.FAILED,
    cdc_pb2.DELIVERY_STATE_PARKED: Fate.PARKED,
}
_ORDERS: dict[int, Ordered] = {
    # Without a word, what is newest comes first.
    cdc_pb2.ORDER_UNSPECIFIED: Ordered(by_time=True, descending=True),
    cdc_pb2.ORDER_SEQUENCE_ASCENDING: Ordered(),
    cdc_pb2.ORDER_SEQUENCE_DESCENDING: Ordered(descending=True),
    cdc_pb2.ORDER_TIME_ASCENDING: Ordered(by_time=True),
    cdc_pb2.ORDER_TIME_DESCENDING: Ordered(by_time=True, descending=True),
}


def wanted(given: cdc_pb2.MessageFilter) -> Wanted:
    """What a filter asks for. Raises ApiError: a field of it is wrong."""
    check_pattern(given.topic, "filter.topic")
    check_source(given.source, "filter.source")
    partition, ops = checked_partition(given), checked_ops(given.ops)
    start, end = checked_range(given)
    return Wanted(
        topic=given.topic,
        partition=partition,
        source=given.source,
        key=_key(given.key),
        ops=ops,
        start=start,
        end=end,
        text=given.text,
    )


def fates(given: cdc_pb2.MessageFilter) -> frozenset[Fate]:
    """What may have become of messages. Raises ApiError: a state is none, or without a sink."""
    if given.states and not given.sink:
        raise invalid("control.sink", "states are those at one sink: name it", where="filter.sink")
    for index, state in enumerate(given.states):
        if state not in _FATES:
            raise invalid("control.state", f"{state} is no state", where=f"filter.states[{index}]")
    return frozenset(_FATES[state] for state in given.states)


def ordered(given: int) -> Ordered:
    """The order that is asked for. Raises ApiError: it is none."""
    if given not in _ORDERS:
        raise invalid("control.order", f"{given} is no order", where="order")
    return _ORDERS[given]


def check_pattern(pattern: str, where: str) -> None:
    """Raise ApiError unless this is a topic, or a pattern, or empty."""
    if not pattern:
        return
    try:
        filter_subjects("source", [pattern])
    except ConfigError as error:
        raise invalid("control.topic", error.message, where=where, cure=error.cure) from None


def check_source(name: str, where: str) -> None:
    """Raise ApiError unless a source can have this name; an empty one is fine."""
    if not _SOURCE.fullmatch(name):
        raise invalid("control.source", f"{name!r} is no name of a source", where=where)


def checked_partition(given: cdc_pb2.MessageFilter | cdc_pb2.DeadLetterFilter) -> int | None:
    """The partition that is asked for; None: any. Raises ApiError: there is none like that."""
    if not given.HasField("partition"):
        return None
    if given.partition < 0:
        raise invalid("control.partition", "partitions begin at 0", where="filter.partition")
    return given.partition


def checked_ops(given: Sequence[str]) -> frozenset[str]:
    """The operations that are asked for; empty: any. Raises ApiError: one of them is none."""
    for index, op in enumerate(given):
        if op not in _OPS:
            raise invalid(
                "control.op",
                f"{op!r} is no operation",
                where=f"filter.ops[{index}]",
                cure="one of c, u, d, r, t, m",
            )
    return frozenset(given)


def checked_range(
    given: cdc_pb2.MessageFilter | cdc_pb2.DeadLetterFilter,
) -> tuple[int | None, int | None]:
    """The time range that is asked for, in nanoseconds since 1970; None: open.

    Raises:
        ApiError: There is no such time, or the range ends before it begins.
    """
    start = moment(given.start_time, "filter.start_time") if given.HasField("start_time") else None
    end = moment(given.end_time, "filter.end_time") if given.HasField("end_time") else None
    if start is not None and end is not None and end <= start:
        raise invalid("control.time", "ends before it begins", where="filter.end_time")
    return start, end


def _key(text: str) -> str:
    try:
        return key_text(text) if text else ""
    except ValueError as error:
        raise invalid("control.key", str(error), where="filter.key") from None
