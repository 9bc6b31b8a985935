"""The compiled reader of rows makes exactly what the obviously right one makes."""

from __future__ import annotations

import struct
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contracts.changes import Column, TableSchema
from connectors.errors import FatalError
from connectors.mysql.binlog.compiled import CompiledReader
from connectors.mysql.binlog.decimals import unpack_decimal
from connectors.mysql.binlog.events import Gtid, malformed
from connectors.mysql.binlog.fast_values import decimal
from connectors.mysql.binlog.gtids import MariadbGtids, MysqlGtids
from connectors.mysql.binlog.progress import Spot, decode_spots, encode_spots
from connectors.mysql.binlog.rows import ExactReader, RowsHead
from connectors.mysql.binlog.statements import What, classify
from connectors.mysql.binlog.table import Table
from connectors.mysql.binlog.types import DIGIT_BYTES, Kind, ValueType
from connectors.mysql.dsn import parse_dsn
from connectors.mysql.setup.patterns import parse_patterns, wanted
from tests.unit.binlog_catalog import CHARSETS

CHARACTERS = st.sampled_from("\"\\'{}%\n\r\t\x01\x1f\x7f\x85é漢😀\0") | st.characters(
    exclude_categories=["Cs"]
)
TEXT = st.text(CHARACTERS, max_size=30)
MINUTES = st.integers(0, 59)


