"""Every type of both servers, from the log of a real one."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

import pytest

from tests.integration.binlog_capture import Log, after

if TYPE_CHECKING:
    from tests.servers.binlog import Kind

pytestmark = pytest.mark.servers


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


POINT = struct.pack("<BIdd", 1, 1, 1.0, 2.0)
POINT_4326 = struct.pack("<BIIdd", 1, 0x20000001, 4326, 1.0, 2.0)

LINE = struct.pack("<BIIdddd", 1, 2, 2, 0.0, 1.0, 2.0, -3.5)
POLYGON = struct.pack("<BIII8d", 1, 3, 1, 4, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0)
COLLECTION = struct.pack("<BII", 1, 7, 2) + POINT + LINE


# type as in DDL, value as SQL, value in the envelope; a third entry: the type in the schema
COMMON: list[tuple[str, str, object]] = [
    ("tinyint", "-128", -128),
    ("tinyint unsigned", "255", 255),
    ("smallint", "-32768", -32768),
    ("smallint unsigned", "65535", 65535),
    ("mediumint", "-8388608", -8388608),
    ("mediumint", "8388607", 8388607),
    ("mediumint unsigned", "16777215", 16777215),
    ("int", "-2147483648", -2147483648),
    ("int unsigned", "4294967295", 4294967295),
    ("bigint", "-9223372036854775808", -9223372036854775808),
    ("bigint unsigned", "18446744073709551615", 18446744073709551615),
    ("year", "2155", 2155),
    ("year", "0", 0),
    ("year", "1901", 1901),
    ("float", "0.1", 0.1),
    ("float", "-3.4e38", -3.4e38),
    ("float", "16777217", 16777216.0),
    ("double", "0.1", 0.1),
    ("double", "-1.7976931348623157e308", -1.7976931348623157e308),
    ("double", "5e-324", 5e-324),
    ("decimal(10,2)", "-1.5", "-1.50"),
    ("decimal(5,5)", "-0.00001", "-0.00001"),
    ("decimal(9,0)", "-5", "-5"),
    ("decimal(18,9)", "123456789.987654321", "123456789.987654321"),
    ("decimal(20,10)", "-1234567890.0123456789", "-1234567890.0123456789"),
    ("decimal(65,30)", "-1e-30", "-0.000000000000000000000000000001"),
    (
        "decimal(65,30)",
        "-99999999999999999999999999999999999.999999999999999999999999999999",
        "-99999999999999999999999999999999999.999999999999999999999999999999",
    ),
    ("decimal(65,0)", "1" + "0" * 64, "1" + "0" * 64),
    ("bit(1)", "b'1'", "1"),
    ("bit(10)", "b'1010101010'", "1010101010"),
    ("bit(64)", "b'1'", "0" * 63 + "1"),
    ("date", "'9999-12-31'", "9999-12-31"),
    ("date", "'1000-01-01'", "1000-01-01"),
    ("date", "'0000-00-00'", None),
    ("date", "'2020-02-00'", None),
    ("datetime", "'2026-11-24 20:52:49'", "2026-11-24T20:52:49"),
    ("datetime(1)", "'2020-01-01 00:00:00.1'", "2020-01-01T00:00:00.1"),
    ("datetime(2)", "'2020-01-01 00:00:00.12'", "2020-01-01T00:00:00.12"),
    ("datetime(3)", "'2020-01-01 00:00:00.123'", "2020-01-01T00:00:00.123"),
    ("datetime(5)", "'2020-01-01 00:00:00.12345'", "2020-01-01T00:00:00.12345"),
    ("datetime(6)", "'9999-12-31 23:59:59.999999'", "9999-12-31T23:59:59.999999"),
    ("datetime(6)", "'0000-00-00 00:00:00'", None),
    ("timestamp null", "'2026-11-24 20:52:49'", "2026-11-24T20:52:49Z"),
    ("timestamp(3) null", "'2001-09-09 01:46:40.5'", "2001-09-09T01:46:40.500Z"),
    ("timestamp(6) null", "'2038-01-19 03:14:07.999999'", "2038-01-19T03:14:07.999999Z"),
    ("timestamp null", "'0000-00-00 00:00:00'", None),
    ("timestamp(1) null", "'0000-00-00 00:00:00'", None),
    ("time", "'-838:59:59'", "-838:59:59"),
    ("time", "'838:59:59'", "838:59:59"),
    ("time(1)", "'-00:00:00.1'", "-00:00:00.1"),
    ("time(2)", "'-00:00:01.25'", "-00:00:01.25"),
    ("time(3)", "'00:00:01.5'", "00:00:01.500"),
    ("time(6)", "'-838:59:58.000001'", "-838:59:58.000001"),
    ("time(6)", "'00:00:00'", "00:00:00.000000"),
    ("enum('x','it''s','é')", "'é'", "é"),
    ("enum('x','it''s','é')", "'it''s'", "it's"),
    ("enum('x','y')", "'nope'", ""),
    ("set('p','q','r')", "'r,p'", "p,r"),
    ("set('p','q','r')", "''", ""),
    ("char(5)", "'aé '", "aé"),
    ("char(100)", "'x'", "x"),
    ("varchar(20)", "'\\\\ \" \\n é 漢 😀'", '\\ " \n é 漢 😀'),
    ("varchar(300)", "repeat('é', 300)", "é" * 300),
    ("varchar(5)", "''", ""),
    ("tinytext", "'x'", "x"),
    ("text", "repeat('ab', 500)", "ab" * 500),
    ("mediumtext", "repeat('ab', 50000)", "ab" * 50000),
    ("longtext", "'x'", "x"),
    ("varchar(10) character set latin1", "'é€\u0081'", "é€\u0081"),
    ("varchar(10) character set utf16", "'é😀'", "é😀"),
    ("char(5) character set utf16", "'é'", "é"),
    ("varchar(10) character set utf32", "'é😀'", "é😀"),
    ("varchar(10) character set ucs2", "'é漢'", "é漢"),
    ("varchar(10) character set utf8mb3", "'é漢'", "é漢"),
    ("varchar(10) character set koi8r", "'Привет'", "Привет"),
    ("varchar(10) character set cp1251", "'Привет'", "Привет"),
    ("varchar(10) character set latin2", "'łódź'", "łódź"),
    ("varchar(10) character set greek", "'αβγ'", "αβγ"),
    ("varchar(10) character set sjis", "'日本'", "日本"),
    ("varchar(10) character set gbk", "'中文'", "中文"),
    ("varchar(10) character set big5", "'中文'", "中文"),
    ("varchar(10) character set euckr", "'한국'", "한국"),
    ("varchar(10) character set gb2312", "'中文'", "中文"),
    ("varchar(10) character set ujis", "'日本'", "日本"),
    ("text character set ascii", "'plain'", "plain"),
    ("enum('é','b') character set latin1", "'é'", "é"),
    ("binary(4)", "x'616200'", b64(b"ab\0\0")),
    ("binary(16)", "x'00'", b64(bytes(16))),
    ("varbinary(10)", "x'00ff00'", b64(b"\0\xff\0")),
    ("varbinary(300)", "x'00ff00'", b64(b"\0\xff\0")),
    ("tinyblob", "x'ff00'", b64(b"\xff\0")),
    ("blob", "x'ff00'", b64(b"\xff\0")),
    ("mediumblob", "x''", ""),
    ("longblob", "x'ff00'", b64(b"\xff\0")),
    ("point", "point(1, 2)", b64(POINT)),
    ("geometry", "point(1, 2)", b64(POINT)),
    ("linestring", "ST_GeomFromText('LINESTRING(0 1, 2 -3.5)')", b64(LINE)),
    ("polygon", "ST_GeomFromText('POLYGON((0 0, 1 0, 1 1, 0 0))')", b64(POLYGON)),
    (
        "multipoint",
        "ST_GeomFromText('MULTIPOINT(1 2)')",
        b64(struct.pack("<BII", 1, 4, 1) + POINT),
    ),
    (
        "multilinestring",
        "ST_GeomFromText('MULTILINESTRING((0 1, 2 -3.5))')",
        b64(struct.pack("<BII", 1, 5, 1) + LINE),
    ),
    (
        "multipolygon",
        "ST_GeomFromText('MULTIPOLYGON(((0 0, 1 0, 1 1, 0 0)))')",
        b64(struct.pack("<BII", 1, 6, 1) + POLYGON),
    ),
    (
        "geometrycollection",
        "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 2), LINESTRING(0 1, 2 -3.5))')",
        b64(COLLECTION),
    ),
]
MYSQL: list[tuple[str, str, object]] = [
    ("json", "'{\"a\": [1, -70000, 1.5, null, true, \"é\"], \"b\": {}}'",
     {"a": [1, -70000, 1.5, None, True, "é"], "b": {}}),
    ("json", "'18446744073709551615'", 18446744073709551615),
    ("json", "'-9223372036854775808'", -9223372036854775808),
    ("json", "'\"str\"'", "str"),
    ("json", "'[]'", []),
    ("json", "json_object('d', cast('2020-01-02 03:04:05.5' as datetime(6)))",
     {"d": "2020-01-02 03:04:05.500000"}),
    ("json", "json_object('t', cast('-10:00:00' as time))", {"t": "-10:00:00.000000"}),
    ("json", "json_object('d', cast('2020-01-02' as date))", {"d": "2020-01-02"}),
    ("json", "json_object('n', cast(-1.50 as decimal(10,2)))", {"n": -1.5}),
    ("json", "json_object('b', x'ff')", {"b": "base64:type15:/w=="}),
    ("json", "json_array(repeat('x', 70000))", ["x" * 70000]),
    ("vector(3)", "string_to_vector('[1,0.1,-2]')", [1.0, 0.1, -2.0]),
    ("point srid 4326", "ST_SRID(point(1, 2), 4326)", b64(POINT_4326)),
    ("varchar(10) character set gb18030", "'中文😀'", "中文😀"),
]  # fmt: skip
MARIADB: list[tuple[str, str, object]] = [
    ("json", "'{\"a\": 1}'", '{"a": 1}'),
    ("uuid", "'123e4567-e89b-12d3-a456-426614174000'", "123e4567-e89b-12d3-a456-426614174000"),
    ("uuid", "'c9077732-a294-490a-95ac-ea3ce5f2a4e8'", "c9077732-a294-490a-95ac-ea3ce5f2a4e8"),
    ("uuid", "'01890a5d-ac96-774b-bcce-b302099a8057'", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ("uuid", "'00000000-0000-0000-0000-000000000000'", "00000000-0000-0000-0000-000000000000"),
    ("uuid", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    ("inet6", "'::1'", "::1"),
    ("inet6", "'2001:db8::ff00:42:8329'", "2001:db8::ff00:42:8329"),
    ("inet6", "'::ffff:192.0.2.1'", "::ffff:192.0.2.1"),
    ("inet6", "'::192.0.2.1'", "::192.0.2.1"),
    ("inet6", "'::'", "::"),
    ("inet4", "'192.0.2.0'", "192.0.2.0"),
    ("varchar(200) compressed", "repeat('ab', 90)", "ab" * 90),
    ("text compressed", "repeat('é', 500)", "é" * 500),
    ("blob compressed", "repeat(x'00', 500)", b64(bytes(500))),
    ("text compressed", "'x'", "x"),
]


def cases(kind: Kind) -> list[tuple[str, str, object]]:
    return COMMON + (MARIADB if kind.mariadb else MYSQL)


def test_every_type_appears_as_documented(binlog_kind: Kind) -> None:
    log = Log(binlog_kind.type, binlog_kind.server)
    # a row has room for so many columns only
    wanted = cases(binlog_kind)
    groups = [wanted[start : start + 25] for start in range(0, len(wanted), 25)]
    for number, group in enumerate(groups):
        columns = ", ".join(f"c{index} {type_}" for index, (type_, _, _) in enumerate(group))
        values = ", ".join(value for _, value, _ in group)
        nulls = ", ".join(f"c{index} = NULL" for index in range(len(group)))
        log.run(
            "SET sql_mode = ''",
            f"CREATE TABLE t{number} (id int PRIMARY KEY, {columns})",
            f"INSERT INTO t{number} VALUES (1, {values})",
            f"UPDATE t{number} SET {nulls}",
        )
    inserted = [change for change in log.changes() if change.op == "c"]
    updated = [change for change in log.changes() if change.op == "u"]
    for change, nulled, group in zip(inserted, updated, groups, strict=True):
        row = after(change)
        for index, (type_, value, expected) in enumerate(group):
            assert (type_, value, row[f"c{index}"]) == (type_, value, expected)
        assert set(after(nulled).values()) <= {1, None}
        assert change.table is not None
        for index, (type_, _, _) in enumerate(group):
            named = change.table.columns[index + 1].type
            assert named == schema_type(type_, binlog_kind), type_


def schema_type(declared: str, kind: Kind) -> str:
    """How a declaration appears in the schema."""
    name = declared.partition(" character set")[0].removesuffix(" null")
    name = name.removesuffix(" compressed").partition(" srid")[0]
    if name == "json" and kind.mariadb:
        return "longtext"
    if name == "geometrycollection":
        return "geomcollection"
    return name


def test_dates_that_no_calendar_has_may_be_told_as_text(binlog_kind: Kind) -> None:
    log = Log(binlog_kind.type, binlog_kind.server, zero_dates="as_text")
    log.run(
        "SET sql_mode = ''",
        "CREATE TABLE t (id date PRIMARY KEY, a datetime(3), b timestamp(2) null, c date)",
        "INSERT INTO t VALUES ('0000-00-00', '0000-00-00', '0000-00-00', '2020-02-00')",
        "INSERT INTO t VALUES ('2020-01-00', '2020-02-30', NULL, '2020-02-03')",
    )
    zero, partly = log.changes()
    assert after(zero) == {
        "id": "0000-00-00",
        "a": "0000-00-00T00:00:00.000",
        "b": "0000-00-00T00:00:00.00",
        "c": "2020-02-00",
    }
    assert zero.key == '{"id":"0000-00-00"}'
    # the server itself makes zero of what is no date at all
    assert after(partly) == {
        "id": "2020-01-00",
        "a": "0000-00-00T00:00:00.000",
        "b": None,
        "c": "2020-02-03",
    }
