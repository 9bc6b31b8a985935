"""Writes down how the flows of this service are, for every service to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from control.supervisor.bucket import Write
from control.supervisor.group import Group
from control.supervisor.records import FlowStatus, flow_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from control.supervisor.bucket import FlowBucket
    from control.supervisor.flow import SupervisedFlow
    from control.supervisor.records import Condition, State
    from control.supervisor.rendering import Rendered

# What is not about a flow's processes is written at most so often.
_EVERY = 1.0


class Reports:
    """The statuses of this service's flows.

    Args:
        bucket: Where they are written.
        service: The id of this service.
        conditions: What holds of a flow, by its name, its state and what the configuration wants.
    """

    def __init__(
        self,
        bucket: FlowBucket,
        service: str,
        conditions: Callable[[str, State, Rendered | None], tuple[Condition, ...]],
    ) -> None:
        self._bucket, self._service, self._conditions = bucket, service, conditions
        self._written: dict[str, tuple[FlowStatus, float]] = {}

    def write(
        self, flows: Mapping[str, SupervisedFlow], rendered: Mapping[str, Rendered], now: float
    ) -> None:
        """Write the statuses that have changed.

        Raises:
            RetryableError: NATS does not answer.
        """
        writes: dict[str, tuple[Write, FlowStatus]] = {}
        for name, flow in flows.items():
            status = self._status(flow, rendered.get(name))
            before, at = self._written.get(name, (FlowStatus(), float("-inf")))
            urgent = _urgent(status) != _urgent(before)
            if status != before and (urgent or now - at >= _EVERY):
                key = flow_key(name, "status")
                value = msgspec.json.encode(status)
                writes[name] = Write(key, value, self._bucket.get(key).revision), status
        stored = self._bucket.write([write for write, _ in writes.values()])
        for (name, (_, status)), done in zip(writes.items(), stored, strict=True):
            if done:
                self._written[name] = (status, now)

    def forget(self, flow: str) -> None:
        """A flow is no more, or somebody else's."""
        self._written.pop(flow, None)

    def _status(self, flow: SupervisedFlow, rendered: Rendered | None) -> FlowStatus:
        group = flow.group if isinstance(flow.group, Group) else None
        return FlowStatus(
            state=flow.state,
            owner=self._service,
            observed=flow.observed,
            asked=flow.asked,
            workers=rendered.workers if rendered else 1,
            processes=rendered.processes if rendered else 1,
            pids=group.pids if group else (),
            restarts=flow.restarts,
            started=group.run.started if group else 0.0,
            last_error=flow.last_error,
            conditions=self._conditions(flow.name, flow.state, rendered),
        )


def _urgent(status: FlowStatus) -> tuple[State, tuple[int, ...], int]:
    """What somebody may wait for."""
    return status.state, status.pids, status.asked
