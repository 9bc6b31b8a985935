"""Which types hold all values of another one."""

from __future__ import annotations

import pytest

from connectors.postgres.target.widening import Widening, holds, widening

IN_PLACE, REWRITE = Widening.IN_PLACE, Widening.REWRITE


@pytest.mark.parametrize(
    ("narrow", "wide", "cost"),
    [
        ("smallint", "integer", REWRITE),
        ("integer", "bigint", REWRITE),
        ("integer", "numeric", REWRITE),
        ("bigint", "numeric(20,0)", REWRITE),
        ("integer", "double precision", REWRITE),
        ("smallint", "real", REWRITE),
        ("real", "double precision", REWRITE),
        ("numeric(10,2)", "numeric(12,2)", IN_PLACE),
        ("numeric(10,2)", "numeric", IN_PLACE),
        ("numeric(10,2)", "numeric(12,4)", REWRITE),
        ("numeric(5)", "numeric(6,0)", IN_PLACE),
        ("character varying(10)", "character varying(20)", IN_PLACE),
        ("character varying(10)", "character varying", IN_PLACE),
        ("character varying(10)", "text", IN_PLACE),
        ("character varying", "text", IN_PLACE),
        ("character(3)", "character(5)", REWRITE),
        ("character(3)", "text", REWRITE),
        ("bit(3)", "bit varying(3)", REWRITE),
        ("bit varying(3)", "bit varying(8)", IN_PLACE),
        ("timestamp(0) without time zone", "timestamp(3) without time zone", IN_PLACE),
        ("timestamp(3) with time zone", "timestamp with time zone", IN_PLACE),
        ("timestamp(3) with time zone", "timestamptz", IN_PLACE),
        ("interval(0)", "interval(6)", IN_PLACE),
        ("date", "timestamp without time zone", REWRITE),
        ("integer[]", "bigint[]", REWRITE),
        ("character varying(3)[]", "text[]", REWRITE),
    ],
)
def test_wider_types(narrow: str, wide: str, cost: Widening) -> None:
    assert widening(narrow, wide) is cost
    assert widening(wide, narrow) is None
    assert holds(wide, narrow)
    assert holds(wide, wide)
    if narrow != "character varying":
        assert not holds(narrow, wide)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("integer", "integer"),
        ("bigint", "numeric(10,0)"),
        ("bigint", "double precision"),
        ("bigint", "real"),
        ("integer", "text"),
        ("text", "integer"),
        ("numeric(10,2)", "numeric(10,4)"),
        ("numeric", "numeric(10,2)"),
        ("double precision", "numeric"),
        ("date", "timestamp with time zone"),
        ("timestamp without time zone", "timestamp with time zone"),
        ("integer", "integer[]"),
        ("character(3)", "character varying(2)"),
        ("bit(3)", "bit(4)"),
        ("boolean", "smallint"),
        ("json", "jsonb"),
        ("shop.mood", "text"),
        ("interval year to month", "interval"),
    ],
)
def test_what_is_left_as_it_is(found: str, wanted: str) -> None:
    assert widening(found, wanted) is None


def test_text_takes_everything() -> None:
    assert holds("text", "shop.mood")
    assert not holds("shop.mood", "text")
    assert holds("varchar(20)", "character varying(10)")
