"""What a flow counts, for Prometheus; names and labels are a promise to those who draw them.

A flow's process serves them where `WAXTAP_METRICS` says. Nothing is counted for each change, only
for what travels together.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SHARE = ("sink", "stream")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_CHANGES = (1, 10, 50, 100, 250, 500, 1000, 5000)

source_open = Gauge("waxtap_source_open", "1 once the source's log is being read", ("source",))
source_in_trouble = Gauge(
    "waxtap_source_in_trouble", "1 while the source's server is away and waited for", ("source",)
)
source_retries = Counter(
    "waxtap_source_retries", "Attempts to reach the source's server that failed", ("source",)
)
source_log_retained = Gauge(
    "waxtap_source_log_retained_bytes", "Log that the source's server keeps for it", ("source",)
)
source_log_limit = Gauge(
    "waxtap_source_log_limit_bytes",
    "How much log the source's server may keep before it, or the source, lets go; 0: any amount",
    ("source",),
)
source_log_endangered = Gauge(
    "waxtap_source_log_endangered",
    "1 while log that the source needs may soon be lost, or is, or fills the server's disk",
    ("source",),
)
snapshot_running = Gauge(
    "waxtap_snapshot_running", "1 while the source's tables are read", ("source",)
)
snapshot_rows = Gauge(
    "waxtap_snapshot_rows", "Rows of the source's snapshot or backfill so far", ("source",)
)
snapshot_estimated = Gauge(
    "waxtap_snapshot_estimated_rows",
    "Rows that the snapshot or backfill will have, by the server's statistics",
    ("source",),
)
snapshot_seconds_left = Gauge(
    "waxtap_snapshot_seconds_left",
    "Until the snapshot or backfill is done, by its speed so far; 0: that cannot be told",
    ("source",),
)
captured_changes = Counter(
    "waxtap_captured_changes", "Changes that were read from the source's log", ("source",)
)
published_messages = Counter(
    "waxtap_published_messages", "Messages that were handed to the source's stream", ("source",)
)
capture_batches = Histogram(
    "waxtap_capture_batch_changes",
    "Messages that were handed to the stream at once",
    ("source",),
    buckets=_CHANGES,
)
capture_latency = Histogram(
    "waxtap_capture_latency_seconds",
    "From the commit at the source to the stream, of the last change of each batch",
    ("source",),
    buckets=_SECONDS,
)
stream_in_trouble = Gauge(
    "waxtap_stream_in_trouble", "1 while a stream does not take messages", ("stream",)
)
stream_retries = Counter(
    "waxtap_stream_retries", "Attempts to write to a stream that failed", ("stream",)
)
share_open = Gauge("waxtap_delivery_open", "1 once a sink's share is being read", _SHARE)
delivered_changes = Counter(
    "waxtap_delivered_changes", "Changes that the sink has taken, filtered ones included", _SHARE
)
delivery_batches = Histogram(
    "waxtap_delivery_batch_changes",
    "Changes that were given to the sink at once",
    _SHARE,
    buckets=_CHANGES,
)
delivery_latency = Histogram(
    "waxtap_delivery_latency_seconds",
    "From the commit at the source to the sink, of the last change of each batch",
    _SHARE,
    buckets=_SECONDS,
)
sink_retries = Counter("waxtap_sink_retries", "Attempts to write to a target that failed", _SHARE)

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
