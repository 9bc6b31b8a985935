"""What a flow counts, for Prometheus; names and labels are a promise to those who draw them.

Bytewax serves them at `/metrics` of its own port where that is switched on.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

_SHARE = ("sink", "stream")

sink_in_trouble = Gauge(
    "waxtap_sink_in_trouble", "1 while a sink's target is away or busy and waited for", _SHARE
)
dead_letters = Counter(
    "waxtap_dead_letters", "Changes that a sink has put aside", (*_SHARE, "state")
)
step_errors = Counter(
    "waxtap_step_errors",
    "Changes on which a filter or a transform could not work",
    ("pipeline", "code"),
)
requests = Counter(
    "waxtap_requests", "Requests that a webhook source has answered", ("source", "status")
)
