"""The PostgreSQL sink under the sink suite."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, ClassVar

import psycopg
from psycopg import sql

from connectors import registry
from control.servers.ports import free_port
from tests.contract.context import sink_context
from tests.contract.postgres_database import PostgresDatabase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connectors.contracts.sink import Sink
    from control.servers.postgres import PostgresServer


class PostgresSinkAdapter:
    """An empty database of its own on a shared server."""

    transactional: ClassVar[bool] = True
    settings: ClassVar[dict[str, object]] = {}

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._database = PostgresDatabase(server)

    def sink(self) -> Sink:
        return self._sink(self._database.dsn())

    def unreachable(self) -> Sink:
        return self._sink(f"host=127.0.0.1 port={free_port()} dbname=shop password=s3cret-word")

    def misconfigured(self) -> Mapping[str, Callable[[], Sink]]:
        return {"waxtap": self._without_right}

    def refuse(self, value: str) -> None:
        self._database.run(
            sql.SQL("ALTER TABLE public.items ADD CHECK (value <> {})").format(sql.Literal(value))
        )

    def rows(self) -> dict[int, str]:
        with self._database.connect() as connection:
            try:
                rows = connection.execute("SELECT id, value FROM public.items").fetchall()
            except psycopg.errors.UndefinedTable:
                return {}
        found = {int(number): str(value) for number, value in rows}
        assert len(found) == len(rows), "the target holds an id twice"
        return found

    def cut_connections(self) -> None:
        self._database.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def kill_server(self) -> None:
        self._server.kill()

    def start_server(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._database.drop()

    def _sink(self, dsn: str) -> Sink:
        settings = {"type": "postgres", "dsn": dsn, **self.settings}
        spec = registry.sink_spec("postgres").model_validate(settings)
        return registry.sink("postgres", "warehouse", spec, sink_context())

    def _without_right(self) -> Sink:
        role = f"plain_{secrets.token_hex(4)}"
        self._database.role(role)
        return self._sink(self._database.dsn(user=role))
