"""The decoder of binary logs, from bytes alone."""

from __future__ import annotations

import msgspec
import pytest

from connectors.contracts.changes import CHUNK_CHANGES, Change
from connectors.contracts.source import Checkpoint, Chunk
from connectors.errors import ConfigError, FatalError, GapError
from connectors.mysql.binlog.decoder import Decoder
from connectors.mysql.binlog.packets import PacketReader
from connectors.mysql.binlog.progress import Resume, parse_resume
from connectors.mysql.binlog.tables import Tables
from tests.unit.binlog import UUID, LogFile, row, table_body
from tests.unit.binlog_catalog import KnownCatalog

BODY = table_body()


def decoder(
    checkpoint: Checkpoint | None = None, *, generation: int = 0, statements: bool = True
) -> Decoder:
    resume = Resume(server="s", generation=0, file="", offset=0, gtids="", tables="")
    if checkpoint is not None:
        resume = parse_resume(checkpoint)
    tables = Tables(
        "shop",
        KnownCatalog(),
        lambda schema, _: schema == "shop",
        mariadb=False,
        zero_dates=False,
        compiled=True,
    )
    return Decoder(
        "shop",
        tables,
        resume=resume,
        position=checkpoint.position if checkpoint else "",
        server="s",
        generation=generation,
        mariadb=False,
        stop_at_statements=statements,
    )


def drain(reader: Decoder) -> list[Chunk]:
    chunks = []
    while (chunk := reader.chunk(idle=True)) is not None:
        chunks.append(chunk)
    return chunks


def decode(log: LogFile, checkpoint: Checkpoint | None = None) -> list[Chunk]:
    reader = decoder(checkpoint)
    reader.feed(log.events)
    return drain(reader)


def ids(chunks: list[Chunk]) -> list[int]:
    return [_id(change) for chunk in chunks for change in chunk.changes]


def _id(change: Change) -> int:
    assert change.key is not None
    return int(msgspec.json.decode(change.key)["id"])


def many() -> LogFile:
    """Transactions of several sizes, with ids that count up."""
    log, number = LogFile(), 0
    for transaction, size in enumerate([1, 3, 2500, 1, 1, 999], 1):
        log.transaction(
            transaction, 9, BODY, [row(number + index, b"v") for index in range(1, size + 1)]
        )
        number += size
    return log


