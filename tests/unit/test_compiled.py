"""The compiled reader of row changes makes exactly what the obviously right one makes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import FatalError
from connectors.postgres.pgoutput.compiled import FIRST_VALUE, SHORT, CompiledReader
from connectors.postgres.pgoutput.messages import UNCHANGED, Relation
from connectors.postgres.pgoutput.parser import parse
from connectors.postgres.pgoutput.rows import ExactReader
from connectors.postgres.pgoutput.table import describe
from connectors.postgres.pgoutput.types import TypeResolver
from tests.unit import wal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.postgres.pgoutput.table import Table
    from tests.unit.wal import Cell

OID = 16385
TAIL = '},"op":"c","total_order":'

# No NUL: PostgreSQL's text has none. The characters at which careless code breaks come often.
CHARACTERS = st.sampled_from(
    "tnubNK\"\\'{}%\n\r\t\x01\x1f\x7f\x85\xa0é漢😀\u2028,;$"
) | st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS, max_size=40) | st.builds(
    lambda text, times: (text * times)[: times + 5],
    st.text(CHARACTERS, min_size=1, max_size=4),
    st.sampled_from([110, 116, 249, 250, 251, 255, 256, 257, 300, 507, 29691]),
)
DIGITS = st.integers(-(2**63), 2**63 - 1).map(str)
STAMPS = st.sampled_from(
    [
        "2026-11-22 19:45:06",
        "2026-11-22 19:45:06.123456",
        "10000-01-01 00:00:00",
        "294276-12-31 23:59:59.999999",
        "0001-01-01 00:00:00 BC",
        "infinity",
        "-infinity",
    ]
)


def _zoned(text: str) -> str:
    if "infinity" in text:
        return text
    return text.replace(" BC", "+00 BC") if text.endswith("BC") else text + "+00"


def _array(elements: st.SearchStrategy[str], *, quoted: bool) -> st.SearchStrategy[str]:
    def write(items: list[str | None]) -> str:
        texts = ["NULL" if item is None else _element(item, quoted=quoted) for item in items]
        return "{" + ",".join(texts) + "}"

    one = st.lists(elements | st.none(), max_size=4).map(write)
    return one | one.filter(lambda text: text != "{}").map(lambda text: f"[0:3][-1:2]={{{text}}}")


def _element(text: str, *, quoted: bool) -> str:
    plain = text and text.upper() != "NULL" and not set(text) & set('{},;"\\ \t\n\v\f\r')
    if plain or not quoted:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


VALUES: dict[int, st.SearchStrategy[str]] = {
    20: DIGITS,
    23: DIGITS,
    25: TEXT,
    1043: TEXT,
    16: st.sampled_from("tf"),
    17: st.binary(max_size=200).map(lambda data: "\\x" + data.hex()),
    114: TEXT.map(lambda text: json.dumps({text: [text, 1.10]}, ensure_ascii=False))
    | st.sampled_from(["null", " \n\tnull\r ", '"null"', "[null] ", "7\n", "null" + " " * 300]),
    3802: st.sampled_from(["null", '"null"', '{"a": null}', "[]", "true"]),
    701: st.floats().map(
        lambda number: {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(
            str(number), str(number)
        )
    ),
    1700: st.decimals(allow_nan=False, allow_infinity=False).map("{:f}".format),
    1082: st.dates().map(str) | st.just("0044-03-15 BC"),
    1114: STAMPS,
    1184: STAMPS.map(_zoned),
    1016: _array(DIGITS, quoted=False),
    1009: _array(TEXT, quoted=True),
    1231: _array(DIGITS, quoted=False),
    1185: _array(STAMPS.map(_zoned), quoted=True),
    1000: _array(st.sampled_from("tf"), quoted=False),
    3807: _array(TEXT.map(lambda text: json.dumps([text])), quoted=True),
    999_999: TEXT,  # a type that nobody knows
}
NAMES = st.text(CHARACTERS, min_size=1, max_size=12)


def make_table(columns: Sequence[tuple[str, int, bool]], identity: str = "d") -> Table:
    relation = parse(wal.relation(OID, "t", columns, identity=identity))
    assert isinstance(relation, Relation)
    catalog = wal.FakeCatalog(keys={OID: tuple(name for name, _, key in columns if key)})
    return describe(relation, "shop", TypeResolver(catalog), catalog)


def outcome(reader: ExactReader | CompiledReader, frame: bytes) -> object:
    try:
        return reader.read(frame)
    except FatalError as error:
        return error.code


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = st.tuples(NAMES, st.sampled_from(sorted(VALUES)), st.booleans())
    drawn = draw(st.lists(columns, max_size=6, unique_by=lambda column: column[0]))
    return make_table(drawn, draw(st.sampled_from("dfi")))


@st.composite
def rows(draw: st.DrawFn, table: Table, *, sparse: bool = True) -> list[Cell]:
    cells: list[Cell] = []
    for column in table.relation.columns:
        value: st.SearchStrategy[Cell] = VALUES[column.type_oid]
        if sparse:
            value = value | st.none() | st.just(UNCHANGED)
        cells.append(draw(value))
    return cells


@st.composite
def changes(draw: st.DrawFn) -> tuple[Table, bytes]:
    table = draw(tables())
    row = rows(table)
    choices = [
        st.builds(lambda new: wal.insert(OID, new), row),
        st.builds(lambda new: wal.update(OID, new), row),
        st.builds(lambda new, old: wal.update(OID, new, old, "O"), row, row),
        st.builds(lambda new, old: wal.update(OID, new, old, "K"), row, row),
        st.builds(lambda old: wal.delete(OID, old, "K"), row),
        st.builds(lambda old: wal.delete(OID, old, "O"), row),
    ]
    return table, wal.xlog(1, draw(st.one_of(choices)))


@settings(max_examples=300, deadline=None)
@given(changes())
def test_any_change_reads_the_same(change: tuple[Table, bytes]) -> None:
    table, frame = change
    exact = outcome(ExactReader(table), frame)
    assert outcome(CompiledReader(table), frame) == exact
    assert outcome(CompiledReader(table), frame[:30] + frame[30:]) == exact
    if isinstance(exact, tuple):
        for text in (exact[0], exact[1], exact[2] or "null"):
            json.loads(text.encode("latin-1"))
        assert exact[2] is None or exact[2].isascii()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_spliced_row_reads_the_same(data: st.DataObject) -> None:
    table = data.draw(tables())
    cells = data.draw(rows(table, sparse=data.draw(st.booleans())))
    frame = wal.xlog(1, wal.insert(OID, cells))
    pieces = str(frame[FIRST_VALUE:], "latin-1").split(SHORT)
    short = all(isinstance(cell, str) and len(cell.encode()) < 256 for cell in cells)
    assert (len(pieces) == len(cells) + 1) == short
    if short:
        exact = ExactReader(table).read(frame)
        splice = CompiledReader(table).splice
        envelope, key, json_nulls = splice(pieces, ',"source":{"lsn":', 77, TAIL, 3)
        assert (key, json_nulls) == (exact.key, exact.json_nulls)
        text = f'{{"before":null,"after":{exact.after},"source":{{"lsn":77{TAIL}3}}}}'
        assert envelope == text.encode("latin-1")


@settings(max_examples=150, deadline=None)
@given(changes(), st.data())
def test_a_damaged_change_is_read_the_same_or_refused(
    change: tuple[Table, bytes], data: st.DataObject
) -> None:
    table, frame = change
    size = data.draw(st.integers(26, len(frame)))
    for damaged in (frame[:size], frame + b"n"):
        exact, compiled = (
            outcome(ExactReader(table), damaged),
            outcome(CompiledReader(table), damaged),
        )
        assert compiled == exact


@pytest.mark.parametrize(
    "message",
    [
        wal.update(OID, ["1"], ["2"]).replace(b"N\0\1", b""),  # no head of the new row
        wal.update(OID, ["1"], ["2"]).replace(b"N\0\1", b"N\0\2"),
        wal.update(OID, [], []),
        wal.update(OID, [None], [None]).replace(b"nN\0\1n", b"N\0\1nN\0\1"),
        wal.insert(OID, ["1"]) + b"N\0\1n",
        wal.insert(OID, ["1"]).replace(b"N", b"O"),
        wal.delete(OID, ["1"]).replace(b"K", b"N"),
        wal.delete(OID, ["1"]) + b"N\0\1n",
        wal.truncate(OID, options=0),
    ],
)
def test_what_makes_no_row_is_refused(message: bytes) -> None:
    table = make_table([("id", 23, True)])
    for reader in (ExactReader(table), CompiledReader(table)):
        assert outcome(reader, wal.xlog(1, message)) == "postgres.malformed_message"


NASTY = [
    'a"b',
    "c'd",
    "{e}",
    "{{f!r}}",
    "g\\h\\n",
    "i%sj%",
    "k\nl\r\t",
    "é漢😀",
    "__import__('os')",
    '"""',
    "c0",
    "pieces",
    "\x01\x7f\x85\u2028",
    "N" * 63,
]


