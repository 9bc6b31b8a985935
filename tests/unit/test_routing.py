from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contracts.changes import Change, Column, TableSchema
from dataflows.routing import Router, TablePattern, partition, token, topic, topic_from


def _table(schema: str, name: str, dialect: str = "postgresql") -> TableSchema:
    return TableSchema("shop", schema, name, (Column("id", "integer", "number"),), ("id",), dialect)


def _change(table: TableSchema | None, key: str | None) -> Change:
    return Change("c" if table else "m", table, "0", key, "1", True, b"{}")


@pytest.mark.parametrize(
    ("schema", "name", "expected"),
    [
        ("public", "users", "db.users"),
        ("sales", "users", "db.sales.users"),
        ("public", "a.b", "db.a%2Eb"),
        ("public", "Odd Name*>", "db.Odd%20Name%2A%3E"),
        ("public", "größe", "db.gr%C3%B6%C3%9Fe"),
    ],
)
def test_a_table_has_its_own_topic(schema: str, name: str, expected: str) -> None:
    assert topic(_table(schema, name)) == expected


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_names_never_share_a_token_and_every_token_is_a_legal_subject(
    one: str, other: str
) -> None:
    assert (token(one) == token(other)) == (one == other)
    assert token(one).isascii()
    assert not set(token(one)) & set(" .*>\t\r\n")


def test_messages_have_a_topic_of_their_own() -> None:
    assert Router("shop", {}).route([_change(None, None)])[0][0] == "CDC.shop.messages.0"


def test_changes_keep_their_order_and_get_their_subjects() -> None:
    one, two = b'{"id":1}', b'{"id":2}'
    users, orders = _table("public", "users"), _table("public", "orders")
    changes = [
        _change(users, '{"id":1}'),
        _change(orders, '{"id":1}'),
        _change(users, '{"id":2}'),
        _change(users, None),
    ]
    routed = Router("shop", {"db.users": 8}).route(changes)
    assert [change for _, change in routed] == changes
    assert [subject for subject, _ in routed] == [
        f"CDC.shop.db.users.{crc32(one) % 8}",
        "CDC.shop.db.orders.0",
        f"CDC.shop.db.users.{crc32(two) % 8}",
        "CDC.shop.db.users.0",
    ]


def test_the_partition_is_the_documented_hash() -> None:
    # CRC-32/ISO-HDLC's check value, from the catalogue of parametrised CRC algorithms.
    assert partition("123456789", 1 << 32) == 0xCBF43926


@pytest.mark.parametrize(
    ("pattern", "schema", "name", "matches"),
    [
        ("public.*", "public", "users", True),
        ("public.*", "sales", "users", False),
        ("*.*", "any", "thing", True),
        ("sales.order_*", "sales", "order_items", True),
        ("sales.order_*", "sales", "orders", False),
        ('"Odd Schema"."My ""Table"""', "Odd Schema", 'My "Table"', True),
        ('public."*"', "public", "users", False),
        ("public.Users", "public", "users", False),
        ("public.größe*", "public", "größen", True),
    ],
)
def test_a_pattern_takes_tables_by_schema_and_name(
    pattern: str, schema: str, name: str, matches: bool
) -> None:
    assert TablePattern(pattern).matches(_table(schema, name)) is matches


@pytest.mark.parametrize("pattern", ["users", "public.", ".users", "a.b.c", "public. users", ""])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"schema\.table"):
        TablePattern(pattern)


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_template_makes_a_legal_topic_of_any_table(schema: str, name: str) -> None:
    made = topic_from("{schema}.{table}.{source}", "shop", _table(schema, name), "")
    assert len(made.split(".")) == 3
    assert not set(made) & set(" *>\t\r\n")
    assert made.split(".")[0] != "dead"


def test_a_message_has_no_table_to_name_its_topic() -> None:
    assert topic_from("db.{table}", "shop", None, "") == "messages"
    assert topic_from("all.{source}", "shop", None, "") == "all.shop"
