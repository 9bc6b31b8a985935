"""Settings of the PostgreSQL sink that do not go together are refused when they are read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from connectors.contracts.changes import Column, TableSchema
from connectors.errors import PermanentError
from connectors.postgres.names import parse_name
from connectors.postgres.spec import SinkSpec
from connectors.postgres.target.layout import HISTORY, Layout


def spec(**settings: object) -> SinkSpec:
    return SinkSpec.model_validate({"type": "postgres", "dsn": "host=w", **settings})


def table(schema: str, name: str, *columns: str) -> TableSchema:
    return TableSchema("shop", schema, name, tuple(Column(c, "text") for c in columns), ())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "append", "deletes": "soft"}, "goes with mode: upsert"),
        ({"deleted_column": "gone"}, "goes with deletes: soft"),
        ({"deleted_column": "", "deletes": "soft"}, "at least 1 character"),
        ({"tables": {"users": "crm.users"}}, "name the source table with its schema"),
        ({"tables": {"public.users": "a.b.c"}}, "not a table's name"),
        ({"tables": {"public.users": ""}}, "not a table's name"),
        ({"tables": {"public.users": 'crm."users'}}, "not a table's name"),
        ({"tables": {"public.*": "crm.users"}}, "not a table's name"),
        ({"tables": {"public.users": "a", "PUBLIC.users": "b"}}, "named twice"),
        ({"transactions": True, "parallelism": 2}, "leave parallelism out"),
        ({"parallelism": 17}, "less than or equal to 16"),
        ({"mode": "merge"}, "'upsert' or 'append'"),
        ({"target_schema": "crm"}, "not permitted"),
    ],
)
def test_what_does_not_go_together_is_refused_once(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**settings)
    assert caught.value.error_count() == 1
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Users", ("users",)),
        ("Public.Users", ("public", "users")),
        ('"My Schema"."a.b"', ("My Schema", "a.b")),
        ('s."say ""x"""', ("s", 'say "x"')),
    ],
)
def test_names_are_read_as_postgresql_reads_them(text: str, parts: tuple[str, ...]) -> None:
    assert parse_name(text) == parts


def test_rows_go_where_the_configuration_says() -> None:
    layout = Layout(spec(schema="dw", tables={"public.a": "x.y", "public.b": "z"}))
    places = [layout.name(table("public", name)) for name in "abc"]
    assert places == [("x", "y"), ("dw", "z"), ("dw", "c")]
    assert Layout(spec()).name(table("public", "c")) == ("public", "c")


def test_a_column_that_has_the_name_of_the_sinks_own_is_refused() -> None:
    for settings, name in (
        ({"mode": "append"}, HISTORY[0].name),
        ({"deletes": "soft"}, "_deleted_at"),
        ({"deletes": "soft", "deleted_column": "gone"}, "gone"),
    ):
        with pytest.raises(PermanentError) as caught:
            Layout(spec(**settings)).columns(table("public", "t", "id", name))
        assert caught.value.code == "postgres.reserved_column"
        assert name in caught.value.message
    assert Layout(spec(deletes="soft")).columns(table("public", "t", HISTORY[0].name))
