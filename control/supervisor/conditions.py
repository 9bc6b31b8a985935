"""What holds of a flow, as its own metrics tell.

Reachable     the source's or the target's server answers
SlotActive    (PostgreSQL sources) the flow reads from its slot
LogKept       (sources whose servers keep a log) what the source still needs of it is in no danger
Capturing     (captures) the source's log is being read
Publishing    (captures) the stream takes what was read
Delivering    (deliveries) every share is being read, and the target takes it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from control.supervisor.records import Condition, Truth

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.contracts.source import LogHealth
    from control.metrics.scraping import Samples

# What only their servers can tell.
_OF_SERVERS = ("Reachable", "LogKept")
_ENDANGERED = "waxtap_source_log_endangered"


class Finding(NamedTuple):
    """A condition without its time."""

    type: str
    status: Truth
    reason: str
    message: str


def types_of(flow: str, connector: str) -> list[str]:
    """The conditions that a flow has.

    Args:
        flow: Its name.
        connector: The type of its source or sink.
    """
    if flow.startswith("deliver/"):
        return ["Reachable", "Delivering"]
    slot = ["SlotActive"] if connector == "postgres" else []
    log = ["LogKept"] if keeps_log(connector) else []
    return ["Reachable", *slot, *log, "Capturing", "Publishing"]


def keeps_log(connector: str) -> bool:
    """Whether sources of a type have a log on their server that they can lose."""
    return connector == "postgres"


def not_running(
    flow: str, connector: str, reason: str, message: str, health: LogHealth | None = None
) -> list[Finding]:
    """What holds of a flow that does not run: it does nothing, and asks its server nothing.

    Args:
        flow: Its name.
        connector: The type of its source or sink.
        reason: Why it does not run, in one word.
        message: The same in some.
        health: What the service itself has seen of the log on the source's server.
    """
    return [
        _log_kept(health.endangered, health.message)
        if kind == "LogKept" and health is not None
        else Finding(kind, Truth.UNKNOWN if kind in _OF_SERVERS else Truth.FALSE, reason, message)
        for kind in types_of(flow, connector)
    ]


def not_answering(flow: str, connector: str) -> list[Finding]:
    """What holds of a flow whose processes do not tell."""
    message = "its processes do not serve metrics (yet)"
    return [
        Finding(kind, Truth.UNKNOWN, "NoMetrics", message) for kind in types_of(flow, connector)
    ]


def found(flow: str, connector: str, samples: Samples, trouble: str) -> list[Finding]:
    """What holds of a flow that runs.

    Args:
        flow: Its name.
        connector: The type of its source or sink.
        samples: What its processes count.
        trouble: The last warning of its log, for the message of what does not hold.
    """
    if flow.startswith("deliver/"):
        return _delivery(samples, trouble)
    return [one for one in _capture(samples, trouble) if one.type in types_of(flow, connector)]


def _capture(samples: Samples, trouble: str) -> list[Finding]:
    away = samples.any_set("waxtap_source_in_trouble")
    opened = samples.all_set("waxtap_source_open")
    reading = opened and not away
    stuck = samples.any_set("waxtap_stream_in_trouble")
    why = ("Reconnecting" if away else "NotOpened", trouble)
    if stuck:
        publishing = _no("StreamInTrouble", trouble)
    else:
        publishing = _yes("Stored") if opened else _no(*why)
    return [
        Finding("Reachable", *(_yes("Connected") if reading else _no(*why))),
        Finding("SlotActive", *(_yes("Streaming") if reading else _no(*why))),
        _log_kept(samples.any_set(_ENDANGERED), trouble)
        if samples.of(_ENDANGERED)
        else Finding("LogKept", Truth.UNKNOWN, "NotSeen", "the server was not asked yet"),
        Finding("Capturing", *(_yes("Reading") if reading else _no(*why))),
        Finding("Publishing", *publishing),
    ]


def _delivery(samples: Samples, trouble: str) -> list[Finding]:
    away = samples.any_set("waxtap_sink_in_trouble")
    opened = samples.all_set("waxtap_delivery_open")
    if away:
        reachable = delivering = _no("TargetInTrouble", trouble)
    elif opened:
        reachable, delivering = _yes("Connected"), _yes("Reading")
    else:
        # A stream that is still to come is no fault of the target.
        reachable = (Truth.UNKNOWN, "NotOpened", trouble)
        delivering = _no("NotOpened", trouble or "it waits for a stream, or for its target")
    return [Finding("Reachable", *reachable), Finding("Delivering", *delivering)]


def _log_kept(endangered: bool, message: str) -> Finding:
    return Finding("LogKept", *(_no("Endangered", message) if endangered else _yes("Kept")))


def _yes(reason: str) -> tuple[Truth, str, str]:
    return Truth.TRUE, reason, ""


def _no(reason: str, message: str) -> tuple[Truth, str, str]:
    return Truth.FALSE, reason, message


def since(
    findings: Iterable[Finding], before: Iterable[Condition], now: float
) -> tuple[Condition, ...]:
    """Conditions, each since its status last changed.

    Args:
        findings: What holds.
        before: What held.
        now: Seconds since 1970.
    """
    known = {one.type: one for one in before}
    conditions = []
    for finding in findings:
        old = known.get(finding.type)
        same = old is not None and old.status is finding.status
        conditions.append(Condition(*finding, since=old.since if old and same else now))
    return tuple(conditions)
