"""What a snapshot of MySQL is made of, without a server."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contracts.changes import Change
from connectors.contracts.source import Checkpoint
from connectors.errors import FatalError
from connectors.mysql.binlog.chunks import ChunkBuffer
from connectors.mysql.binlog.events import Gtid
from connectors.mysql.binlog.gtids import MysqlGtids
from connectors.mysql.binlog.jsonb import double_text
from connectors.mysql.binlog.position import log_place, prefix
from connectors.mysql.binlog.progress import Progress, Resume, Spot, parse_resume
from connectors.mysql.binlog.types import Kind, ValueType
from connectors.mysql.setup.patterns import parse_patterns
from connectors.mysql.snapshot.columns import CatalogColumn, members
from connectors.mysql.snapshot.queries import Paging
from connectors.mysql.snapshot.result_set import ResultSet
from connectors.mysql.snapshot.row_store import RowStore
from connectors.mysql.snapshot.splicing import json_text, unzero, values_of
from connectors.mysql.snapshot.tables import Described, KeyColumn
from connectors.mysql.snapshot.visibility import Places, SeenGtids, SeenPlace

SERVER = "7943eeb2-ead9-11f1-9cc2-02fc00000001"


def packet(payload: bytes) -> bytes:
    """A payload as packets; a long one goes on in the next."""
    whole = b""
    while True:
        piece, payload = payload[:0xFFFFFF], payload[0xFFFFFF:]
        whole += len(piece).to_bytes(3, "little") + b"\0" + piece
        if len(piece) < 0xFFFFFF:
            return whole


def row(*values: bytes | None) -> bytes:
    """A row of a text result set."""
    parts = []
    for value in values:
        if value is None:
            parts.append(b"\xfb")
        elif len(value) < 251:
            parts.append(bytes([len(value)]) + value)
        elif len(value) < 1 << 16:
            parts.append(b"\xfc" + len(value).to_bytes(2, "little") + value)
        else:
            parts.append(b"\xfd" + len(value).to_bytes(3, "little") + value)
    return b"".join(parts)


END = packet(b"\xfe\0\0\2\0")
ROWS: list[tuple[bytes | None, ...]] = [
    (b"1", None),
    (b"", b"x" * 300),
    (None, "é\0\t".encode()),
    (b"y" * 70_000, b"0"),
]


@pytest.mark.parametrize("size", [1, 3, 7, 100, 1 << 20])
def test_rows_are_cut_out_of_whatever_pieces_come(size: int) -> None:
    data = packet(b"\2") + packet(b"def") * 2 + END
    data += b"".join(packet(row(*values)) for values in ROWS) + END
    store = RowStore()
    result = ResultSet(store)
    for start in range(0, len(data), size):
        assert not result.done
        result.feed(data[start : start + size])
    assert result.done
    assert len(store) == len(ROWS)
    for number, values in enumerate(ROWS):
        found, (start,) = store.read(number, 1)
        texts = [None if value is None else value.decode("latin-1") for value in values]
        assert values_of(found, start, 2) == texts


def test_a_row_of_several_packets_is_one() -> None:
    values = (b"z" * 9_000_000, b"w" * 9_000_000)
    store = RowStore()
    ResultSet(store).feed(packet(b"\2") + packet(b"def") * 2 + END + packet(row(*values)))
    data, (start,) = store.read(0, 1)
    assert values_of(data, start, 2) == [value.decode() for value in values]


def test_a_refusal_ends_it() -> None:
    result = ResultSet(RowStore())
    result.feed(packet(b"\xff\x7a\x04#42S02no such table"))
    assert result.done
    assert result.refusal == (1146, "no such table")
    with pytest.raises(FatalError):
        ResultSet(RowStore()).feed(packet(b"\0\0\0\2\0\0\0"))


def test_many_rows_are_read_from_a_file_as_well() -> None:
    store = RowStore()
    for number in range(40):
        store.extend(bytes([number]) * 1_000_000, [0, 500_000])
    store.drop_last()
    assert len(store) == 79
    data, starts = store.read(77, 5)
    assert [data[start] for start in starts] == [38, 39]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a ,:"\\é\n{[')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from(' ,:"\\')), inner),
))  # fmt: skip
def test_blanks_between_values_of_json_go_and_others_stay(document: object) -> None:
    shown = json.dumps(document, ensure_ascii=False, separators=(", ", ": "))
    compact = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    assert json_text(shown) == compact


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_keeps_its_value_however_it_is_printed(number: float) -> None:
    assert float(double_text(number)) == number


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e15, "1e15"), (123456789012345.6, "123456789012345.6"), (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"), (1.5e-5, "0.000015"), (-1.25e22, "-1.25e22"), (100.0, "100.0"),
        (1234567890123456.0, "1.234567890123456e15"), (-0.0, "-0.0"),
    ],
)  # fmt: skip
def test_a_double_is_printed_as_mysql_does(number: float, text: str) -> None:
    assert double_text(number) == text


def test_zeros_before_a_number_go() -> None:
    assert [unzero(text) for text in ("00042", "000", "0000.50", "12")] == ["42", "0", "0.50", "12"]


def test_members_of_an_enumeration_are_unescaped() -> None:
    assert members(r"enum('a,b','it''s','x\\y','c\nd','')") == ("a,b", "it's", "x\\y", "c\nd", "")


def test_what_follows_a_row_is_asked_for_column_by_column() -> None:
    columns = [CatalogColumn(n, "int", "int", 0, 0, 0, 0, "", key=True) for n in ("a", "b`c")]
    described = Described(
        "shop", "t", tuple(columns), (KeyColumn("b`c", True), KeyColumn("a", False)), "PRIMARY"
    )
    integer = ValueType(Kind.INTEGER, "int", 4)
    paging = Paging(described, [integer, integer])
    assert paging.chunk(("5", "7"), ("3", "1"), 10) == (
        "SELECT `a`, `b``c` FROM `shop`.`t` FORCE INDEX (`PRIMARY`)"
        " WHERE ((`b``c` < 5) OR (`b``c` = 5 AND `a` > 7))"
        " AND ((`b``c` > 3) OR (`b``c` = 3 AND `a` <= 1))"
        " ORDER BY `b``c` DESC, `a` LIMIT 10"
    )
    assert paging.stored(["7", "5"]) == ("5", "7")


def test_a_pattern_names_a_table_that_matches_and_what_to_grant() -> None:
    found = [
        (pattern.example("x"), pattern.granted)
        for pattern in parse_patterns(["shop.*", "`a*b`.t", "s*.o_*", "*.*"])
    ]
    assert found == [
        (("shop", "x"), "`shop`.*"),
        (("a*b", "t"), "`a*b`.`t`"),
        (("sx", "o_x"), "*.*"),
        (("x", "x"), "*.*"),
    ]


def change(transaction: str, position: str) -> Change:
    return Change("c", None, position, None, transaction, True, b"{}")


def test_what_a_snapshot_sees() -> None:
    by_gtid = SeenGtids(MysqlGtids(f"{SERVER}:1-5"))
    assert by_gtid.sees(f"{SERVER}:5")
    assert not by_gtid.sees(f"{SERVER}:6")
    places = Places()
    places.follow("here", log_place("binlog.000002", 100))
    places.note([change("0-1-7", f"{prefix(0, 2, 150)}00000000")])
    assert not SeenPlace(log_place("binlog.000002", 150), places).sees("0-1-7")
    assert SeenPlace(log_place("binlog.000002", 151), places).sees("0-1-7")
    # given out by an earlier process
    assert SeenPlace(log_place("binlog.000002", 100), places).sees("0-1-6")
    assert not SeenPlace(log_place("binlog.000001", 9999), places).sees("0-1-6")


def at_boundary(buffer: ChunkBuffer) -> bool:
    return buffer.boundary


def test_rows_stand_behind_a_transaction_and_before_the_next_one() -> None:
    resume = Resume("here", 0, "", 0, f"{SERVER}:1-5", "", more={"snapshot": "{}"})
    progress = Progress(resume, "here", 0, mariadb=False)
    buffer = ChunkBuffer("shop", "", progress)
    first = prefix(0, 1, 100)
    buffer.begin(Spot(1, 100, Gtid(f"{SERVER}:", 6)))
    buffer.open.append(change(f"{SERVER}:6", f"{first}00000000"))
    assert at_boundary(buffer)
    buffer.commit("binlog.000001", stored=False)
    assert not at_boundary(buffer)
    assert buffer.take(idle=True) is not None
    assert at_boundary(buffer)
    between = prefix(0, 1, 299)
    assert buffer.place(between) == (between, 0)
    rows = [change("", f"{between}{index:08X}") for index in range(2)]
    chunk = buffer.insert(rows, {"snapshot": "further"})
    assert buffer.place(between) == (between, 2)
    assert first < between < prefix(0, 1, 300)
    assert chunk.resume["snapshot"] == "{}"
    assert chunk.checkpoint.state["snapshot"] == "further"
    assert chunk.checkpoint.position == f"{between}00000001"
    # a kill behind it, or in its midst
    behind = parse_resume(chunk.checkpoint)
    assert (behind.gtids, behind.more) == (f"{SERVER}:1-6", {"snapshot": "further"})
    midst = parse_resume(Checkpoint(f"{between}00000000", chunk.resume))
    assert (midst.gtids, midst.partial) == (f"{SERVER}:1-6", {})


def test_a_transaction_that_is_stored_in_part_is_no_boundary() -> None:
    gtid = Gtid(f"{SERVER}:", 6)
    resume = Resume("here", 0, "", 0, f"{SERVER}:1-5", "", partial={gtid: 3})
    progress = Progress(resume, "here", 0, mariadb=False)
    buffer = ChunkBuffer("shop", "", progress)
    assert not at_boundary(buffer)
    buffer.begin(Spot(1, 100, gtid))
    buffer.commit("binlog.000001", stored=True)
    assert at_boundary(buffer)
