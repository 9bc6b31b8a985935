"""The exact decoder of values, and the names of types."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import FatalError
from connectors.postgres.pgoutput.types import BUILTIN, TypeInfo, TypeResolver, qualified, type_name
from connectors.postgres.pgoutput.values import parse_array, render
from tests.unit.wal import FakeCatalog

BOOL, BYTEA, INT8, TEXT, JSON, FLOAT8, BOX = 16, 17, 20, 25, 114, 701, 603
DATE, TIMESTAMP, TIMESTAMPTZ, INTERVAL, NUMERIC, JSONB = 1082, 1114, 1184, 1186, 1700, 3802
INT8S, TEXTS, BOXES, BYTEAS, TIMESTAMPTZS, FLOAT8S, JSONBS = (
    1016,
    1009,
    1020,
    1001,
    1185,
    1022,
    3807,
)

VALUES = [
    (INT8, "-9223372036854775808", "-9223372036854775808"),
    (26, "4294967295", "4294967295"),
    (FLOAT8, "1e+300", "1e+300"),
    (FLOAT8, "-0", "-0"),
    (FLOAT8, "5e-324", "5e-324"),
    (FLOAT8, "NaN", '"NaN"'),
    (700, "-Infinity", '"-Infinity"'),
    (NUMERIC, "12345678901234567890.10", '"12345678901234567890.10"'),
    (NUMERIC, "NaN", '"NaN"'),
    (BOOL, "t", "true"),
    (BOOL, "f", "false"),
    (JSON, '{"a" :\n 1.10, "a": [null]}', '{"a" :\n 1.10, "a": [null]}'),
    (JSONB, "1e400", "1e400"),
    (BYTEA, "\\x", '""'),
    (BYTEA, "\\x00ff10", '"AP8Q"'),
    (TEXT, 'é"\\\n\x01', '"é\\"\\\\\\n\\u0001"'),
    (DATE, "2026-11-22", '"2026-11-22"'),
    (DATE, "0044-03-15 BC", '"0044-03-15 BC"'),
    (TIMESTAMP, "2026-11-22 19:45:06.3", '"2026-11-22T19:45:06.3"'),
    (TIMESTAMP, "294276-12-31 23:59:59.999999", '"294276-12-31T23:59:59.999999"'),
    (TIMESTAMP, "0044-03-15 00:00:00 BC", '"0044-03-15 00:00:00 BC"'),
    (TIMESTAMP, "-infinity", '"-infinity"'),
    (TIMESTAMPTZ, "2026-11-22 19:45:06+00", '"2026-11-22T19:45:06Z"'),
    (TIMESTAMPTZ, "10000-01-01 00:00:00.5+00", '"10000-01-01T00:00:00.5Z"'),
    (TIMESTAMPTZ, "0044-03-15 00:00:00+00 BC", '"0044-03-15 00:00:00+00 BC"'),
    (TIMESTAMPTZ, "infinity", '"infinity"'),
    (INTERVAL, "P1Y2M3DT4H5M6.7S", '"P1Y2M3DT4H5M6.7S"'),
    (30, "1 2 3", '"1 2 3"'),
    (INT8S, "{}", "[]"),
    (INT8S, "{1,NULL,-3}", "[1,null,-3]"),
    (INT8S, "[0:1][-2:-1]={{1,2},{3,4}}", "[[1,2],[3,4]]"),
    (TEXTS, '{a,"b,\\"\\\\}",NULL,"NULL",""," "}', '["a","b,\\"\\\\}",null,"NULL",""," "]'),
    (TEXTS, "{null}", '["null"]'),
    (BOXES, "{(1,1),(0,0);(2,2),(1,1)}", '["(1,1),(0,0)","(2,2),(1,1)"]'),
    (BYTEAS, '{"\\\\x00ff"}', '["AP8="]'),
    (TIMESTAMPTZS, '{"2026-11-22 19:45:06+00",infinity}', '["2026-11-22T19:45:06Z","infinity"]'),
    (FLOAT8S, "{NaN,1.5,-Infinity}", '["NaN",1.5,"-Infinity"]'),
    (JSONBS, '{"{\\"a\\": [1, \\"x\\"]}",1,"null"}', '[{"a": [1, "x"]},1,null]'),
]


@pytest.mark.parametrize(("oid", "text", "expected"), VALUES)
def test_the_mapping(oid: int, text: str, expected: str) -> None:
    assert render(text, BUILTIN[oid]) == expected
    json.loads(expected)


@pytest.mark.parametrize(
    ("oid", "text"),
    [
        (INT8, ""),
        (INT8, "1.5"),
        (FLOAT8, "nan"),
        (BOOL, "true"),
        (BYTEA, "abc"),
        (BYTEA, "\\xa"),
        (TIMESTAMP, "22/11/2026 19:45:06"),
        (TIMESTAMPTZ, "2026-11-22 19:45:06+01"),
        (TIMESTAMPTZ, "2026-11-22 19:45:06"),
        (INT8S, ""),
        (INT8S, "1"),
        (INT8S, "{1"),
        (INT8S, "{1,}"),
        (INT8S, "{1}x"),
        (INT8S, '{"1"2}'),
        (TEXTS, "{a b}"),
        (TEXTS, '{"a'),
    ],
)
def test_text_in_another_form_is_an_error(oid: int, text: str) -> None:
    with pytest.raises(FatalError) as caught:
        render(text, BUILTIN[oid])
    assert caught.value.code == "postgres.unexpected_value"
    assert not text or text not in caught.value.message.split()


def _write(element: object) -> str:
    """An array as `array_out` writes it, every element in quotes."""
    if isinstance(element, list):
        return "{" + ",".join(map(_write, element)) + "}"
    if element is None:
        return "NULL"
    return '"' + str(element).replace("\\", "\\\\").replace('"', '\\"') + '"'


ELEMENT = st.none() | st.text()


@given(st.lists(ELEMENT) | st.lists(st.lists(ELEMENT, min_size=1), min_size=1))
def test_arrays_there_and_back(elements: list[object]) -> None:
    assert parse_array(_write(elements)) == elements


@pytest.mark.parametrize(
    ("oid", "modifier", "name"),
    [
        (NUMERIC, 655366, "numeric(10,2)"),
        (NUMERIC, ((5 << 16) | (-3 & 0x7FF)) + 4, "numeric(5,-3)"),
        (1043, 24, "character varying(20)"),
        (1043, -1, "character varying"),
        (1042, 5, "character(1)"),
        (1042, -1, "bpchar"),
        (1560, 3, "bit(3)"),
        (1560, -1, '"bit"'),
        (1562, 3, "bit varying(3)"),
        (TIMESTAMPTZ, 3, "timestamp(3) with time zone"),
        (TIMESTAMP, -1, "timestamp without time zone"),
        (1266, 0, "time(0) with time zone"),
        (INTERVAL, -1, "interval"),
        (INTERVAL, (0x7FFF << 16) | 2, "interval(2)"),
        (INTERVAL, (6 << 16) | 0xFFFF, "interval year to month"),
        (INTERVAL, (7176 << 16) | 3, "interval day to second(3)"),
        (18, -1, '"char"'),
        (TEXTS, -1, "text[]"),
        (1231, 655366, "numeric(10,2)[]"),
        (1014, -1, "bpchar[]"),
    ],
)
def test_names_of_builtin_types(oid: int, modifier: int, name: str) -> None:
    assert type_name(oid, BUILTIN[oid], modifier) == name


def test_kinds_of_json() -> None:
    kinds = {oid: BUILTIN[oid].json for oid in (INT8, BOOL, BYTEA, JSONB, NUMERIC, TEXTS, BYTEAS)}
    assert kinds == {
        INT8: "number",
        BOOL: "boolean",
        BYTEA: "base64",
        JSONB: "json",
        NUMERIC: "string",
        TEXTS: "array",
        BYTEAS: "array:base64",
    }
    assert BUILTIN[JSONBS].json == "array:json"


def test_other_types_come_from_the_catalog_once() -> None:
    catalog = FakeCatalog(
        {
            16400: TypeInfo(16400, "_mood", "Shop", "b", 16401, ","),
            16401: TypeInfo(16401, "mood", "Shop", "e", 0, ","),
        }
    )
    resolver = TypeResolver(catalog)
    resolver.announce(16500, "shop", "gone")
    found = resolver.resolve({16400, 16500, INT8})
    assert found[INT8] is BUILTIN[INT8]
    assert (found[16400].name, found[16400].json, found[16400].portable) == (
        '"Shop".mood[]',
        "array",
        False,
    )
    assert (found[16500].name, found[16500].json, found[16500].portable) == (
        "shop.gone",
        "string",
        False,
    )
    assert render('{sad,"very, happy"}', found[16400]) == '["sad","very, happy"]'
    asked = len(catalog.asked)
    resolver.resolve({16400, 16401, 16500})
    assert len(catalog.asked) == asked


def test_qualified_names_are_quoted_where_needed() -> None:
    assert qualified("shop", "mood") == "shop.mood"
    assert qualified('a"b', "é") == '"a""b"."é"'
