"""How much each benchmark does: the full table and the quick one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of one invocation.

    Attributes:
        name: `full` or `quick`.
        runs: Repetitions of each benchmark; the table shows their median.
        changes: Rows of the backlog that is captured, received and delivered.
        transaction_rows: Rows of each of the backlog's transactions.
        noop_changes: How much of the backlog Debezium reads with the handler that does nothing.
        publish_changes: How much of the backlog Debezium publishes.
        binlog_changes: Rows of the backlog in the log of MySQL and of MariaDB.
        binlog_transactions: Single-row transactions in another one there.
        library_changes: How much of either `mysql-replication` reads.
        documents: How many changes of the backlog go into Elasticsearch.
        webhook_requests: How many changes of the backlog go out one by one.
        webhook_changes: How many go out in lists.
        snapshot_rows: Rows of the table that a snapshot is taken of.
        rest_records: Records of the list that is polled.
        ingest_requests: How many requests a webhook source is sent.
        explorer_messages: Messages of the topic that is looked into.
        rate: Changes per second of the paced writer.
        warmup_seconds: How long the paced writer runs before a latency counts.
        window_seconds: How long one latency run lasts.
        timeout_seconds: When a single run is given up.
    """

    name: str
    runs: int
    changes: int
    transaction_rows: int
    noop_changes: int
    publish_changes: int
    binlog_changes: int
    binlog_transactions: int
    library_changes: int
    documents: int
    webhook_requests: int
    webhook_changes: int
    snapshot_rows: int
    rest_records: int
    ingest_requests: int
    explorer_messages: int
    rate: int
    warmup_seconds: float
    window_seconds: float
    timeout_seconds: float


FULL = Settings(
    name="full",
    runs=3,
    changes=1_000_000,
    transaction_rows=1000,
    noop_changes=1_000_000,
    publish_changes=200_000,
    binlog_changes=500_000,
    binlog_transactions=200_000,
    library_changes=100_000,
    documents=200_000,
    webhook_requests=100_000,
    webhook_changes=500_000,
    snapshot_rows=1_000_000,
    rest_records=100_000,
    ingest_requests=60_000,
    explorer_messages=1_000_000,
    rate=1000,
    warmup_seconds=5,
    window_seconds=60,
    timeout_seconds=900,
)

QUICK = Settings(
    name="quick",
    runs=3,
    changes=100_000,
    transaction_rows=1000,
    noop_changes=100_000,
    publish_changes=60_000,
    binlog_changes=60_000,
    binlog_transactions=10_000,
    library_changes=10_000,
    documents=60_000,
    webhook_requests=20_000,
    webhook_changes=80_000,
    snapshot_rows=200_000,
    rest_records=20_000,
    ingest_requests=15_000,
    explorer_messages=100_000,
    rate=1000,
    warmup_seconds=2,
    window_seconds=5,
    timeout_seconds=120,
)
