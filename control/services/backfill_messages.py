"""Backfills as the API tells of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from connectors.contracts.backfills import BackfillStatus, Stage, Wish
from control.pb.cdc.v1 import cdc_pb2 as pb
from control.server.statuses import invalid
from control.services.moments import duration, timestamp

if TYPE_CHECKING:
    from connectors.jetstream.backfills import Stored

_NAME = re.compile(r"sources/([a-z0-9_-]{1,39})/backfills/([a-z0-9_-]{1,39})")
_STATES = {
    Stage.QUEUED: pb.Backfill.STATE_QUEUED,
    Stage.RUNNING: pb.Backfill.STATE_RUNNING,
    Stage.PAUSED: pb.Backfill.STATE_PAUSED,
    Stage.DONE: pb.Backfill.STATE_DONE,
    Stage.CANCELLED: pb.Backfill.STATE_CANCELLED,
    Stage.FAILED: pb.Backfill.STATE_FAILED,
}
# Longer than any that means something.
_LONGEST_S = 10 * 365 * 24 * 3600.0


def resource_name(source: str, backfill: str) -> str:
    """The name of a backfill's resource."""
    return f"sources/{source}/backfills/{backfill}"


def parts_of(name: str, where: str = "name") -> tuple[str, str]:
    """The source and the id that a resource name means.

    Raises:
        ApiError: It is none.
    """
    named = _NAME.fullmatch(name)
    if named is None:
        raise invalid(
            "control.name",
            f"{name!r} is no name of a backfill",
            where=where,
            cure="such as sources/shop/backfills/initial",
        )
    return named[1], named[2]


def backfill_message(stored: Stored) -> pb.Backfill:
    """A backfill."""
    asked, told = stored.request, stored.status or BackfillStatus(Stage.QUEUED)
    shown = pb.Backfill(
        name=resource_name(stored.source, stored.id),
        state=state_of(stored),
        rows=told.rows,
        estimated_rows=told.estimated,
        rows_per_second=round(told.rate, 1),
        table=told.table,
        error=told.error,
        start_time=timestamp(told.started),
        end_time=timestamp(told.ended),
    )
    if told.seconds_left is not None and told.stage is Stage.RUNNING:
        left = min(told.seconds_left, _LONGEST_S)
        shown.time_left.CopyFrom(duration(int(left * 1e9)))
    if asked is not None:
        shown.tables.extend(asked.tables)
        shown.where = asked.where
        shown.sink = f"sinks/{asked.sink}" if asked.sink else ""
        shown.max_rows_per_second = asked.rate
        shown.author = asked.author
        shown.create_time.FromNanoseconds(asked.created)
    return shown


def state_of(stored: Stored) -> pb.Backfill.State.ValueType:
    """What is told of it, and what is asked of it, in one word."""
    stage = stored.status.stage if stored.status else Stage.QUEUED
    wish = stored.request.wish if stored.request else Wish.RUN
    if stage.final:
        return _STATES[stage]
    if wish is Wish.CANCEL:
        # One that has not begun never will.
        begun = stored.status is not None and stored.status.started
        return pb.Backfill.STATE_CANCELLING if begun else pb.Backfill.STATE_CANCELLED
    if wish is Wish.PAUSE:
        return pb.Backfill.STATE_PAUSING if stage is Stage.RUNNING else pb.Backfill.STATE_PAUSED
    return _STATES[Stage.QUEUED if stage is Stage.PAUSED else stage]
