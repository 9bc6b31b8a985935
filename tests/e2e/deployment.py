"""Servers, databases and the configuration of one end-to-end run."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
import yaml
from psycopg import sql

from control.servers.binlog_server import BinlogServer
from control.servers.mysql import MysqlServer
from control.servers.postgres import PostgresServer
from tests.e2e import shop
from tests.servers.binlog import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from control.servers.nats import NatsServer


@dataclass
class Deployment:
    """One source `shop`, one sink `warehouse`, and the servers between them.

    Attributes:
        source: Where the database `shop` is.
        target: Where the database `warehouse` is; may be the same server.
        nats: JetStream.
        folder: For the configuration, the recovery folders and the logs.
        tables: Patterns that are captured.
        more: Merged into the configuration's sections.
        accepted: Losses that the owner accepts, by section and name.
        sink: Further settings of the sink.
        reading: Further settings of the source.
    """

    source: PostgresServer | BinlogServer
    target: PostgresServer
    nats: NatsServer
    folder: Path
    tables: tuple[str, ...] = shop.PATTERNS
    more: Mapping[str, dict[str, object]] = field(default_factory=dict)
    accepted: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    sink: Mapping[str, object] = field(default_factory=dict)
    reading: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.source, BinlogServer):
            run(self.source, "CREATE DATABASE shop CHARACTER SET utf8mb4")
        else:
            create_database(self.source, "shop")
        create_database(self.target, "warehouse")
        self.write_configuration()

    @property
    def source_dsn(self) -> str:
        if isinstance(self.source, BinlogServer):
            return self.source.dsn()
        return self.source.dsn("shop")

    @property
    def target_dsn(self) -> str:
        return self.target.dsn("warehouse")

    @property
    def configuration(self) -> Path:
        return self.folder / "waxtap.yaml"

    def write_configuration(self) -> None:
        """Write `waxtap.yaml`; running flows do not look at it again."""
        kind = "mysql" if isinstance(self.source, MysqlServer) else "mariadb"
        if isinstance(self.source, PostgresServer):
            kind = "postgres"
        source: dict[str, object] = {
            "type": kind,
            "dsn": "${SHOP_DSN}",
            "tables": list(self.tables),
            # what is compared with the stream is the log
            "snapshot": "never",
            **self.reading,
        }
        sink: dict[str, object] = {
            "type": "postgres",
            "dsn": "${WAREHOUSE_DSN}",
            "topics": ["db.*"],
            **self.sink,
        }
        accepted = {("sources", "shop"): source, ("sinks", "warehouse"): sink}
        for place, tokens in self.accepted.items():
            accepted[place]["accept"] = tokens
        tree: dict[str, dict[str, object]] = {
            "nats": {"url": self.nats.url},
            "sources": {"shop": source},
            "sinks": {"warehouse": sink},
        }
        for section, entries in self.more.items():
            tree.setdefault(section, {}).update(entries)
        self.configuration.write_text(yaml.safe_dump(tree), encoding="utf-8")

    def accept(self, section: str, name: str, token: str) -> None:
        """Write into the configuration that a loss is accepted."""
        self.accepted.setdefault((section, name), []).append(token)
        self.write_configuration()

    def environment(self, flow: str) -> dict[str, str]:
        """The environment of a flow's process."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BYTEWAX_", "WAXTAP_", "PG"))
        }
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "WAXTAP_CONFIG": str(self.configuration),
            "WAXTAP_FLOW": flow,
            "SHOP_DSN": self.source_dsn,
            "WAREHOUSE_DSN": self.target_dsn,
        }

    def run(self, query: str, *values: object) -> None:
        """Execute in the source database and commit."""
        with psycopg.connect(self.source_dsn) as connection:
            connection.execute(query.encode(), values or None)

    def stream_sequence(self, stream: str = "CDC_shop") -> int:
        """The last sequence of a stream as the server's monitoring tells it; 0 without one."""
        url = f"{self.nats.monitoring_url}/jsz?streams=true"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server
                tree = json.load(answer)
        except OSError:
            return 0
        for account in tree.get("account_details", []):
            for detail in account.get("stream_detail", []):
                if detail["name"] == stream:
                    return int(detail["state"]["last_seq"])
        return 0

    def delivered_sequence(self) -> int:
        """The largest offset that the target holds; 0 while there is none or it cannot be asked."""
        try:
            with psycopg.connect(self.target_dsn, connect_timeout=5) as connection:
                row = connection.execute("SELECT max(seq) FROM waxtap.offsets").fetchone()
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
            return 0
        return int(row[0] or 0) if row else 0


def create_database(server: PostgresServer, name: str) -> None:
    """Create an empty database."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