def test_names_of_columns_are_never_code() -> None:
    table = make_table([(name, 25, True) for name in NASTY])
    frame = wal.xlog(1, wal.insert(OID, [name[::-1] for name in NASTY]))
    reader = CompiledReader(table)
    assert reader.read(frame) == ExactReader(table).read(frame)
    envelope, key, _ = reader.splice(
        str(frame[FIRST_VALUE:], "latin-1").split(SHORT), ',"source":{"lsn":', 1, "},", 0
    )
    expected = {name: name[::-1] for name in NASTY}
    assert json.loads(reader.read(frame).after.encode("latin-1")) == expected
    assert json.loads(envelope.replace(b"},0}}", b"}}"))["after"] == expected
    assert key is not None
    assert key.isascii()
    assert json.loads(key) == expected


def test_a_table_of_1600_columns() -> None:
    types = sorted(VALUES)
    columns = [(f"c{{{index}}}", types[index % 4], index < 2) for index in range(1600)]
    table = make_table(columns)
    cells: list[Cell] = ["t" if type_ == 16 else "17" for _, type_, _ in columns]
    cells = [
        "\\x00" if type_ == 17 else cell for cell, (_, type_, _) in zip(cells, columns, strict=True)
    ]
    frame = wal.xlog(1, wal.insert(OID, cells))
    reader = CompiledReader(table)
    exact = ExactReader(table).read(frame)
    assert reader.read(frame) == exact
    pieces = str(frame[FIRST_VALUE:], "latin-1").split(SHORT)
    envelope, key, _ = reader.splice(pieces, ',"source":{"lsn":', 1, "},", 0)
    assert envelope.startswith(f'{{"before":null,"after":{exact.after}'.encode("latin-1"))
    assert key == exact.key
    cells[700] = None
    frame = wal.xlog(1, wal.insert(OID, cells))
    assert reader.read(frame) == ExactReader(table).read(frame)


