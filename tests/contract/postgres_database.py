"""A database of its own for one test on a server that may be killed."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.servers.postgres import Database, drop

if TYPE_CHECKING:
    from psycopg.abc import QueryNoTemplate
    from psycopg.rows import TupleRow

    from control.servers.postgres import PostgresServer


class PostgresDatabase:
    """Created at once, dropped with its slots and roles by `drop`."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._roles: list[str] = []
        self.name = f"contract_{secrets.token_hex(4)}"
        self._administrate(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.name)))

    def dsn(self, user: str = "postgres") -> str:
        return self._server.dsn(self.name, user=user)

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[TupleRow]:
        return psycopg.connect(self.dsn(), autocommit=autocommit)

    def run(self, query: QueryNoTemplate, *values: object) -> None:
        with self.connect() as connection:
            connection.execute(query, values or None)

    def row(self, query: QueryNoTemplate, *values: object) -> tuple[object, ...]:
        with self.connect() as connection:
            row = connection.execute(query, values or None).fetchone()
        assert row is not None
        return row

    def role(self, name: str) -> None:
        """Create a login role without any further right."""
        self._roles.append(name)
        self._administrate(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))

    def drop(self) -> None:
        if not self._server.running:
            self._server.start()
        drop(Database(self._server, self.name, self.dsn()))
        for role in self._roles:
            self._administrate(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    def _administrate(self, query: sql.Composed) -> None:
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            connection.execute(query)
