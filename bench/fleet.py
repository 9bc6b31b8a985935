"""The servers that everything is measured against, and the folder for what is left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from control.servers.nats import NatsServer
from control.servers.postgres import PostgresServer

# The commit timestamps are what the latency to the target is read from.
_TARGET_SETTINGS = {"track_commit_timestamp": "on", "track_wal_io_timing": "on"}


@dataclass(frozen=True, slots=True)
class Fleet:
    """A source, a target, and a folder for logs, configurations and NATS stores."""

    source: PostgresServer
    target: PostgresServer
    folder: Path

    def nats(self, name: str) -> NatsServer:
        """A NATS server that is not started, with a store of its own (`sync_interval: always`)."""
        return NatsServer(self.folder / f"nats-{name}", sync_interval="always")


@contextmanager
def fleet() -> Iterator[Fleet]:
    """Start both PostgreSQL servers; stop them and remove every trace in the end."""
    with (
        tempfile.TemporaryDirectory(prefix="waxtap-bench-") as folder,
        PostgresServer() as source,
        PostgresServer(_TARGET_SETTINGS) as target,
    ):
        yield Fleet(source, target, Path(folder))