def little(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def pack_decimal(number: int, precision: int, scale: int) -> bytes:
    """`number` with the point `scale` digits from its end, as `decimal2bin` does it: by digits."""
    digits = f"{abs(number):0{precision}d}"
    whole, behind = digits[: precision - scale], digits[precision - scale :]
    first = len(whole) % 9
    groups = [whole[:first], *(whole[at : at + 9] for at in range(first, len(whole), 9))]
    groups += [behind[at : at + 9] for at in range(0, len(behind), 9)]
    data = b"".join(int(part).to_bytes(DIGIT_BYTES[len(part)], "big") for part in groups if part)
    if number < 0:
        data = bytes(byte ^ 0xFF for byte in data)
    return bytes([data[0] ^ 0x80]) + data[1:]


def decimals(precision: int, scale: int) -> st.SearchStrategy[bytes]:
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(lambda number: pack_decimal(number, precision, scale))


def fractions(scale: int) -> st.SearchStrategy[bytes]:
    size = (scale + 1) // 2
    return st.integers(0, 10**scale - 1).map(
        lambda number: (number * 10 ** (scale & 1)).to_bytes(size, "big")
    )


@st.composite
def datetimes(draw: st.DrawFn, scale: int) -> bytes:
    year, month = draw(st.integers(0, 9999)), draw(st.integers(0, 12))
    day, hour = draw(st.integers(0, 31)), draw(st.integers(0, 23))
    packed = ((year * 13 + month) << 5 | day) << 17
    packed |= hour << 12 | draw(MINUTES) << 6 | draw(MINUTES)
    return (packed + 0x8000000000).to_bytes(5, "big") + draw(fractions(scale))


@st.composite
def times(draw: st.DrawFn, scale: int) -> bytes:
    whole = draw(st.integers(0, 838)) << 12 | draw(MINUTES) << 6 | draw(MINUTES)
    behind = draw(fractions(scale))
    bits = 8 * len(behind)
    packed = (whole << bits) | int.from_bytes(behind, "big")
    packed *= draw(st.sampled_from([1, -1]))
    return (packed + (0x800000 << bits)).to_bytes(3 + len(behind), "big")


def floats(format_: str) -> st.SearchStrategy[bytes]:
    width: Literal[32, 64] = 32 if format_ == "f" else 64
    numbers = st.floats(width=width, allow_nan=False, allow_infinity=False)
    return numbers.map(lambda number: struct.pack(f"<{format_}", number))


def prefixed(values: st.SearchStrategy[bytes], width: int) -> st.SearchStrategy[bytes]:
    return values.map(lambda value: little(len(value), width) + value)


def numbered(
    largest: int, size: int, order: Literal["little", "big"] = "little"
) -> st.SearchStrategy[bytes]:
    return st.integers(0, largest).map(lambda number: number.to_bytes(size, order))


def integer(size: int, *, signed: bool) -> tuple[ValueType, st.SearchStrategy[bytes]]:
    return ValueType(Kind.INTEGER, "int", size, signed=signed), st.binary(
        min_size=size, max_size=size
    )


def coded(name: str, width: int) -> tuple[ValueType, st.SearchStrategy[bytes]]:
    charset = next(charset for charset in CHARSETS.values() if charset.name == name)
    codec = {"utf8mb4": "utf-8", "latin1": "latin-1", "utf16": "utf-16-be"}[name]
    texts = TEXT
    if name == "latin1":
        texts = st.text(st.characters(max_codepoint=255), max_size=30)
    return ValueType(Kind.TEXT, name, prefix=width, charset=charset), prefixed(
        texts.map(lambda text: text.encode(codec)), width
    )


TYPES: list[tuple[ValueType, st.SearchStrategy[bytes]]] = [
    *(integer(size, signed=signed) for size in (1, 2, 3, 4, 8) for signed in (True, False)),
    (ValueType(Kind.FLOAT, "float", 4), floats("f")),
    (ValueType(Kind.DOUBLE, "double", 8), floats("d")),
    *(
        (
            ValueType(
                Kind.DECIMAL,
                "decimal",
                len(pack_decimal(0, precision, scale)),
                digits=precision,
                scale=scale,
            ),
            decimals(precision, scale),
        )
        for precision, scale in ((5, 5), (9, 0), (10, 2), (18, 9), (20, 10), (65, 30), (65, 0))
    ),
    *(
        (ValueType(Kind.DATETIME, "datetime", 5 + (s + 1) // 2, scale=s), datetimes(s))
        for s in range(7)
    ),
    *((ValueType(Kind.TIME, "time", 3 + (s + 1) // 2, scale=s), times(s)) for s in range(7)),
    *(
        (
            ValueType(Kind.TIMESTAMP, "timestamp", 4 + (s + 1) // 2, scale=s),
            st.tuples(st.integers(1, 2**31 - 1) | st.just(0), fractions(s)).map(
                lambda parts: parts[0].to_bytes(4, "big")
                + (parts[1] if parts[0] else bytes(len(parts[1])))
            ),
        )
        for s in range(7)
    ),
    (
        ValueType(Kind.DATE, "date", 3),
        st.tuples(st.integers(0, 9999), st.integers(0, 12), st.integers(0, 31)).map(
            lambda date: little(date[0] << 9 | date[1] << 5 | date[2], 3)
        ),
    ),
    (ValueType(Kind.YEAR, "year", 1), st.binary(min_size=1, max_size=1)),
    (ValueType(Kind.BIT, "bit(10)", 2, digits=10), numbered(1023, 2, "big")),
    (ValueType(Kind.ENUM, "enum", 1, values=("é", '"')), numbered(2, 1)),
    (ValueType(Kind.SET, "set", 1, values=("a", "é")), numbered(3, 1)),
    coded("utf8mb4", 1),
    coded("utf8mb4", 3),
    coded("latin1", 2),
    coded("utf16", 4),
    (ValueType(Kind.BINARY, "blob", prefix=3), prefixed(st.binary(max_size=300), 3)),
    (ValueType(Kind.BINARY, "binary(8)", prefix=1, pad=8), prefixed(st.binary(max_size=8), 1)),
    (
        ValueType(Kind.JSON, "json", prefix=4),
        prefixed(
            st.sampled_from([b"", b"\4\0", b"\4\1", b"\x0c\3a\"b", b"\5\xff\xff", b"\2\0\0\4\0"]), 4
        ),
    ),
    (
        ValueType(Kind.VECTOR, "vector", prefix=4),
        prefixed(st.lists(floats("f"), max_size=4).map(b"".join), 4),
    ),
]  # fmt: skip


@st.composite
def tables_with_rows(draw: st.DrawFn) -> tuple[Table, list[bytes]]:
    chosen = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=12))
    names = draw(
        st.lists(TEXT.filter(bool), min_size=len(chosen), max_size=len(chosen), unique=True)
    )
    types = tuple(type_ for type_, _ in chosen)
    able = [i for i, type_ in enumerate(types) if type_.kind not in (Kind.JSON, Kind.VECTOR)]
    key = tuple(sorted(draw(st.sets(st.sampled_from(able), max_size=2)))) if able else ()
    columns = tuple(
        Column(name, type_.name, type_.json) for name, type_ in zip(names, types, strict=True)
    )
    schema = TableSchema("s", "d", "t", columns, tuple(names[index] for index in key), "mysql")
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        nulls, data = 0, b""
        for index, (_, values) in enumerate(chosen):
            if index not in key and draw(st.integers(0, 4)) == 0:
                nulls |= 1 << index
            else:
                data += draw(values)
        rows.append(little(nulls, (len(chosen) + 7) // 8) + data)
    return Table(schema, types, key), rows


@given(tables_with_rows(), st.booleans())
def test_both_readers_agree(made: tuple[Table, list[bytes]], zero_dates: bool) -> None:
    table, rows = made
    event, start = b"\0" * 20 + b"".join(rows), 20
    everything = (1 << len(table.types)) - 1
    head = RowsHead(len(table.types), everything, everything, start)
    exact = ExactReader(table, zero_dates=zero_dates)
    compiled = CompiledReader(table, zero_dates=zero_dates)
    nulls, at, got = (len(table.types) + 7) // 8, start, []
    all_text = str(event, "latin-1")
    while at < len(event):
        behind = at + nulls
        plain, end = compiled.plain[event[at:behind]](event, all_text, behind)
        text, key, json_nulls, at = compiled.keyed[event[at:behind]](event, all_text, behind)
        assert (plain, end) == (text, at)
        got.append((text, key, json_nulls))
    images = exact.read(event, len(event), "c", head)
    assert got == [(image.after, image.key, image.json_nulls) for image in images]


@given(st.integers(1, 65), st.integers(0, 30), st.integers())
def test_decimals(precision: int, scale: int, number: int) -> None:
    scale = min(scale, precision)
    number = int(str(abs(number))[:precision]) * (-1 if number < 0 else 1)
    packed = pack_decimal(number, precision, scale)
    expected = f"{abs(number):0{scale + 1}d}"
    expected = f"{expected[:-scale]}.{expected[-scale:]}" if scale else expected
    expected = f"-{expected}" if number < 0 else expected
    assert unpack_decimal(packed, precision, scale) == expected
    assert decimal(precision, scale)(packed) == f'"{expected}"'


NUMBERS = st.lists(st.integers(1, 40), max_size=60)


@given(NUMBERS, NUMBERS)
def test_gtid_sets_are_sets(added: list[int], removed: list[int]) -> None:
    source = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee:"
    gtids, numbers = MysqlGtids(f"{source}2-3:7"), {2, 3, 7}
    for number in added:
        gtids.add(Gtid(source, number))
        numbers.add(number)
    for number in removed:
        gtids.discard(Gtid(source, number))
        numbers.discard(number)
    assert {n for n in range(1, 50) if Gtid(source, n) in gtids} == numbers
    again = MysqlGtids(str(gtids))
    assert str(again) == str(gtids)
    assert {n for n in range(1, 50) if Gtid(source, n) in again} == numbers


def test_gtid_sets_with_tags_and_of_mariadb() -> None:
    uuid = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
    gtids = MysqlGtids(f"{uuid.upper()}:1-3:tag_1:5:7,\n{uuid}:4")
    assert str(gtids) == f"{uuid}:1-4,{uuid}:tag_1:5:7"
    assert gtids.encode()[:8] == (1 << 56 | 2 << 8 | 1).to_bytes(8, "little")
    assert MysqlGtids(f"{uuid}:1").encode()[:8] == (1).to_bytes(8, "little")
    domains = MariadbGtids("1-2-9,0-1-5")
    domains.add(Gtid("0-3-", 6))
    assert str(domains) == "0-3-6,1-2-9"
    for bad in ("x", f"{uuid}:0", f"{uuid}:5-4", "1-2"):
        with pytest.raises(FatalError):
            MysqlGtids(bad)
    with pytest.raises(FatalError):
        MariadbGtids("1-2")


@given(
    st.lists(
        st.tuples(st.sampled_from(["0-1-", "0-2-"]), st.integers(1, 9), st.integers(1, 2)),
        max_size=40,
    )
)
def test_spots_are_read_as_they_were_written(parts: list[tuple[str, int, int]]) -> None:
    spots, offset, number = [], 4, 0
    for source, step, file in parts:
        offset, number = offset + step * 1000, number + (1 if step < 7 else 2)
        spots.append(Spot(file, offset, Gtid(source, number)))
    assert decode_spots(encode_spots(spots)) == spots


@pytest.mark.parametrize(
    ("text", "what", "names"),
    [
        ("BEGIN", What.BEGIN, ()),
        ("START TRANSACTION", What.BEGIN, ()),
        ("COMMIT /* x */", What.COMMIT, ()),
        ("ROLLBACK", What.ROLLBACK, ()),
        ("ROLLBACK TO `a``b`", What.ROLLBACK_TO, ("a`b",)),
        ("rollback work to savepoint x", What.ROLLBACK_TO, ("x",)),
        ("SAVEPOINT `x y`", What.SAVEPOINT, ("x y",)),
        ("XA START X'61',X'',1", What.XA, ("START", "X'61',X'',1")),
        ("XA COMMIT X'61',X'',1 ONE PHASE", What.XA, ("COMMIT", "X'61',X'',1")),
        ("truncate table `a`.`b`", What.TRUNCATE, ("a", "b")),
        ("/*!40000 TRUNCATE b */", What.TRUNCATE, ("b",)),
        ("/* a */ -- b\n# c\n CREATE TABLE t (a int)", What.DDL, ()),
        ("/*M!100100 ALTER TABLE t */", What.DDL, ()),
        ("GRANT ALL ON x TO y", What.DDL, ()),
        ("# Dummy event", What.NOTHING, ()),
        ("INSERT INTO t VALUES (1)", What.ROWS, ()),
        ("/* x */ update t SET a = 1", What.ROWS, ()),
        ("WITH x AS (SELECT 1) DELETE FROM t", What.ROWS, ()),
        ("(SELECT f())", What.ROWS, ()),
        ("FROBNICATE", What.ROWS, ()),
        ("CREATE TABLE t (PRIMARY KEY (a)) SELECT a FROM u", What.ROWS, ()),
        ("create or replace table t as\nwith x as (select 1) select * from x", What.ROWS, ()),
        ("/* x */ CREATE TABLE IF NOT EXISTS `a b`.t TABLE u", What.ROWS, ()),
        ("CREATE TABLE t (a int) AS VALUES ROW(1), ROW(2)", What.ROWS, ()),
        ("CREATE TABLE t (a int COMMENT 'it''s \\' a select', `select` int)", What.DDL, ()),
        ("CREATE TABLE db.select (a int) -- select\n", What.DDL, ()),
        (
            "CREATE TABLE t (a int) PARTITION BY RANGE (a) (PARTITION p VALUES LESS THAN (1))",
            What.DDL,
            (),
        ),
        ("CREATE TABLE t LIKE u", What.DDL, ()),
        ("CREATE TEMPORARY TABLE t SELECT 1", What.DDL, ()),
        ("CREATE VIEW v AS SELECT 1", What.DDL, ()),
    ],
)
def test_statements(text: str, what: What, names: tuple[str, ...]) -> None:
    statement = classify(text)
    assert (statement.what, statement.names) == (what, names)


def test_patterns() -> None:
    patterns = parse_patterns(["shop.order_*", "`odd db`.`a*b`"])
    matches = wanted(patterns, fold=False)
    assert matches("shop", "order_1")
    assert not matches("Shop", "order_1")
    assert wanted(patterns, fold=True)("Shop", "ORDER_1")
    assert matches("odd db", "a*b")
    assert not matches("odd db", "axb")
    assert not wanted(parse_patterns(["*.*"]), fold=False)("mysql", "user")
    for bad in ("x", "a.b.c", "`a.b", ""):
        with pytest.raises(FatalError):
            parse_patterns([bad])


def test_dsns() -> None:
    dsn = parse_dsn("mysql://u%40x:p%2F@h1,h2:3307,[::1]:3308/?tls=required")
    assert (dsn.user, dsn.password) == ("u@x", "p/")
    assert dsn.hosts == (("h1", 3306), ("h2", 3307), ("::1", 3308))
    assert dsn.tls == "required"
    assert parse_dsn("mariadb://u@h/?ca=/x").tls == "verify-full"
    assert "p/" not in repr(dsn)
    for bad in (
        "h",
        "mysql://h",
        "mysql://u:s3cret@x@h/",
        "mysql://u:s3cret@h:x/",
        "mysql://u:s3cret@h/db",
        "mysql://u:s3cret@h/?nope=1",
        "mysql://u:s3cret@h/?tls=maybe",
    ):
        with pytest.raises(FatalError) as caught:
            parse_dsn(bad)
        assert "s3cret" not in str(caught.value)


def test_malformed_events_tell_their_type() -> None:
    assert "type 30" in str(malformed(b"\0\0\0\0\x1e" + bytes(20), "it is odd"))