def test_unchanged_values_are_filled_from_the_old_row() -> None:
    table = make_table([("id", 23, True), ("a", 25, False), ("b", 25, False)], "f")
    frame = wal.xlog(1, wal.update(OID, ["1", UNCHANGED, UNCHANGED], ["1", "x" * 500, None], "O"))
    for reader in (ExactReader(table), CompiledReader(table)):
        image = reader.read(frame)
        after = json.loads(image.after)
        assert after == {"id": 1, "a": "x" * 500, "b": "__debezium_unavailable_value"}
        assert image.unavailable == ("b",)
        assert image.key == '{"id":1}'


def test_json_nulls_are_named_and_sql_nulls_are_not() -> None:
    columns = [("id", 23, True), ("a", 114, False), ("b", 3802, False), ("c", 25, False)]
    table = make_table([*columns, ("d", 3807, False)], "f")
    nulls = ["1", " null\n", "null", "null", "{NULL,null}"]
    rows: list[tuple[bytes, tuple[str, ...]]] = [
        (wal.insert(OID, nulls), ("a", "b")),
        (wal.insert(OID, ["1", "null", None, None, None]), ("a",)),
        (wal.insert(OID, ["1", '"null"', "null", "x" * 300, None]), ("b",)),
        (wal.insert(OID, ["1", "null" + " " * 300, UNCHANGED, "", None]), ("a",)),
        (wal.insert(OID, ["1", None, None, None, None]), ()),
        (wal.update(OID, ["1", UNCHANGED, UNCHANGED, "", None], nulls, "O"), ("a", "b")),
        (wal.update(OID, ["1", "{}", None, "", None], nulls, "O"), ()),
        (wal.delete(OID, nulls, "O"), ()),
    ]
    for reader in (ExactReader(table), CompiledReader(table)):
        assert [reader.read(wal.xlog(1, row)).json_nulls for row, _ in rows] == [
            names for _, names in rows
        ]


def test_an_old_key_holds_the_key_only() -> None:
    table = make_table([("a", 25, False), ("id", 23, True)])
    update = wal.xlog(1, wal.update(OID, [UNCHANGED, "2"], [None, "1"], "K"))
    delete = wal.xlog(1, wal.delete(OID, [None, "1"], "K"))
    for reader in (ExactReader(table), CompiledReader(table)):
        assert reader.read(update) == (
            '{"id":1}',
            '{"a":"__debezium_unavailable_value","id":2}',
            '{"id":2}',
            ("a",),
            (),
        )
        assert reader.read(delete) == ('{"id":1}', "null", '{"id":1}', (), ())


def test_a_key_that_is_not_in_the_log_is_an_error() -> None:
    table = make_table([("id", 25, True), ("a", 25, False)])
    frame = wal.xlog(1, wal.update(OID, [UNCHANGED, "2"]))
    filled = wal.xlog(1, wal.update(OID, [UNCHANGED, "2"], ["long", None], "K"))
    for reader in (ExactReader(table), CompiledReader(table)):
        assert outcome(reader, frame) == "postgres.key_unavailable"
        assert reader.read(filled).key == '{"id":"long"}'


@pytest.mark.parametrize(
    ("type_oid", "value"),
    [(16, "x"), (17, "abc"), (17, "\\xzz"), (701, "inf"), (1184, "2026-11-22 19:45:06+02")],
)
@pytest.mark.parametrize("null", [False, True])
def test_a_value_in_another_form_is_an_error(type_oid: int, value: str, null: bool) -> None:
    table = make_table([("v", type_oid, False), ("w", 25, False)])
    frame = wal.xlog(1, wal.insert(OID, [value, None if null else "x"]))
    for reader in (ExactReader(table), CompiledReader(table)):
        assert outcome(reader, frame) == "postgres.unexpected_value"
