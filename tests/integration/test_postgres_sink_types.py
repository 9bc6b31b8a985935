"""Every built-in type arrives as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import psycopg
import pytest

from connectors.contracts.changes import Column, Delivered
from connectors.postgres.pgoutput.types import BUILTIN
from connectors.postgres.pgoutput.values import render
from tests.integration.postgres_rows import ID, SUBJECT, deliver, shape, sink

if TYPE_CHECKING:
    from tests.servers.postgres import Database

Connection = psycopg.Connection[tuple[object, ...]]

pytestmark = pytest.mark.servers

PINNED = (
    "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=iso_8601 -c extra_float_digits=3"
    " -c bytea_output=hex -c lc_monetary=C"
)

VALUES: dict[str, list[str]] = {
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "0"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["4294967295"],
    "numeric": ["0.000", "-12345678901234567890.123456789012345678901234567890", "NaN", "Infinity"],
    "numeric(12,2)": ["1.50", "-9999999999.99"],
    "real": ["1e-45", "3.4028235e+38", "NaN", "-Infinity", "-0", "0.1"],
    "double precision": ["5e-324", "1.7976931348623157e+308", "Infinity", "NaN", "0.1", "-0"],
    "money": ["$1,234.56", "-$92,233,720,368,547,758.08"],
    "boolean": ["t", "f"],
    "text": ["", 'a "q" \\ / \n\r\t\b\f é 😀 \x01\x7f', "null", "{}", "[1]", "\\N", "%s $1"],
    "character varying(5)": ["äöüßé", " x "],
    "character(5)": ["ab", "abcde"],
    "bpchar": ["ab  "],
    '"char"': ["x", "\\377"],
    "name": ["name"],
    "bytea": ["", "\\x00ff5c27220a", "\\xdeadbeef"],
    "date": ["2026-11-22", "0044-03-15 BC", "infinity", "-infinity", "5874897-12-31", "0001-01-01"],
    "time": ["00:00:00", "24:00:00", "23:59:59.999999"],
    "time(0)": ["12:00:01"],
    "timetz": ["00:00:00+15:59", "24:00:00-15:59", "04:05:06.789+05:30"],
    "timestamp": ["2026-11-22 19:45:06.3", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999",
                  "infinity"],
    "timestamptz": ["2026-11-22 19:45:06.3+00", "0044-03-15 12:00:00+00 BC", "-infinity",
                    "294276-12-31 23:59:59.999999+00"],
    "timestamp(3) with time zone": ["2026-11-22 19:45:06.123+00"],
    "interval": ["P1Y2M3DT4H5M6.789S", "PT0S", "P-1Y-2M3DT-4H-5M-6S", "P178000000Y"],
    "interval year to month": ["P1Y2M"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "json": ['{"b": 1, "a" : [1,  2], "a": null}', '"\\u00e9 x"', "12.50", "true", '{"x": 1e400}',
             "null", '"null"'],
    "jsonb": ['{"a": [1, 2.50, null, "é\\"\\\\"], "b": {"c": {}}}', '"text"', "[]", "0.10", "true",
              "null", '"null"'],
    "jsonpath": ['$."a"[*]?(@ > 1)'],
    "xml": ["<a x='1'>&amp;é</a>", "text<b/>"],
    "bit(3)": ["101"],
    "bit varying": ["", "1010101"],
    "inet": ["192.168.0.1/24", "::1", "10.1.2.3"],
    "cidr": ["10.0.0.0/8", "2001:db8::/32"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "point": ["(1.5,-2)", "(NaN,Infinity)"],
    "line": ["{1,-1,0}"],
    "lseg": ["[(0,0),(1,1)]"],
    "box": ["(1,1),(0,0)"],
    "path": ["((0,0),(1,1))", "[(0,0),(1,1)]"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "circle": ["<(0,0),1.5>"],
    "tsvector": ["'a':1A 'b''s':2,3B 'c'"],
    "tsquery": ["'a' & !'b':*A | 'c' <-> 'd'"],
    "pg_lsn": ["16/B374D848"],
    "tid": ["(0,1)"],
    "xid": ["4294967295"],
    "cid": ["7"],
    "xid8": ["18446744073709551615"],
    "txid_snapshot": ["10:20:10,14,15"],
    "pg_snapshot": ["10:20:10,14,15"],
    "int2vector": ["1 2 3"],
    "oidvector": ["1 2"],
    "int4range": ["[1,10)", "empty", "(,5)"],
    "numrange": ["(1.5,2.50]"],
    "tstzrange": ['["2026-01-01 00:00:00+00","2026-02-01 00:00:00+00")'],
    "daterange": ["[2026-01-01,infinity)"],
    "int8range": ["[1,9223372036854775807)"],
    "tsrange": ['["2026-01-01 00:00:00",)'],
    "regclass": ["pg_class"],
    "regtype": ["integer"],
    "regproc": ["now"],
    "refcursor": ["c"],
    "integer[]": ["{}", "{1,NULL,-3}", "{{1,2},{3,NULL}}", "{{{1},{2}},{{3},{4}}}"],
    "text[]": ["{}", '{NULL,"NULL","",a,"q\\"\\\\,{}"," x ","é\n"}', '{{a,b},{NULL,"c d"}}'],
    "character varying(3)[]": ["{abc,é}"],
    "boolean[]": ["{t,f,NULL}"],
    "numeric[]": ["{1.50,NaN,NULL}"],
    "double precision[]": ["{0.1,NaN,-Infinity}"],
    "timestamptz[]": ['{"2026-11-22 19:45:06.3+00",infinity,NULL}'],
    "date[]": ['{2026-11-22,"0044-03-15 BC"}'],
    "bytea[]": ["{}", '{"\\\\x00ff",NULL,"\\\\x"}', '{{"\\\\x01","\\\\x02"},{NULL,"\\\\xff"}}'],
    "uuid[]": ["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"],
    "jsonb[]": ["{}", '{"{\\"a\\": [1, null]}",NULL,"[1, 2]","\\"x\\"",1}'],
    "json[]": ['{"{\\"a\\" : 1}",NULL,"[1,  2]","\\"\\\\u00e9\\""}'],
    "interval[]": ["{P1Y,PT1S}"],
    "inet[]": ["{10.0.0.1,::1}"],
    "box[]": ["{(1,1),(0,0);(2,2),(1,1)}"],
    "int4range[]": ['{"[1,2)",empty}'],
    "money[]": ['{$1.00,"-$1,000.00"}'],
}  # fmt: skip


@pytest.mark.parametrize("type_", VALUES)
def test_values_arrive_as_they_were(type_: str, database: Database) -> None:
    with psycopg.connect(database.dsn, autocommit=True, options=PINNED) as source:
        source.execute(f"CREATE TEMP TABLE source (id bigserial, v {type_})".encode())
        for value in [*VALUES[type_], None]:
            source.execute(f"INSERT INTO source (v) VALUES (%s::text::{type_})".encode(), [value])
        cursor = source.execute("SELECT v FROM source LIMIT 0")
        assert cursor.description is not None
        kind = BUILTIN[cursor.description[0].type_code]
        table = shape("t", ID, Column("v", type_, kind.json, kind.portable))
        texts = source.execute("SELECT id, v::text FROM source ORDER BY id").fetchall()
        changes = []
        for number, _ in cast("list[tuple[int, str | None]]", texts):
            printed = as_logged(source, number)
            value = "null" if printed is None else render(printed, kind)
            envelope = f'{{"op":"c","before":null,"after":{{"id":{number},"v":{value}}}}}'
            key = f'{{"id":{number}}}'
            nulls = ("v",) if printed == "null" and kind.json == "json" else ()
            changes.append(
                Delivered(number, SUBJECT, "", key, table, "1", True, envelope.encode(), (), nulls)
            )
        deliver(sink(database.dsn), changes)
        assert source.execute("SELECT id, v::text FROM public.t ORDER BY id").fetchall() == texts
        if not type_.startswith("reg"):  # the target need not have what these name
            assert declared(source, "public.t") == declared(source, "source")


def as_logged(source: Connection, number: object) -> str | None:
    """What the type's output function prints, which is what the log carries."""
    query = f"COPY (SELECT v FROM source WHERE id = {number}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)"
    with source.cursor().copy(query.encode()) as copy:
        line = b"".join(bytes(part) for part in copy).decode()
    return line[1:-2].replace('""', '"') if line.startswith('"') else None


def declared(source: Connection, table: str) -> object:
    return source.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attname = 'v'",
        [table],
    ).fetchone()
