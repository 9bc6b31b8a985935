"""Changes for the tests of the PostgreSQL sink."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.changes import UNAVAILABLE, Column, Delivered, TableSchema
from connectors.contracts.sink import Batch, Claim, Share
from connectors.errors import PermanentError
from connectors.postgres.sink import PostgresSink
from connectors.postgres.spec import SinkSpec
from tests.contract.context import sink_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import Change
    from tests.servers.postgres import Database

SUBJECT = "CDC.shop.db.0"
SHARE = Share("warehouse", "CDC_shop", "2026-01-02T03:04:05Z", (SUBJECT,))


def shape(
    name: str, *columns: Column, key: tuple[str, ...] = ("id",), schema: str = "public"
) -> TableSchema:
    return TableSchema("shop", schema, name, columns, key)


ID = Column("id", "bigint", "number")
ITEMS = shape("items", ID, Column("a", "text"), Column("b", "text"))


def spec(dsn: str, **settings: object) -> SinkSpec:
    return SinkSpec.model_validate({"type": "postgres", "dsn": dsn, **settings})


def sink(dsn: str, **settings: object) -> PostgresSink:
    return PostgresSink("warehouse", spec(dsn, **settings), sink_context())


def delivered(changes: Sequence[Change]) -> list[Delivered]:
    """The changes as a sink gets them, numbered from 1."""
    return [
        Delivered(
            number, SUBJECT, change.position, change.key, change.table, change.transaction,
            change.last, change.envelope, change.unavailable, change.json_nulls,
        )
        for number, change in enumerate(changes, 1)
    ]  # fmt: skip


class Log:
    """Numbers the changes that are made with it."""

    def __init__(self, start: int = 0) -> None:
        self.sequence = start

    def change(
        self,
        op: str,
        table: TableSchema = ITEMS,
        row: dict[str, object] | None = None,
        *,
        before: dict[str, object] | None = None,
        missing: tuple[str, ...] = (),
        json_nulls: tuple[str, ...] = (),
    ) -> Delivered:
        self.sequence += 1
        source = row if row is not None else before
        key = None
        if source is not None and table.key:
            key = msgspec.json.encode({name: source[name] for name in table.key}).decode()
        after = None if row is None else {**row, **dict.fromkeys(missing, UNAVAILABLE)}
        envelope = msgspec.json.encode({"before": before, "after": after, "op": op})
        return Delivered(
            self.sequence, SUBJECT, "", key, table, "1", True, envelope, missing, json_nulls
        )

    def put(self, id_: int, a: str | None = "", b: str | None = "") -> Delivered:
        return self.change("c", ITEMS, {"id": id_, "a": a, "b": b})

    def delete(self, id_: int, table: TableSchema = ITEMS) -> Delivered:
        return self.change("d", table, before={"id": id_})


def batch(claim: Claim, *changes: Delivered) -> Batch:
    return Batch(claim, list(changes), changes[-1].sequence)


def deliver(to: PostgresSink, *groups: Sequence[Delivered]) -> None:
    """Claim, and store each group as a transaction of its own."""
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        for group in groups:
            writer.write(batch(claim, *group))
            writer.flush()


def query(database: Database, text: str) -> list[tuple[object, ...]]:
    with database.connect() as connection:
        cursor = connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def items(database: Database) -> list[tuple[object, ...]]:
    return query(database, "SELECT id, a, b FROM public.items ORDER BY id")


def stored(database: Database) -> list[tuple[object, ...]]:
    return query(database, "SELECT seq FROM waxtap.offsets")


def refused(database: Database, *changes: Delivered, **settings: object) -> PermanentError:
    return refused_by(sink(database.dsn, **settings), *changes)


def refused_by(to: PostgresSink, *changes: Delivered) -> PermanentError:
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        writer.write(batch(claim, *changes))
        with pytest.raises(PermanentError) as caught:
            writer.flush()
    return caught.value
