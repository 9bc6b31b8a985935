"""What the demo runs: source and target, NATS, and the two flows, all in a private folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg
from psycopg import sql

from control.demo import mariadb_shop, rest_shop, shop
from control.demo.rest_shop import RestShop
from control.servers.errors import ServerStartError
from control.servers.mariadb import MariadbServer
from control.servers.nats import NatsServer
from control.servers.postgres import PostgresServer
from control.servers.process import tail
from control.servers.spawn import spawn

if TYPE_CHECKING:
    from types import TracebackType

_PROJECT = Path(__file__).parents[2]
_DATABASE = """{{type: {type}, dsn: "${{SHOP_DSN}}", tables: ["{schema}.*"]}}"""
_API = """
    type: rest
    url: "${{SHOP_DSN}}"
    allow_http: true
    auth: {{type: bearer, token: {token}}}
    records: products
    key: [sku]
    table: products
    interval: 200ms
"""
_CONFIGURATION = """\
nats: {{url: "{url}", monitor: "{monitor}"}}
sources:
  shop: {source}
sinks:
  warehouse: {{type: postgres, dsn: "${{WAREHOUSE_DSN}}", topics: ["db.*"], schema: public}}
"""
SOURCES = ("postgres", "mariadb", "rest")
FLOWS = ("capture/shop", "deliver/warehouse")
_FLOW_START_SECONDS = 60.0
_FLOW_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05


class Deployment:
    """Servers and flows; a context manager that ends and removes all that it started.

    Args:
        source: The kind of the shop's server, one of `SOURCES`.
    """

    def __init__(self, source: str = "postgres") -> None:
        self._kind = source
        self._stack = ExitStack()
        self._flows: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = Path()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="waxtap-demo-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            # PostgreSQL's own user has to get at the servers' folders; each of those is closed.
            self.folder.chmod(0o711)
            self.nats = stack.enter_context(NatsServer(self.folder / "nats"))
            self.source: PostgresServer | MariadbServer | RestShop
            if self._kind == "mariadb":
                self.source = stack.enter_context(MariadbServer(data=self.folder / "source"))
            elif self._kind == "rest":
                self.source = stack.enter_context(RestShop(self.folder))
            else:
                self.source = stack.enter_context(PostgresServer(data=self.folder / "source"))
            self.target = stack.enter_context(PostgresServer(data=self.folder / "target"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop_flows()
        finally:
            self._stack.close()

    @property
    def shop_dsn(self) -> str:
        """The database that is captured; of MariaDB the server, of an API the list's URL."""
        if isinstance(self.source, RestShop):
            return self.source.url
        if isinstance(self.source, MariadbServer):
            return self.source.dsn()
        return self.source.dsn(shop.DATABASE)

    @property
    def warehouse_dsn(self) -> str:
        """The database that follows."""
        return self.target.dsn(shop.TARGET_DATABASE)

    @property
    def configuration(self) -> Path:
        """The flows' `waxtap.yaml`."""
        return self.folder / "waxtap.yaml"

    def prepare(self) -> None:
        """Create the shop's tables, an empty target database and the configuration."""
        _create_database(self.target, shop.TARGET_DATABASE)
        if isinstance(self.source, MariadbServer):
            mariadb_shop.create(self.source)
        elif isinstance(self.source, PostgresServer):
            _create_database(self.source, shop.DATABASE)
            with psycopg.connect(self.shop_dsn) as connection:
                connection.execute(shop.SCHEMA.encode())
        schema = shop.DATABASE if self._kind == "mariadb" else "public"
        source = (_API if self._kind == "rest" else _DATABASE).format(
            type=self._kind, schema=schema, token=rest_shop.TOKEN
        )
        self.configuration.write_text(
            _CONFIGURATION.format(
                url=self.nats.url, monitor=self.nats.monitoring_url, source=source
            )
        )

    def start_flows(self) -> None:
        """Start both flows, each a process of its own, and return once the source is captured.

        Raises:
            ServerStartError: One of them ended, or the source was not captured in time.
        """
        for flow in FLOWS:
            name = flow.replace("/", "-")
            command = [sys.executable, "-m", "bytewax.run", "dataflows.main"]
            command += ["-r", str(self.folder / f"recovery-{name}"), "-s", "1", "-b", "0"]
            self._flows[flow] = spawn(
                command,
                log=self._log(flow),
                death_signal=signal.SIGKILL,
                environment=self._environment(flow),
                folder=self.folder,
            )
        deadline = time.monotonic() + _FLOW_START_SECONDS
        while not self._captured():
            self.check()
            if time.monotonic() > deadline:
                raise ServerStartError(
                    "demo.not_captured",
                    f"the source is not captured yet; {FLOWS[0]} says:\n"
                    f"{self.last_words(FLOWS[0])}",
                )
            time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Raise ServerStartError when anything has ended by itself, with the end of its log."""
        for flow, process in self._flows.items():
            if process.poll() is not None:
                raise _ended(flow, process.returncode, self._log(flow))
        for server in (self.nats, self.source, self.target):
            if not server.running:
                raise _ended(server.folder.name, None, server.log)

    def stop_flows(self) -> dict[str, int]:
        """Ask the flows to drain and end, insist after a while; returns their exit statuses."""
        flows, self._flows = self._flows, {}
        for process in flows.values():
            process.terminate()
        deadline = time.monotonic() + _FLOW_STOP_SECONDS
        for process in flows.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return {flow: process.returncode for flow, process in flows.items()}

    def last_words(self, flow: str) -> str:
        """The end of a flow's log."""
        return tail(self._log(flow))

    def _log(self, flow: str) -> Path:
        return self.folder / f"{flow.replace('/', '-')}.log"

    def _captured(self) -> bool:
        """Whether a session reads the source's log; an API may be polled at any time."""
        if isinstance(self.source, RestShop):
            return True
        if isinstance(self.source, MariadbServer):
            with mariadb_shop.connect(self.source) as session, session.cursor() as cursor:
                return bool(
                    cursor.execute(
                        "SELECT 1 FROM information_schema.PROCESSLIST"
                        " WHERE COMMAND LIKE 'Binlog Dump%'"
                    )
                )
        with psycopg.connect(self.shop_dsn, autocommit=True) as connection:
            # A slot that is still being made is active, too, but has no confirmed LSN.
            query = (
                "SELECT 1 FROM pg_replication_slots WHERE database = current_database()"
                " AND active AND confirmed_flush_lsn IS NOT NULL"
            )
            return connection.execute(query).fetchone() is not None

    def _environment(self, flow: str) -> dict[str, str]:
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BYTEWAX_", "WAXTAP_", "PG"))
        }
        return {
            **ours,
            "PYTHONPATH": str(_PROJECT),
            "SHOP_DSN": self.shop_dsn,
            "WAREHOUSE_DSN": self.warehouse_dsn,
            "WAXTAP_CONFIG": str(self.configuration),
            "WAXTAP_FLOW": flow,
        }


def _ended(name: str, status: int | None, log: Path) -> ServerStartError:
    with_status = "" if status is None else f" with status {status}"
    words = tail(log) or "(nothing)"
    return ServerStartError(
        "demo.child_ended", f"{name} ended by itself{with_status}; its log says:\n{words}"
    )


def _create_database(server: PostgresServer, name: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
