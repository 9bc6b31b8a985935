"""Flows as the API tells of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from control.pb.cdc.v1 import cdc_pb2 as pb
from control.supervisor.records import State, Truth

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from control.supervisor.records import Condition, FlowStatus
    from control.supervisor.rendering import Rendered

_PREFIX = "flows/"
_STATES = {
    State.PENDING: pb.Flow.STATE_PENDING,
    State.RUNNING: pb.Flow.STATE_RUNNING,
    State.STOPPING: pb.Flow.STATE_STOPPING,
    State.PAUSED: pb.Flow.STATE_PAUSED,
    State.BACKING_OFF: pb.Flow.STATE_BACKING_OFF,
    State.CRASH_LOOP: pb.Flow.STATE_CRASH_LOOP,
    State.REFUSED: pb.Flow.STATE_REFUSED,
    State.DONE: pb.Flow.STATE_DONE,
}
_TRUTHS = {
    Truth.TRUE: pb.Condition.STATUS_TRUE,
    Truth.FALSE: pb.Condition.STATUS_FALSE,
    Truth.UNKNOWN: pb.Condition.STATUS_UNKNOWN,
}


def resource_name(flow: str) -> str:
    """The name of a flow's resource: `flows/capture/shop`."""
    return f"{_PREFIX}{flow}"


def flow_name(resource: str) -> str:
    """The flow that a resource name means: `capture/shop`; empty: it is none."""
    kind, _, name = resource.removeprefix(_PREFIX).partition("/")
    valid = resource.startswith(_PREFIX) and kind in ("capture", "deliver") and name
    return f"{kind}/{name}" if valid else ""


def flow_message(
    flow: str, status: FlowStatus, rendered: Rendered | None, revision: int
) -> pb.Flow:
    """A flow.

    Args:
        flow: Its name.
        status: How it is.
        rendered: As the configuration wants it; None: it is to go.
        revision: Of the configuration.
    """
    message = pb.Flow(
        name=resource_name(flow),
        state=_STATES[status.state],
        conditions=[_condition(one) for one in status.conditions],
        generation=revision,
        observed_generation=status.observed,
        workers=rendered.workers if rendered else status.workers,
        processes=rendered.processes if rendered else status.processes,
        pids=status.pids,
        owner=status.owner,
        restarts=status.restarts,
        last_error=status.last_error,
    )
    if status.started:
        _stamp(message.start_time, status.started)
    return message


def gone_message(flow: str) -> pb.Flow:
    """A flow that is no more: its name, and no state."""
    return pb.Flow(name=resource_name(flow))


def _condition(condition: Condition) -> pb.Condition:
    message = pb.Condition(
        type=condition.type,
        status=_TRUTHS[condition.status],
        reason=condition.reason,
        message=condition.message,
    )
    _stamp(message.last_transition_time, condition.since)
    return message


def _stamp(message: Timestamp, seconds: float) -> None:
    message.FromDatetime(datetime.fromtimestamp(seconds, UTC))
