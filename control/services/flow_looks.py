"""Looks at all flows, on behalf of everybody who watches them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from control.services.flow_messages import flow_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from control.pb.cdc.v1 import cdc_pb2 as pb
    from control.supervisor.records import FlowStatus
    from control.supervisor.rendering import Rendered

    Known = tuple[FlowStatus, Rendered | None, int]

# A look serves everybody who asks within that time.
_GOOD_FOR = 0.1


class FlowLooks:
    """The messages of all flows; that of a flow is another one only if something has changed.

    Args:
        names: The flows that there are.
        known: What is known of one: its status, as the configuration wants it, and its revision.
    """

    def __init__(self, names: Callable[[], set[str]], known: Callable[[str], Known]) -> None:
        self._names, self._known = names, known
        self._looked = float("-inf")
        self._told: dict[str, tuple[Known, pb.Flow]] = {}
        self._seen: Mapping[str, pb.Flow] = {}

    def seen(self) -> Mapping[str, pb.Flow]:
        """Every flow by its name, in order; the same mapping if nothing has changed.

        Raises:
            RetryableError: NATS has not answered yet.
        """
        if time.monotonic() - self._looked >= _GOOD_FOR:
            told = {name: self._look(name) for name in sorted(self._names())}
            if told != self._told:
                self._told = told
                self._seen = {name: flow for name, (_, flow) in told.items()}
            self._looked = time.monotonic()
        return self._seen

    def _look(self, name: str) -> tuple[Known, pb.Flow]:
        known = self._known(name)
        before = self._told.get(name)
        if before is not None and before[0] == known:
            return before
        message = flow_message(name, *known)
        return known, before[1] if before is not None and before[1] == message else message
