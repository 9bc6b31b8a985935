"""Which control services are there, and which of them looks after which flow.

Each service writes a sign of life every second. Clocks are not compared: one whose sign has
not changed for some seconds, as another one has seen with its own eyes, is declared dead by that
one, with a write that fails if the sign has changed after all. From then on its leases are free. A
service that finds itself declared dead ends its flows at once; it may join anew.

A lease is taken by a write that names the revision it replaces, and it counts as ours only if we
wrote it since we joined: so a service that was thought dead cannot go on with a lease that somebody
is about to take.

A sign of life says which revision of the configuration its service goes by. So it can be told that
nobody will take the lease of a flow any more that a revision has deleted: who has not joined yet
reads the configuration once it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from control.supervisor.bucket import Write
from control.supervisor.records import Lease, Service, flow_key, service_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from control.supervisor.board import Board
    from control.supervisor.bucket import FlowBucket

log = structlog.get_logger()

BEAT_EVERY = 1.0
# Without a sign of life for so long, a service is dead for the others.
SILENCE = 5.0
# Between two looks no more than this counts: what we did not see may have happened.
_LONGEST_LOOK = 1.5


class Membership:
    """This service among the others. Used by one thread.

    Args:
        bucket: What they share.
        board: Its reader.
        me: This service; its `beat` does not matter.

    Attributes:
        joined: How often it has joined the others.
    """

    def __init__(self, bucket: FlowBucket, board: Board, me: Service) -> None:
        self._bucket, self._board, self._me = bucket, board, me
        self._key = service_key(me.id)
        self.joined = 0
        self._revision: int | None = None
        self._beaten = float("-inf")
        self._said = 0
        self._looked: float | None = None
        self._silent: dict[str, tuple[int, float]] = {}
        self._held: dict[str, int] = {}

    @property
    def held(self) -> set[str]:
        """The flows whose leases are ours, as far as we know."""
        return set(self._held)

    def alive(self, now: float) -> bool:
        """Whether nobody can have declared us dead yet."""
        return self._revision is not None and now - self._beaten < SILENCE

    def beat(self, now: float, seen: int = 0) -> bool:
        """Give a sign of life if it is time to; False: we had been declared dead.

        Args:
            now: Seconds of a clock that never goes back.
            seen: The revision of the configuration that we go by from now on.

        Raises:
            RetryableError: NATS does not answer.
        """
        joining = self._revision is None
        entry = self._bucket.get(self._key)
        known = self._board.service(self._me.id)
        if not joining and (known is None or known.dead):
            self._revision = None
            self._held.clear()
            return False
        if not joining and now - self._beaten < BEAT_EVERY and seen == self._said:
            return True
        # An earlier one of our own may have been stored although its answer was lost.
        beat = known.beat + 1 if known else 1
        sign = msgspec.structs.replace(self._me, beat=beat, seen=0 if joining else seen)
        if self._bucket.put(self._key, sign, entry.revision):
            self._revision, self._beaten = self._bucket.get(self._key).revision, now
            self._said = sign.seen
            self.joined += joining
        else:
            self._bucket.refresh()
        return True

    def look(self, now: float) -> None:
        """See who gives signs of life; declare dead who does not. To be called often.

        Raises:
            RetryableError: NATS does not answer.
        """
        passed = min(now - self._looked, _LONGEST_LOOK) if self._looked is not None else 0.0
        self._looked = now
        services = self._board.services()
        services.pop(self._me.id, None)
        for name, (service, revision) in services.items():
            before, silent = self._silent.get(name, (0, 0.0))
            silent = silent + passed if before == revision else 0.0
            self._silent[name] = (revision, silent)
            if silent >= SILENCE and not service.dead:
                dead = msgspec.structs.replace(service, dead=True)
                if self._bucket.put(service_key(name), dead, revision):
                    log.warning("a control service is dead", service=name, silent_s=round(silent))

    def tidy(self) -> None:
        """Forget dead services that hold no lease any more.

        Raises:
            RetryableError: NATS does not answer.
        """
        dead = {name: at for name, (service, at) in self._board.services().items() if service.dead}
        if dead:
            leases = (self._board.lease(flow) for flow in self._board.flows())
            holders = {lease.holder for lease in leases if lease}
            gone = dead.keys() - holders - {self._me.id}
            self._bucket.write([Write(service_key(name), b"", dead[name]) for name in gone])

    def take(self, flows: Iterable[str]) -> dict[str, Service | None]:
        """Take the leases of those flows that nobody living holds.

        Returns:
            Those that were taken, and which service had them before us, if one had.

        Raises:
            RetryableError: NATS does not answer.
        """
        if self._revision is None:
            return {}
        living = self._living()
        free: dict[str, Service | None] = {}
        for flow in flows:
            lease = self._board.lease(flow)
            if flow not in self._held and (lease is None or lease.holder not in living):
                free[flow] = self._board.service(lease.holder) if lease else None
        keys = {flow: flow_key(flow, "lease") for flow in free}
        value = msgspec.json.encode(Lease(self._me.id))
        writes = [Write(key, value, self._bucket.get(key).revision) for key in keys.values()]
        taken: dict[str, Service | None] = {}
        for (flow, key), stored in zip(keys.items(), self._bucket.write(writes), strict=True):
            if stored:
                self._held[flow] = self._bucket.get(key).revision
                taken[flow] = free[flow]
        return taken

    def elsewhere(self, flow: str) -> bool:
        """Whether another service looks after a flow, one that is not known to be dead."""
        lease = self._board.lease(flow)
        return lease is not None and lease.holder in self._living()

    def _living(self) -> set[str]:
        """The other services that are not known to be dead."""
        services = self._board.services().items()
        return {name for name, (service, _) in services if not service.dead} - {self._me.id}

    def lost(self) -> list[str]:
        """Forget leases that somebody else has taken; returns the flows."""
        gone = [
            flow
            for flow, revision in self._held.items()
            if self._bucket.get(flow_key(flow, "lease")).revision != revision
        ]
        for flow in gone:
            del self._held[flow]
        return gone

    def drop(self, flows: Iterable[str]) -> None:
        """Give leases back, with all that is stored of flows that are no more.

        What somebody else has taken meanwhile is theirs, and stays.

        Raises:
            RetryableError: NATS does not answer.
        """
        held = {flow: self._held[flow] for flow in flows if flow in self._held}
        leases = [Write(flow_key(flow, "lease"), b"", at) for flow, at in held.items()]
        ours = zip(held, self._bucket.write(leases), strict=True)
        gone = [flow for flow, given_back in ours if given_back]
        keys = [flow_key(flow, what) for flow in gone for what in ("status", "desired")]
        known = {key: self._bucket.get(key) for key in keys}
        self._bucket.write(
            [Write(key, b"", entry.revision) for key, entry in known.items() if entry.value]
        )
        for flow in held:
            self._held.pop(flow, None)

    def leave(self) -> None:
        """Give back every lease and say that we are gone.

        Raises:
            RetryableError: NATS does not answer.
        """
        keys = {flow: flow_key(flow, "lease") for flow in self._held}
        self._bucket.write([Write(key, b"", self._held[flow]) for flow, key in keys.items()])
        self._held.clear()
        if self._revision is not None:
            self._bucket.put(
                self._key, msgspec.structs.replace(self._me, dead=True), self._revision
            )
            self._revision = None