def test_a_cut_anywhere_is_found_again() -> None:
    log = many()
    whole = decode(log)
    total = 3505
    assert ids(whole) == list(range(1, total + 1))
    positions = [change.position for chunk in whole for change in chunk.changes]
    assert positions == sorted(set(positions))
    done = 0
    for chunk in whole:
        assert len(chunk.changes) <= CHUNK_CHANGES
        for cut in {1, 2, len(chunk.changes) // 2, len(chunk.changes) - 1} - {0}:
            position = chunk.changes[cut - 1].position
            rest = decode(log, Checkpoint(position, chunk.resume))
            assert ids(rest) == list(range(done + cut + 1, total + 1))
            # and again inside what was read then
            if rest and len(rest[0].changes) > 2:
                second = Checkpoint(rest[0].changes[1].position, rest[0].resume)
                assert ids(decode(log, second)) == list(range(done + cut + 3, total + 1))
        done += len(chunk.changes)
        assert ids(decode(log, chunk.checkpoint)) == list(range(done + 1, total + 1))


def test_what_is_stored_in_part_may_come_late_on_another_server() -> None:
    large, small, other = [row(n, b"v") for n in range(1, 5)], row(10, b"v"), row(11, b"v")
    here, there = LogFile(), LogFile()
    here.transaction(1, 9, BODY, large)
    for log in (here, there):
        log.transaction(2, 9, BODY, [small])
    here_first = len(there.events)
    there.transaction(1, 9, BODY, large)
    there.transaction(3, 9, BODY, [other])
    (whole,) = decode(here)
    cut = Checkpoint(whole.changes[1].position, whole.resume)
    moved = decoder(cut, generation=1)
    moved.feed(there.events[:here_first])
    (chunk,) = drain(moved)
    assert ids([chunk]) == [10]
    # neither what comes now, nor a restart before it, repeats what is stored
    moved.feed(there.events[here_first:])
    assert ids(drain(moved)) == [3, 4, 11]
    again = decode(there, chunk.checkpoint)
    assert ids(again) == [3, 4, 11]
    third = Checkpoint(again[0].changes[0].position, again[0].resume)
    assert ids(decode(there, third)) == [4, 11]
    assert "partial" not in again[-1].checkpoint.state


def test_places_beyond_four_gibibytes_are_told() -> None:
    log = LogFile(start=(1 << 32) - 300)
    log.events[0] = LogFile(start=4).events[0]
    for number in range(1, 5):
        log.transaction(number, 9, BODY, [row(number, b"v" * 50)])
    changes = [change for chunk in decode(log) for change in chunk.changes]
    offsets = [int(change.position.split("-")[2], 16) for change in changes]
    assert offsets == sorted(offsets)
    assert offsets[-1] > 1 << 32
    assert [msgspec.json.decode(c.envelope)["source"]["pos"] for c in changes][-1] > 1 << 32


def test_what_an_envelope_says() -> None:
    log = LogFile(number=7)
    log.transaction(5, 9, BODY, [row(1, b'"\\\xc3\xa9'), row(2, None)])
    first, second = (change for chunk in decode(log) for change in chunk.changes)
    envelope = msgspec.json.decode(first.envelope)
    assert envelope["after"] == {"id": 1, "value": '"\\é'}
    assert envelope["source"]["gtid"] == envelope["transaction"]["id"] == f"{UUID}:5"
    assert envelope["source"]["file"] == "binlog.000007"
    assert envelope["source"]["ts_ms"] == 1_700_000_000_000
    assert envelope["source"]["connector"] == "mysql"
    assert msgspec.json.decode(second.envelope)["source"]["row"] == 1
    assert (first.last, second.last) == (False, True)
    assert first.table is not None
    assert first.table.dialect == "mysql"
    assert [column.type for column in first.table.columns] == ["int unsigned", "varchar(20)"]


def test_a_torn_transaction_at_the_end_of_a_file_never_happened() -> None:
    log = LogFile()
    log.transaction(1, 9, BODY, [row(1, b"v")])
    log.gtid(2)
    log.query("BEGIN")
    log.table_map(9, BODY)
    log.rows(9, 2, [row(2, b"v")])
    after = LogFile(number=2)
    after.transaction(2, 9, BODY, [row(3, b"v")])
    reader = decoder()
    reader.feed(log.events + after.events)
    assert ids(drain(reader)) == [1, 3]


def test_rolled_back_savepoints_take_their_rows_with_them() -> None:
    log = LogFile()
    log.gtid(1)
    log.query("BEGIN")
    for number, statement in ((1, "SAVEPOINT `a`"), (2, "ROLLBACK TO `A`"), (3, "")):
        log.table_map(9, BODY)
        log.rows(9, 2, [row(number, b"v")])
        if statement:
            log.query(statement)
    log.xid()
    assert ids(decode(log)) == [1, 3]


def test_files_without_checksums() -> None:
    log = LogFile(checksums=False)
    log.transaction(1, 9, BODY, [row(1, b"v")])
    assert ids(decode(log)) == [1]


def test_what_is_refused() -> None:
    broken = LogFile()
    broken.transaction(1, 9, BODY, [row(1, b"v")])
    broken.events[-2] = broken.events[-2][:-1] + b"\0"
    unknown, ignorable, incident = LogFile(), LogFile(), LogFile()
    unknown.add(99, b"")
    ignorable.add(99, b"", flags=0x80)
    incident.add(26, b"\1\0\4lost")
    loose, nameless, short = LogFile(), LogFile(), LogFile()
    loose.xid()
    nameless.transaction(1, 9, table_body(names=False), [row(1, b"v")])
    short.transaction(1, 9, BODY, [row(1, b"v")[:-1]])
    statement = LogFile()
    statement.gtid(1)
    statement.query("BEGIN")
    statement.query("/* x */ INSERT INTO items VALUES (1)")
    anonymous = LogFile()
    anonymous.add(34, bytes(42))
    for log, code, kind in (
        (broken, "mysql.checksum", FatalError),
        (unknown, "mysql.unknown_event", FatalError),
        (incident, "mysql.incident", GapError),
        (loose, "mysql.unexpected_event", FatalError),
        (nameless, "mysql.row_metadata", ConfigError),
        (short, "mysql.malformed_event", FatalError),
        (statement, "mysql.statement_format", FatalError),
        (anonymous, "mysql.anonymous_transaction", FatalError),
    ):
        with pytest.raises(kind) as caught:
            decode(log)
        assert caught.value.code == code
    assert decode(ignorable) == []


def test_another_generation_stands_behind_every_place_of_the_former() -> None:
    first, second = LogFile(number=900), LogFile(number=2)
    first.transaction(1, 9, BODY, [row(1, b"v")])
    (chunk,) = decode(first)
    second.transaction(2, 9, BODY, [row(2, b"v")])
    reader = decoder(chunk.checkpoint, generation=1)
    reader.feed(second.events)
    (after,) = drain(reader)
    assert after.changes[0].position > chunk.changes[0].position
    assert after.checkpoint.state["gtids"] == f"{UUID}:1-2"


@pytest.mark.parametrize("size", [1, 3, 7, 64, 10_000])
def test_packets_are_put_together_from_any_pieces(size: int) -> None:
    events = many().events[:20]
    if size > 1000:
        events.append(b"\x01" * ((1 << 24) + 50))
    stream = b""
    for payload in (b"\0" + event for event in events):
        at = 0
        while True:
            piece = payload[at : at + 0xFFFFFF]
            stream += len(piece).to_bytes(3, "little") + b"\7" + piece
            at += len(piece)
            if len(piece) < 0xFFFFFF:
                break
    stream += b"\x0d\0\0\0\xff\xd4\x04#HY000oops"
    reader, got = PacketReader(), []
    for start in range(0, len(stream), size):
        got += reader.feed(stream[start : start + size])
    assert got == events
    assert reader.refusal == (1236, "oops")
