"""What lies in `CDC_FLOWS`, and under which keys.

    services.<id>               a control service that is there, or was: `Service`
    <kind>.<name>.lease         which service looks after the flow: `Lease`
    <kind>.<name>.desired       what its owner wants of it beside its settings: `Desired`
    <kind>.<name>.status        how it is: `FlowStatus`

One heartbeat a service holds all its leases: a lease stands as long as its holder is alive.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

_SERVICES = "services."


class Service(msgspec.Struct, frozen=True):
    """A control service.

    Attributes:
        id: Kept in its state folder, so that it is the same after a restart.
        host: Of the machine (and its boot): processes of a service on the same host can be ended.
        folder: Its state folder.
        beat: Grows with each sign of life.
        seen: The revision of the configuration that it goes by: it starts nothing that only an
            earlier one wants.
        dead: Another service has seen no sign of life, or it has ended itself.
    """

    id: str
    host: str
    folder: str
    beat: int
    seen: int = 0
    dead: bool = False


class Lease(msgspec.Struct, frozen=True):
    """The right and the duty to run a flow."""

    holder: str


class Desired(msgspec.Struct, frozen=True):
    """What is asked of a flow.

    Attributes:
        paused: It is not to run.
        restarts: Grows by one with each restart that is asked for.
        request: The id of the request that asked for the last restart, if it had one.
    """

    paused: bool = False
    restarts: int = 0
    request: str = ""


class State(StrEnum):
    """Of a flow."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    PAUSED = "paused"
    BACKING_OFF = "backing_off"
    CRASH_LOOP = "crash_loop"
    REFUSED = "refused"
    DONE = "done"


class Truth(StrEnum):
    """Of a condition."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class Condition(msgspec.Struct, frozen=True):
    """One thing that holds of a flow, or does not.

    Attributes:
        type: `Reachable`, `SlotActive`, `Capturing`, `Publishing`, `Delivering`.
        status: Whether it holds.
        reason: One word in CamelCase, for programs.
        message: For people.
        since: When `status` changed last (seconds since 1970).
    """

    type: str
    status: Truth
    reason: str
    message: str
    since: float


class FlowStatus(msgspec.Struct, frozen=True):
    """How a flow is, as its owner sees it.

    Attributes:
        state: Of its processes.
        owner: The id of the service that looks after it.
        observed: The revision of the configuration that it follows.
        asked: The revision of what is asked of it (`Desired`) that it follows.
        workers: Worker threads of each process.
        processes: Of its cluster.
        pids: That run now.
        restarts: How often it was started again after it had ended unasked, since its owner began.
        started: When its processes were started (seconds since 1970); 0: none run.
        last_error: The last words of its last run that ended badly.
        conditions: What holds of it.
    """

    state: State = State.PENDING
    owner: str = ""
    observed: int = 0
    asked: int = 0
    workers: int = 1
    processes: int = 1
    pids: tuple[int, ...] = ()
    restarts: int = 0
    started: float = 0.0
    last_error: str = ""
    conditions: tuple[Condition, ...] = ()


def service_key(service: str) -> str:
    """Where a service's sign of life is."""
    return f"{_SERVICES}{service}"


def flow_key(flow: str, what: str) -> str:
    """Where `lease`, `desired` or `status` of a flow is."""
    return f"{flow.replace('/', '.')}.{what}"


def is_service(key: str) -> bool:
    """Whether a service's sign of life lies there."""
    return key.startswith(_SERVICES)


def flow_of(key: str) -> tuple[str, str]:
    """The flow that a key belongs to, and what lies there."""
    kind, name, what = key.split(".")
    return f"{kind}/{name}", what
