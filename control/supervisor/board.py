"""What is known of all flows, whichever service looks after them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import msgspec

from connectors.errors import RetryableError
from control.supervisor import bucket as kv
from control.supervisor.records import (
    Desired,
    FlowStatus,
    Lease,
    Service,
    State,
    flow_key,
    flow_of,
    is_service,
    service_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from control.supervisor.bucket import Entry, FlowBucket

T = TypeVar("T", bound=msgspec.Struct)

_TRIES = 20


class Board:
    """Reads and writes the records of flows. Usable from any thread.

    Args:
        bucket: Where they lie; somebody else keeps its mirror up to date.
    """

    def __init__(self, bucket: FlowBucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._read: dict[str, tuple[Entry, msgspec.Struct | None]] = {}

    def flows(self) -> set[str]:
        """Every flow of which something is stored."""
        return {
            flow_of(key)[0]
            for key, entry in self._bucket.entries().items()
            if entry.value and not is_service(key)
        }

    def services(self) -> dict[str, tuple[Service, int]]:
        """Every control service by its id, and the revision of its last sign of life."""
        found = {}
        for key, entry in self._bucket.entries().items():
            if is_service(key) and (service := self._get(key, Service)):
                found[service.id] = (service, entry.revision)
        return found

    def service(self, name: str) -> Service | None:
        """One control service."""
        return self._get(service_key(name), Service)

    def desired(self, flow: str) -> Desired:
        """What is asked of a flow."""
        return self.asked(flow)[0]

    def asked(self, flow: str) -> tuple[Desired, int]:
        """What is asked of a flow, and the revision of that; 0: nothing was ever asked."""
        key = flow_key(flow, "desired")
        entry = self._bucket.get(key)
        return self._value(key, entry, Desired) or Desired(), entry.revision

    def lease(self, flow: str) -> Lease | None:
        """Who looks after a flow, or did last."""
        return self._get(flow_key(flow, "lease"), Lease)

    def status(self, flow: str) -> FlowStatus:
        """How a flow is, as the service says that looks after it."""
        status = self._get(flow_key(flow, "status"), FlowStatus) or FlowStatus()
        lease = self.lease(flow)
        if lease is None or lease.holder != status.owner:
            # Who wrote that looks after it no longer.
            return msgspec.structs.replace(FlowStatus(), last_error=status.last_error)
        return status

    def paused(self, flow: str) -> bool:
        """Whether a flow has been paused and no process of it runs any more.

        Only who looks after it can tell, and only once it knows of the latest wish: a status of
        before may say that nothing runs where something is about to be started.

        Raises:
            RetryableError: NATS does not answer.
        """
        self._bucket.latest([flow_key(flow, what) for what in ("desired", "lease", "status")])
        (desired, revision), status = self.asked(flow), self.status(flow)
        return desired.paused and status.state is State.PAUSED and status.asked == revision

    def gone(self, flow: str, revision: int) -> bool:
        """Whether no process runs of a flow that a revision of the configuration has deleted.

        Nor will one be started: whoever looks after flows goes by that revision or a later one.
        """
        living = [service for service, _ in self.services().values() if not service.dead]
        informed = living and all(service.seen >= revision for service in living)
        return bool(informed) and self.lease(flow) is None

    def ask(self, flow: str, change: Callable[[Desired], Desired]) -> Desired:
        """Change what is asked of a flow; returns what is asked now.

        Raises:
            RetryableError: NATS does not answer, or others change it all the time.
        """
        key = flow_key(flow, "desired")
        for _ in range(_TRIES):
            # Somebody may have asked for the contrary a moment ago, of another service.
            self._bucket.latest([key])
            entry = self._bucket.get(key)
            known = kv.read(key, entry, Desired) or Desired()
            wanted = change(known)
            if wanted == known or self._bucket.put(key, wanted, entry.revision):
                return wanted
        raise RetryableError("control.contended", "others change this flow, too", where=flow)

    def _get(self, key: str, kind: type[T]) -> T | None:
        return self._value(key, self._bucket.get(key), kind)

    def _value(self, key: str, entry: Entry, kind: type[T]) -> T | None:
        with self._lock:
            known = self._read.get(key)
        if known is not None and known[0] == entry:
            value = known[1]
            return value if isinstance(value, kind) else None
        found = kv.read(key, entry, kind)
        with self._lock:
            self._read[key] = (entry, found)
        return found
