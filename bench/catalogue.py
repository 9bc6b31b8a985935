"""Every measure of the table: its key, its unit, and what it is meant to reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Target:
    """What a measure is meant to reach.

    Attributes:
        sense: `>=` or `<=`.
        value: The bound, or the factor when `times` is given.
        times: The key of another measure that `value` multiplies; empty for an absolute bound.
    """

    sense: Literal[">=", "<="]
    value: float
    times: str = ""

    def bound(self, figures: Mapping[str, float | None]) -> float | None:
        """The number to compare with; None while the other measure is not known."""
        if not self.times:
            return self.value
        other = figures.get(self.times)
        return None if other is None else self.value * other

    def met(self, figure: float | None, figures: Mapping[str, float | None]) -> bool | None:
        """Whether `figure` reaches the target; None where that cannot be said."""
        bound = self.bound(figures)
        if figure is None or bound is None:
            return None
        return figure >= bound if self.sense == ">=" else figure <= bound


@dataclass(frozen=True, slots=True)
class Measure:
    """A line of the table.

    Attributes:
        key: Its name in the results.
        label: What a reader is told.
        unit: Of the figure.
        digits: Behind the decimal point.
        published: Whether it is a key of `latest.json`.
        targets: What it is meant to reach.
    """

    key: str
    label: str
    unit: str
    digits: int = 0
    published: bool = True
    targets: tuple[Target, ...] = ()


def _of_binlog(kind: str, name: str) -> tuple[Measure, ...]:
    """The lines of MySQL or MariaDB as the source."""
    return (
        Measure(
            f"{kind}_rows_per_s",
            f"{name}: backlog to acknowledged in JetStream",
            "changes/s",
            targets=(Target(">=", 25_000),),
        ),
        Measure(f"{kind}_rows_cpu_us", "– CPU of our process, a change", "µs", 1),
        Measure(
            f"{kind}_rows_per_cpu_s",
            "– changes a CPU second",
            "changes",
            targets=(Target(">=", 3, "mysql_debezium_per_cpu_s"),),
        ),
        Measure(f"rss_{kind}_rows_mb", "– peak memory", "MB", targets=(Target("<=", 200),)),
        Measure(
            f"{kind}_single_per_s",
            f"{name}: single-row transactions to JetStream",
            "changes/s",
            targets=(Target(">=", 15_000),),
        ),
        Measure(f"{kind}_single_cpu_us", "– CPU of our process, a transaction", "µs", 1),
        Measure(f"{kind}_single_per_cpu_s", "– transactions a CPU second", "changes", 0, False),
        Measure(f"rss_{kind}_single_mb", "– peak memory", "MB", published=False),
        Measure(
            f"{kind}_snapshot_decoded_per_s",
            f"{name}: snapshot, table to changes",
            "rows/s",
            targets=(Target(">=", 100_000),),
        ),
        Measure(f"{kind}_snapshot_decoded_cpu_us", "– CPU of our process, a row", "µs", 1),
        Measure(
            f"{kind}_snapshot_per_s",
            f"{name}: snapshot, to acknowledged in JetStream",
            "rows/s",
            targets=(Target(">=", 25_000),),
        ),
        Measure(f"{kind}_snapshot_cpu_us", "– CPU of our process, a row", "µs", 1),
        Measure(f"rss_{kind}_snapshot_mb", "– peak memory", "MB", targets=(Target("<=", 250),)),
        Measure(
            f"{kind}_snapshot_stream_p99_ms",
            "– commit to JetStream meanwhile, p99",
            "ms",
            1,
            targets=(Target("<=", 1000),),
        ),
        Measure(f"{kind}_library_rows_per_s", f"{name}: mysql-replication alone", "changes/s"),
        Measure(f"{kind}_library_rows_cpu_us", "– CPU, a change", "µs", 1, published=False),
        Measure(f"{kind}_library_single_per_s", "– single-row transactions", "changes/s"),
        Measure(f"{kind}_library_single_cpu_us", "– CPU, a transaction", "µs", 1, published=False),
    )


MEASURES: tuple[Measure, ...] = (
    Measure(
        "capture_per_s",
        "capture: backlog to acknowledged in JetStream",
        "changes/s",
        targets=(Target(">=", 25_000), Target(">=", 8, "debezium_publish_per_s")),
    ),
    Measure(
        "capture_cpu_us",
        "capture: CPU of our process, a change",
        "µs",
        digits=1,
        targets=(Target("<=", 20),),
    ),
    Measure(
        "capture_per_cpu_s",
        "capture: changes a CPU second",
        "changes",
        targets=(
            Target(">=", 5, "debezium_publish_per_cpu_s"),
            Target(">=", 3, "debezium_noop_per_cpu_s"),
        ),
    ),
    Measure("capture_start_cpu_s", "capture: CPU until the first change", "s", 2, published=False),
    Measure("rss_capture_mb", "capture: peak memory", "MB", targets=(Target("<=", 200),)),
    Measure(
        "snapshot_decoded_per_s",
        "snapshot: table to changes",
        "rows/s",
        targets=(Target(">=", 100_000),),
    ),
    Measure(
        "snapshot_per_s",
        "snapshot: table to acknowledged in JetStream",
        "rows/s",
        targets=(Target(">=", 25_000),),
    ),
    Measure("snapshot_cpu_us", "– CPU of our process, a row", "µs", 1),
    Measure("rss_snapshot_mb", "– peak memory", "MB", targets=(Target("<=", 250),)),
    Measure("snapshot_stream_p50_ms", "– commit to JetStream meanwhile, p50", "ms", 1, False),
    Measure(
        "snapshot_stream_p99_ms",
        "– commit to JetStream meanwhile, p99",
        "ms",
        1,
        targets=(Target("<=", 1000),),
    ),
    Measure("pipeline_none_us", "pipelines: none, default routing, a change", "µs", 2),
    Measure(
        "pipeline_filter_us",
        "pipelines: a CEL filter over a column, a change",
        "µs",
        digits=1,
        targets=(Target("<=", 15),),
    ),
    Measure(
        "pipeline_mask_rename_us",
        "pipelines: mask (sha256) and rename, a change",
        "µs",
        digits=1,
        targets=(Target("<=", 10),),
    ),
    Measure("pipeline_python_us", "pipelines: a Python function, a change", "µs", 1),
    Measure("pipeline_dedupe_us", "pipelines: dedupe by two columns, a change", "µs", 1),
    Measure("recvlogical_per_s", "pg_recvlogical to /dev/null", "changes/s"),
    Measure("rss_recvlogical_mb", "pg_recvlogical: peak memory", "MB", published=False),
    Measure("debezium_noop_per_s", "Debezium doing nothing", "changes/s", published=False),
    Measure("debezium_noop_per_cpu_s", "Debezium doing nothing: changes a CPU second", "changes"),
    Measure("rss_debezium_noop_mb", "Debezium doing nothing: peak memory", "MB", published=False),
    Measure("debezium_publish_per_s", "Debezium publishing to JetStream", "changes/s"),
    Measure("debezium_publish_per_cpu_s", "Debezium publishing: changes a CPU second", "changes"),
    Measure("rss_debezium_publish_mb", "Debezium publishing: peak memory", "MB", published=False),
    Measure(
        "deliver_pg_per_s",
        "deliver: JetStream to committed in PostgreSQL",
        "changes/s",
        targets=(Target(">=", 25_000),),
    ),
    Measure("deliver_cpu_us", "deliver: CPU of our process, a change", "µs", 1, published=False),
    Measure("rss_deliver_mb", "deliver: peak memory", "MB", targets=(Target("<=", 200),)),
    Measure(
        "deliver_elasticsearch_per_s",
        "deliver: JetStream to Elasticsearch",
        "changes/s",
        targets=(Target(">=", 8_000),),
    ),
    Measure(
        "deliver_elasticsearch_cpu_us", "– CPU of our process, a change", "µs", 1, published=False
    ),
    Measure("rss_elasticsearch_mb", "– peak memory", "MB", published=False),
    Measure("elasticsearch_bulk_per_s", "Elasticsearch's bulk API without us", "documents/s"),
    Measure(
        "webhook_requests_per_s",
        "deliver: JetStream to an HTTP endpoint, one change a request",
        "requests/s",
        targets=(Target(">=", 3_000),),
    ),
    Measure("webhook_requests_cpu_us", "– CPU of our process, a request", "µs", 1, published=False),
    Measure("rss_webhook_requests_mb", "– peak memory", "MB", published=False),
    Measure(
        "webhook_changes_per_s",
        "deliver: JetStream to an HTTP endpoint, in lists of 100",
        "changes/s",
        targets=(Target(">=", 20_000),),
    ),
    Measure("webhook_changes_cpu_us", "– CPU of our process, a change", "µs", 1, published=False),
    Measure("rss_webhook_changes_mb", "– peak memory", "MB", published=False),
    Measure(
        "ingest_per_s",
        "webhook source: requests acknowledged by the capture flow",
        "requests/s",
        targets=(Target(">=", 2_000),),
    ),
    Measure("ingest_p50_ms", "– p50", "ms", 1, published=False),
    Measure("ingest_p99_ms", "– p99", "ms", 1),
    Measure("ingest_cpu_us", "– CPU of the flow, a request", "µs", 1),
    Measure("ingest_behind_s", "– last answer to last change in the stream", "s", 2, False),
    Measure("ingest_rss_mb", "– peak memory", "MB", published=False),
    Measure(
        "ingest_beside_per_s",
        "webhook source: requests acknowledged by an endpoint beside the flow",
        "requests/s",
        targets=(Target(">=", 2_000),),
    ),
    Measure("ingest_beside_p50_ms", "– p50", "ms", 1, published=False),
    Measure("ingest_beside_p99_ms", "– p99", "ms", 1),
    Measure("ingest_beside_cpu_us", "– CPU of the endpoint, a request", "µs", 1),
    Measure("ingest_beside_behind_s", "– last answer to last change in the stream", "s", 2, False),
    Measure("ingest_beside_rss_mb", "– peak memory", "MB", published=False),
    *_of_binlog("mysql", "MySQL"),
    Measure("mysql_debezium_per_s", "MySQL: Debezium publishing to JetStream", "changes/s"),
    Measure("mysql_debezium_per_cpu_s", "– changes a CPU second", "changes"),
    *_of_binlog("mariadb", "MariaDB"),
    Measure("mariadb_raw_per_s", "MariaDB: mariadb-binlog --raw", "changes/s"),
    Measure(
        "rest_first_per_s", "REST: a list polled for the first time, to JetStream", "records/s"
    ),
    Measure(
        "rest_compare_per_s",
        "REST: a list polled and compared, nothing has changed",
        "records/s",
        targets=(Target(">=", 20_000),),
    ),
    Measure("rest_compare_cpu_us", "– CPU of our process, a record", "µs", 1),
    Measure("rest_changed_s", "REST: 1 % of the list changes, to JetStream", "s", 2),
    Measure("rss_rest_mb", "REST: peak memory", "MB", targets=(Target("<=", 300),)),
    Measure("latency_rate_per_s", "latency: rate that the writer kept", "changes/s", 0, False),
    Measure("stream_p50_ms", "commit to JetStream, p50", "ms", 1),
    Measure("stream_p95_ms", "commit to JetStream, p95", "ms", 1, published=False),
    Measure("stream_p99_ms", "commit to JetStream, p99", "ms", 1),
    Measure("target_p50_ms", "commit to target, p50", "ms", 1, targets=(Target("<=", 20),)),
    Measure("target_p95_ms", "commit to target, p95", "ms", 1, published=False),
    Measure("target_p99_ms", "commit to target, p99", "ms", 1, targets=(Target("<=", 150),)),
    Measure("rss_latency_capture_mb", "capture at that rate: peak memory", "MB", 0, False),
    Measure("rss_latency_deliver_mb", "deliver at that rate: peak memory", "MB", 0, False),
    Measure("explorer_page_1_ms", "explorer: page 1 of 100", "ms", 1, False, (Target("<=", 200),)),
    Measure(
        "explorer_page_far_ms",
        "explorer: a page in the middle (5,000 of 10,000)",
        "ms",
        1,
        published=False,
        targets=(Target("<=", 200),),
    ),
    Measure(
        "explorer_key_ms",
        "explorer: the changes of a row",
        "ms",
        1,
        published=False,
        targets=(Target("<=", 1000),),
    ),
    Measure(
        "explorer_key_first_ms",
        "– the first question, answered in part",
        "ms",
        published=False,
        targets=(Target("<=", 1000),),
    ),
    Measure("explorer_index_s", "– until its index is built", "s", 1, published=False),
    Measure("rss_explorer_mb", "explorer: peak memory", "MB", published=False),
)

PUBLISHED: tuple[str, ...] = tuple(measure.key for measure in MEASURES if measure.published)
