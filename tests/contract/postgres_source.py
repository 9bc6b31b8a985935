"""The PostgreSQL source under the source suite."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, ClassVar

import msgspec
import psycopg
from psycopg import sql

from connectors import registry
from control.servers.ports import free_port
from tests.contract.context import source_context
from tests.contract.postgres_database import PostgresDatabase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Source
    from control.servers.postgres import PostgresServer


class PostgresSourceAdapter:
    """A database of its own on a shared server, with the table `public.items`."""

    LOSSES: ClassVar[tuple[str, ...]] = ("slot dropped", "slot advanced")
    HOLDS_LOG: ClassVar[bool] = True

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._database = PostgresDatabase(server)
        self._name = f"s{secrets.token_hex(4)}"
        self._slot = f"waxtap_{self._name}"
        self._database.run("CREATE TABLE public.items (id bigint PRIMARY KEY, value text)")

    def source(self) -> Source:
        return self._source(self._name, self._database.dsn())

    def unreachable(self) -> Source:
        return self._source(
            self._name,
            f"host=127.0.0.1 port={free_port()} dbname=shop password=s3cret-word",
        )

    def misconfigured(self) -> Mapping[str, Callable[[], Source]]:
        return {
            "REPLICATION": self._without_right,
            "public.keyless": self._without_key,
            "absent_slot": self._without_slot,
        }

    def lose_history(self, way: str) -> None:
        self._await_idle_slot()
        if way == "slot dropped":
            self._database.run(f"SELECT pg_drop_replication_slot('{self._slot}')")
        else:
            self._database.run(
                f"SELECT pg_replication_slot_advance('{self._slot}', pg_current_wal_lsn())"
            )

    def write(self, ids: Sequence[int]) -> None:
        self._database.run(
            "INSERT INTO items SELECT i, 'v' || i FROM unnest(%s::bigint[]) i", list(ids)
        )

    def abort(self, ids: Sequence[int]) -> None:
        with self._database.connect(autocommit=False) as connection:
            connection.execute("INSERT INTO items SELECT unnest(%s::bigint[])", [list(ids)])
            connection.rollback()

    def partly(self, kept: Sequence[int], undone: Sequence[int]) -> None:
        with self._database.connect(autocommit=False) as connection:
            insert = "INSERT INTO items SELECT unnest(%s::bigint[])"
            connection.execute(insert, [list(kept)])
            with connection.transaction(force_rollback=True):
                connection.execute(insert, [list(undone)])

    def write_wide(self, ids: Sequence[int], size: int) -> None:
        # hex digits of random bytes, so that TOAST compression does not make the rows small
        with self._database.connect(autocommit=False) as connection:
            for number in ids:
                connection.execute(
                    "INSERT INTO items VALUES (%s, %s)", [number, secrets.token_hex(size // 2)]
                )

    def identify(self, change: Change) -> int:
        assert change.key is not None
        return int(msgspec.json.decode(change.key)["id"])

    def retained(self) -> int:
        (lsn,) = self._database.row(
            "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots"
            " WHERE slot_name = %s",
            self._slot,
        )
        return int(str(lsn))

    def kill_server(self) -> None:
        self._server.kill()

    def start_server(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._database.drop()

    def _source(self, name: str, dsn: str, **settings: object) -> Source:
        spec = registry.source_spec("postgres").model_validate(
            # The suite is about the log: a row of it would come from its table as well.
            {
                "type": "postgres",
                "dsn": dsn,
                "tables": ["public.*"],
                "snapshot": "never",
                **settings,
            }
        )
        return registry.source("postgres", name, spec, (), source_context())

    def _without_right(self) -> Source:
        role = f"plain_{secrets.token_hex(4)}"
        self._database.role(role)
        self._database.run(
            sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(
                sql.Identifier(role)
            )
        )
        return self._source(f"{self._name}a", self._database.dsn(user=role))

    def _without_key(self) -> Source:
        self._database.run("CREATE TABLE IF NOT EXISTS public.keyless (value text)")
        return self._source(f"{self._name}b", self._database.dsn())

    def _without_slot(self) -> Source:
        self._database.run("DROP TABLE IF EXISTS public.keyless")
        self._database.run("CREATE PUBLICATION theirs FOR TABLE public.items")
        return self._source(
            f"{self._name}c",
            self._database.dsn(),
            create=False,
            publication="theirs",
            slot="absent_slot",
        )

    def _await_idle_slot(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            (active,) = self._database.row(
                "SELECT active FROM pg_replication_slots WHERE slot_name = %s", self._slot
            )
            if not active:
                return
            if time.monotonic() > deadline:
                raise psycopg.OperationalError("a closed reader still holds its slot")
            time.sleep(0.02)
