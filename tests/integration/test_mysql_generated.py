"""Generated tables and rows: what the log says, both ways decoded, is what the server shows."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.binlog_capture import Log, after
from tests.servers.binlog import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.binlog import Kind

pytestmark = pytest.mark.servers

TEXT = st.text(
    st.sampled_from("ab\"\\'{}%\n\t\x01\x7fé漢😀") | st.characters(exclude_categories=["Cs"]),
    max_size=20,
)
LATIN = st.text(st.sampled_from('ab"\\é€ÿ\x81'), max_size=20)


@dataclass(frozen=True)
class Made:
    """A type, values for it, and how a value that the server shows stands in the envelope."""

    ddl: str
    values: st.SearchStrategy[object]
    told: Callable[[object], object] = lambda value: value


def _decimal(precision: int, scale: int) -> Made:
    limit = 10**precision - 1
    numbers = st.integers(-limit, limit).map(lambda n: f"{n}e-{scale}")
    return Made(f"decimal({precision},{scale})", numbers, lambda value: f"{_of(value, Decimal):f}")


def _of(value: object, kind: type) -> object:
    assert isinstance(value, kind)
    return value


def _moment(scale: int) -> Callable[[object], object]:
    def told(value: object) -> object:
        assert isinstance(value, datetime)
        fraction = f".{value.microsecond // 10 ** (6 - scale):0{scale}d}" if scale else ""
        return f"{value:%Y-%m-%dT%H:%M:%S}{fraction}".rjust(19, "0")

    return told


def _zoned(scale: int) -> Callable[[object], object]:
    told = _moment(scale)
    return lambda value: f"{told(value)}Z"


def _duration(scale: int) -> Callable[[object], object]:
    def told(value: object) -> object:
        assert isinstance(value, timedelta)
        micros = value // timedelta(microseconds=1)
        sign, micros = ("-", -micros) if micros < 0 else ("", micros)
        seconds, micros = divmod(micros, 10**6)
        fraction = f".{micros // 10 ** (6 - scale):0{scale}d}" if scale else ""
        return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"

    return told


def _binary(value: object) -> object:
    assert isinstance(value, bytes)
    return base64.b64encode(value).decode()


MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2037, 12, 31))
TIMES = st.timedeltas(timedelta(hours=-838), timedelta(hours=838))
TYPES = [
    *(
        Made(f"{name}{sign}", st.integers(*bounds))
        for name, bits in (("tinyint", 8), ("smallint", 16), ("mediumint", 24), ("int", 32),
                           ("bigint", 64))
        for sign, bounds in (("", (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)),
                             (" unsigned", (0, 2**bits - 1)))
    ),
    Made("double", st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)),
    Made("year", st.integers(1901, 2155)),
    Made("bit(12)", st.integers(0, 4095), lambda value: f"{int.from_bytes(value):012b}"),  # type: ignore[arg-type]
    _decimal(5, 5), _decimal(18, 4), _decimal(65, 30), _decimal(9, 0),
    Made("date", st.dates(date(1000, 1, 1)), str),
    *(Made(f"datetime({n})", st.datetimes(datetime(1000, 1, 1)), _moment(n)) for n in range(1, 7)),
    Made("datetime", MOMENTS, _moment(0)),
    *(
        Made(f"timestamp({n}) null", MOMENTS, _zoned(n))
        for n in (1, 3, 6)
    ),
    *(Made(f"time({n})", TIMES, _duration(n)) for n in range(1, 7)),
    Made("varchar(60)", TEXT), Made("varchar(400)", TEXT), Made("tinytext", TEXT),
    Made("mediumtext", TEXT), Made("varchar(60) character set utf16", TEXT),
    Made("varchar(60) character set latin1", LATIN),
    Made("varbinary(40)", st.binary(max_size=40), _binary),
    Made("binary(8)", st.binary(max_size=8), _binary), Made("blob", st.binary(), _binary),
    Made("enum('a','é','\"')", st.sampled_from(["a", "é", '"'])),
    Made("set('a','é','c')", st.sampled_from(["", "a", "a,c", "é,c"])),
]  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Made], list[list[object]]]:
    columns = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=10))
    rows = st.tuples(*(st.none() | column.values for column in columns)).map(list)
    return columns, draw(st.lists(rows, min_size=1, max_size=8))


def test_the_log_says_what_the_server_shows(binlog_kind: Kind) -> None:
    log = Log(binlog_kind.type, binlog_kind.server)
    made: list[list[Made]] = []

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(tables())
    def fill(table: tuple[list[Made], list[list[object]]]) -> None:
        columns, rows = table
        name = f"t{len(made)}"
        made.append(columns)
        listed = ", ".join(f"c{index} {column.ddl}" for index, column in enumerate(columns))
        with connect(log.server, log.name) as connection, connection.cursor() as cursor:
            # what a column has no room for is rounded or cut, and shown so
            cursor.execute("SET sql_mode = '', time_zone = '+00:00'")
            cursor.execute(f"CREATE TABLE {name} (id int AUTO_INCREMENT PRIMARY KEY, {listed})")
            marks = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"INSERT INTO {name} VALUES (NULL, {marks})", rows)
            cursor.execute(f"UPDATE {name} SET id = id + 1000 WHERE id % 2 = 0")

    fill()
    last: dict[tuple[str, int], dict[str, object]] = {}
    for change in log.changes():
        assert change.table is not None
        row = after(change)
        before = json.loads(change.envelope)["before"]
        if before is not None:
            last.pop((change.table.name, before["id"]))
        last[change.table.name, int(str(row["id"]))] = row
    shown = 0
    for number, columns in enumerate(made):
        with connect(log.server, log.name) as connection, connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute(f"SELECT * FROM t{number}")
            for id_, *values in cursor.fetchall():
                shown += 1
                row = last[f"t{number}", id_]
                for index, (column, value) in enumerate(zip(columns, values, strict=True)):
                    expected = None if value is None else column.told(value)
                    assert row[f"c{index}"] == expected, (column.ddl, value)
    assert shown == len(last)


def test_a_number_behind_a_column_of_any_type_keeps_its_sign(binlog_kind: Kind) -> None:
    log = Log(binlog_kind.type, binlog_kind.server)
    further = ["float", "json", "text", "point", "date", "time", "timestamp null", "bit(1)"]
    listed = [
        f"c{index} {ddl}, s{index} bigint, u{index} bigint unsigned"
        for index, ddl in enumerate([*(column.ddl for column in TYPES), *further])
    ]
    signs = {f"s{index}": -1 - index for index in range(len(listed))}
    large = {f"u{index}": 2**64 - 1 - index for index in range(len(listed))}
    numbers = signs | large
    with connect(log.server, log.name) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE signs (id int PRIMARY KEY, {', '.join(listed)})")
        cursor.execute(
            f"INSERT INTO signs (id, {', '.join(numbers)})"
            f" VALUES (1, {', '.join(map(str, numbers.values()))})"
        )
    [change] = log.changes()
    row = after(change)
    assert {name: row[name] for name in numbers} == numbers
