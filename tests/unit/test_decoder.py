"""Decoding transactions into changes: envelopes, positions, keys, skipping."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.changes import UNAVAILABLE, Change
from connectors.contracts.source import Checkpoint
from connectors.errors import FatalError
from connectors.postgres.pgoutput.decoder import Decoder
from connectors.postgres.pgoutput.messages import UNCHANGED
from connectors.postgres.pgoutput.streaming import EPOCH_US
from connectors.postgres.pgoutput.types import TypeInfo
from tests.unit import wal
from tests.unit.wal import FakeCatalog

if TYPE_CHECKING:
    from collections.abc import Sequence

OID = 16385
SHAPE = wal.xlog(0, wal.relation(OID, "users", [("id", 23, True), ("name", 25, False)]))
SYSTEM = "7300000000000000001"


@pytest.fixture(params=[True, False], ids=["compiled", "exact"])
def compiled(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def make(
    compiled: bool = True,
    *,
    position: str = "",
    lsn: str = "0/0",
    catalog: FakeCatalog | None = None,
) -> Decoder:
    resume = Checkpoint(position, {"lsn": lsn, "system": SYSTEM})
    return Decoder(
        "shop", "db", catalog or FakeCatalog(), resume=resume, system=SYSTEM, compiled=compiled
    )


def transaction(commit_lsn: int, *messages: bytes, xid: int = 77) -> list[bytes]:
    inner = [wal.xlog(commit_lsn - 500 + place, each) for place, each in enumerate(messages)]
    at = 1_000_123_456
    return [
        wal.xlog(commit_lsn, wal.begin(commit_lsn, xid, at)),
        *inner,
        wal.xlog(commit_lsn, wal.commit(commit_lsn, commit_lsn + 48, at)),
    ]


def decode(decoder: Decoder, frames: Sequence[bytes | memoryview]) -> list[Change]:
    decoder.feed(frames)
    changes: list[Change] = []
    while chunk := decoder.chunk(idle=True):
        changes += chunk.changes
    return changes


def test_an_insert_in_debeziums_envelope(compiled: bool) -> None:
    frames = [SHAPE, *transaction(0x1600001000, wal.insert(OID, ["1", 'é"\\']))]
    (change,) = decode(make(compiled), frames)
    assert change._replace(envelope=b"", table=None) == Change(
        "c", None, "0000001600001000-00000000", '{"id":1}', "77", True, b"", ()
    )
    assert change.table is not None
    assert (change.table.schema, change.table.name, change.table.key) == (
        "public",
        "users",
        ("id",),
    )
    envelope = json.loads(change.envelope)
    assert envelope.pop("ts_ms") > 1_700_000_000_000
    assert isinstance(envelope["source"].pop("version"), str)
    assert envelope == {
        "before": None,
        "after": {"id": 1, "name": 'é"\\'},
        "source": {
            "connector": "postgresql",
            "name": "shop",
            "ts_ms": (EPOCH_US + 1_000_123_456) // 1000,
            "snapshot": "false",
            "db": "db",
            "schema": "public",
            "table": "users",
            "txId": 77,
            "lsn": 0x1600001000 - 500,
        },
        "op": "c",
        "transaction": {"id": "77", "total_order": 1},
    }


def test_a_json_null_is_told_apart_from_an_sql_null(compiled: bool) -> None:
    columns = [("id", 23, True), ("a", 114, False), ("b", 3802, False), ("c", 25, False)]
    rows: list[list[str | None]] = [
        ["1", "null", "null", "null"],
        ["2", " null ", "[null]", "x"],
        ["3", '"null"', "null", "x"],
        ["4", None, "null", "x"],
        ["5", None, None, None],
        ["6", "{}", "true", "null"],
        ["7", "{}", "null", "null"],
    ]
    inserts = [wal.insert(OID, row) for row in rows]
    frames = [
        wal.xlog(0, wal.relation(OID, "docs", columns)),
        *transaction(0x2000, *inserts),
    ]
    changes = decode(make(compiled), frames)
    assert [change.json_nulls for change in changes] == [
        ("a", "b"),
        ("a",),
        ("b",),
        ("b",),
        (),
        (),
        ("b",),
    ]
    assert [change.last for change in changes] == [False] * 6 + [True]
    for change in changes:
        after = json.loads(change.envelope)["after"]
        assert all(after[name] is None for name in change.json_nulls)


def test_every_change_counts_in_the_position(compiled: bool) -> None:
    catalog = FakeCatalog()
    other = wal.relation(16390, 'o"ther', [("é", 25, True)], schema="sch'ema")
    frames = [
        SHAPE,
        *transaction(
            0x2000,
            b"O" + struct.pack("!Q", 1) + b"origin\0",
            b"Y" + struct.pack("!I", 16500) + b"public\0mood\0",
            wal.insert(OID, ["1", None]),
            wal.insert(OID, ["2", "x" * 300]),
            wal.update(OID, ["2", UNCHANGED]),
            wal.update(OID, ["3", "y"], ["2", None], "K"),
            other,
            wal.insert(16390, ["ключ"]),
            wal.truncate(OID, 16390),
            wal.message(0x1999, "préfix", b"\0\xff", transactional=True),
            wal.delete(OID, ["3", None]),
        ),
    ]
    changes = decode(make(compiled, catalog=catalog), frames)
    assert [(change.op, change.key, change.last) for change in changes] == [
        ("c", '{"id":1}', False),
        ("c", '{"id":2}', False),
        ("u", '{"id":2}', False),
        ("u", '{"id":3}', False),
        ("c", '{"\\u00e9":"\\u043a\\u043b\\u044e\\u0447"}', False),
        ("t", None, False),
        ("t", None, False),
        ("m", None, False),
        ("d", '{"id":3}', True),
    ]
    assert [change.position for change in changes] == [
        f"0000000000002000-{index:08X}" for index in range(9)
    ]
    bodies = [json.loads(change.envelope) for change in changes]
    assert [body["transaction"]["total_order"] for body in bodies] == list(range(1, 10))
    assert [body["op"] for body in bodies] == list("ccuucttmd")
    assert [(body["before"], body["after"]) for body in bodies] == [
        (None, {"id": 1, "name": None}),
        (None, {"id": 2, "name": "x" * 300}),
        (None, {"id": 2, "name": UNAVAILABLE}),
        ({"id": 2}, {"id": 3, "name": "y"}),
        (None, {"é": "ключ"}),
        (None, None),
        (None, None),
        (None, None),
        ({"id": 3}, None),
    ]
    assert [change.unavailable for change in changes] == [(), (), ("name",)] + [()] * 6
    assert [(body["source"]["schema"], body["source"]["table"]) for body in bodies[4:8]] == [
        ("sch'ema", 'o"ther'),
        ("public", "users"),
        ("sch'ema", 'o"ther'),
        ("", ""),
    ]
    message = bodies[7]["message"]
    assert (message["transactional"], message["prefix"]) == (True, "préfix")
    assert base64.b64decode(message["content"]) == b"\0\xff"
    assert changes[7].table is None


def test_a_message_outside_a_transaction_stands_alone(compiled: bool) -> None:
    frames = [
        SHAPE,
        *transaction(0x2000, wal.insert(OID, ["1", "a"])),
        wal.xlog(0x2100, wal.message(0x2100, "p", b"now", transactional=False)),
        *transaction(0x2200, wal.insert(OID, ["2", "b"])),
    ]
    decoder = make(compiled)
    changes = decode(decoder, frames)
    assert [change.position for change in changes] == [
        "0000000000002000-00000000",
        "00000000000020FF-00000000",
        "0000000000002200-00000000",
    ]
    loose = changes[1]
    assert (loose.op, loose.transaction, loose.last, loose.key) == ("m", "", True, None)
    body = json.loads(loose.envelope)
    assert body["transaction"] is None
    assert body["source"]["txId"] is None
    assert body["source"]["lsn"] == 0x2100
    assert body["message"] == {
        "transactional": False,
        "prefix": "p",
        "content": base64.b64encode(b"now").decode(),
    }


def test_a_message_alone_moves_the_checkpoint() -> None:
    decoder = make()
    decoder.feed([wal.xlog(0x2100, wal.message(0x2100, "p", b"", transactional=False))])
    chunk = decoder.chunk(idle=True)
    assert chunk is not None
    assert chunk.checkpoint == Checkpoint(
        "00000000000020FF-00000000", {"lsn": "0/2100", "system": SYSTEM}
    )


def test_identity_full_asks_for_the_primary_key(compiled: bool) -> None:
    columns = [("b", 23, True), ("a", 25, True), ("big", 25, True)]
    shape = wal.xlog(0, wal.relation(OID, "t", columns, identity="f"))
    frames = transaction(
        0x2000,
        wal.update(OID, ["1", "x", UNCHANGED], ["1", "w", "z" * 400], "O"),
        wal.delete(OID, ["1", "x", "z"], "O"),
    )
    keyed = FakeCatalog(keys={OID: ("a", "b")})
    changes = decode(make(compiled, catalog=keyed), [shape, *frames])
    assert [change.key for change in changes] == ['{"b":1,"a":"x"}', '{"b":1,"a":"x"}']
    assert changes[0].table is not None
    assert changes[0].table.key == ("b", "a")
    assert changes[0].unavailable == ()
    body = json.loads(changes[0].envelope)
    assert body["before"] == {"b": 1, "a": "w", "big": "z" * 400}
    assert body["after"] == {"b": 1, "a": "x", "big": "z" * 400}
    assert json.loads(changes[1].envelope)["before"] == {"b": 1, "a": "x", "big": "z"}

    without: list[dict[int, tuple[str, ...]]] = [{}, {OID: ("a", "not replicated")}]
    for keys in without:
        bare = decode(make(compiled, catalog=FakeCatalog(keys=keys)), [shape, *frames])
        assert [change.key for change in bare] == [None, None]
        assert bare[0].table is not None
        assert bare[0].table.key == ()


def test_a_table_without_key(compiled: bool) -> None:
    shape = wal.xlog(0, wal.relation(OID, "t", [("a", 25, False)], identity="n"))
    (change,) = decode(make(compiled), [shape, *transaction(0x2000, wal.insert(OID, ["x"]))])
    assert change.key is None


def test_a_table_without_columns(compiled: bool) -> None:
    shape = wal.xlog(0, wal.relation(OID, "t", []))
    (change,) = decode(make(compiled), [shape, *transaction(0x2000, wal.insert(OID, []))])
    assert json.loads(change.envelope)["after"] == {}


def test_a_new_shape_is_another_schema_and_a_repeated_one_is_not(compiled: bool) -> None:
    columns = [("id", 23, True), ("name", 25, False), ("mood", 16500, False)]
    wider = wal.xlog(0, wal.relation(OID, "users", columns))
    catalog = FakeCatalog({16500: TypeInfo(16500, "mood", "public", "e", 0, ",")})
    frames = [
        SHAPE,
        *transaction(0x2000, wal.insert(OID, ["1", "a"])),
        SHAPE,
        *transaction(0x3000, wal.insert(OID, ["2", "a"])),
        wider,
        *transaction(0x4000, wal.insert(OID, ["3", "a", "sad"])),
        wider,
        *transaction(0x5000, wal.insert(OID, ["4", "a", "glad"])),
    ]
    decoder = make(compiled, catalog=catalog)
    first, second, third, fourth = (change.table for change in decode(decoder, frames))
    assert first is second
    assert third is fourth
    assert first is not None
    assert third is not None
    assert first.hash != third.hash
    assert [column.type for column in third.columns] == ["integer", "text", "public.mood"]
    assert [column.portable for column in third.columns] == [True, True, False]
    assert catalog.asked == [(16500,)]


def test_memoryviews_are_as_good(compiled: bool) -> None:
    frames = [
        SHAPE,
        *transaction(0x2000, wal.insert(OID, ["1", "a"]), wal.insert(OID, ["1", None])),
    ]
    one = decode(make(compiled), frames)
    two = decode(make(compiled), [memoryview(frame) for frame in frames])
    assert [change[:6] for change in one] == [change[:6] for change in two]


def test_it_resumes_behind_the_position(compiled: bool) -> None:
    frames = [
        SHAPE,
        *transaction(0x2000, wal.insert(OID, ["1", "a"]), wal.insert(OID, ["2", "b"])),
        # The record ends where that of the next commit begins.
        wal.xlog(0x3000, wal.message(0x3000, "p", b"", transactional=False)),
        *transaction(
            0x3000,
            wal.insert(OID, ["3", "c"]),
            wal.truncate(OID, OID),
            wal.message(1, "p", b"", transactional=True),
            wal.delete(OID, ["3", None]),
        ),
        *transaction(0x4000, wal.update(OID, ["4", "d"])),
    ]
    everything = decode(make(compiled), frames)
    assert len(everything) == 9
    for done, change in enumerate(everything, 1):
        resumed = decode(make(compiled, position=change.position), frames)
        assert [(each.position, each.last, each.key) for each in resumed] == [
            (each.position, each.last, each.key) for each in everything[done:]
        ]
        orders = [json.loads(each.envelope)["transaction"] for each in resumed]
        assert orders == [json.loads(each.envelope)["transaction"] for each in everything[done:]]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([wal.xlog(1, wal.insert(OID, ["1"]))], "postgres.unexpected_message"),
        ([SHAPE, wal.xlog(1, wal.insert(OID, ["1", "a"]))], "postgres.unexpected_message"),
        ([wal.xlog(1, wal.commit(1, 2))], "postgres.unexpected_message"),
        ([wal.xlog(1, wal.begin(1, 1))] * 2, "postgres.unexpected_message"),
        (transaction(0x2000, wal.insert(OID, ["1"])), "postgres.unknown_relation"),
        (transaction(0x2000, wal.truncate(OID)), "postgres.unknown_relation"),
        ([SHAPE, *transaction(0x2000, wal.insert(OID, ["1"]))], "postgres.malformed_message"),
        (
            [SHAPE, *transaction(0x2000, wal.insert(OID, ["1", "a"])[:7])],
            "postgres.malformed_message",
        ),
        (
            [SHAPE, *transaction(0x2000, wal.insert(OID, ["1", "a"]), wal.insert(OID, ["1"])[:7])],
            "postgres.malformed_message",
        ),
        (transaction(0x2000, b"S" + bytes(40)), "postgres.unknown_message"),
        (transaction(0x2000, wal.commit(1, 2) + b"x"), "postgres.malformed_message"),
        (transaction(0x2000, wal.begin(1, 2) + b"x"), "postgres.malformed_message"),
        (
            transaction(0x2000, wal.message(1, "", b"", transactional=False)),
            "postgres.unexpected_message",
        ),
        ([wal.xlog(1, wal.message(1, "", b"", transactional=True))], "postgres.unexpected_message"),
        ([b"k" + bytes(17)], "postgres.unexpected_message"),
        ([b""], "postgres.unknown_message"),
    ],
)
def test_what_is_out_of_place_is_an_error(frames: list[bytes], code: str, compiled: bool) -> None:
    with pytest.raises(FatalError) as caught:
        make(compiled).feed(frames)
    assert caught.value.code == code


@pytest.mark.parametrize("position", ["x", "0000000000002000", "mysql-bin.000001-00000004"])
def test_a_foreign_position_is_refused(position: str) -> None:
    with pytest.raises(FatalError) as caught:
        make(position=position)
    assert caught.value.code == "postgres.invalid_checkpoint"
