"""What was committed, as `mysql-replication` tells it: it reads the same log and shares no code."""

from __future__ import annotations

import re
from contextlib import closing
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.event import GtidEvent, MariadbGtidEvent, QueryEvent
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from tests.e2e.binlog_workload import TABLES
from tests.servers.binlog import rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.servers.binlog_server import BinlogServer
    from tests.e2e.verify_stream import Stored

_Key = tuple[tuple[str, str], ...] | None


class Committed(NamedTuple):
    """A change as the log tells it.

    Attributes:
        gtid: Its transaction.
        op: As in `Change`.
        table: `database.table`.
        key: The key's columns as text, sorted by name.
        old_key: The key before an update that changed it.
    """

    gtid: str
    op: str
    table: str
    key: _Key
    old_key: _Key


def witness(server: BinlogServer) -> Iterator[Committed]:
    """Every committed change of the database `shop` since the server was made, in order."""
    (first, *_), *_ = rows(server, "SHOW BINARY LOGS")
    reader = BinLogStreamReader(
        connection_settings={"host": "127.0.0.1", "port": server.port, "user": "waxtap"},
        server_id=99,
        log_file=str(first),
        log_pos=4,
        resume_stream=True,
        only_schemas=["shop"],
        enable_logging=False,
    )
    gtid = ""
    with closing(reader):
        for event in reader:
            if isinstance(event, GtidEvent | MariadbGtidEvent):
                gtid = str(event.gtid)
            elif isinstance(event, QueryEvent):
                text = event.query if isinstance(event.query, str) else event.query.decode()
                if re.match(r"\s*truncate", text, re.IGNORECASE):
                    yield Committed(gtid, "t", "shop.scratch", None, None)
            elif isinstance(event, WriteRowsEvent | UpdateRowsEvent | DeleteRowsEvent):
                yield from _changes(gtid, event)


def _changes(
    gtid: str, event: WriteRowsEvent | UpdateRowsEvent | DeleteRowsEvent
) -> Iterator[Committed]:
    names = next(table.key for table in TABLES if table.name == event.table)
    op = {WriteRowsEvent: "c", UpdateRowsEvent: "u", DeleteRowsEvent: "d"}[type(event)]

    def key(values: dict[str, object]) -> _Key:
        return tuple(sorted((name, str(values[name])) for name in names))

    for row in event.rows:
        new = key(row["after_values"] if op == "u" else row["values"])
        old = key(row["before_values"]) if op == "u" else new
        yield Committed(gtid, op, f"shop.{event.table}", new, old if old != new else None)


def check_stream(stored: Iterator[Stored], committed: Iterator[Committed]) -> int:
    """Every committed change lies in the stream exactly once and in order; returns how many.

    Raises:
        AssertionError: A change is missing, surplus or out of order; names the first one.
    """
    previous: Stored | None = None
    number = 0
    for number, (want, got) in enumerate(zip_longest(committed, stored), start=1):
        where = f"change {number}"
        assert got is not None, f"{where}: {want} is missing at the end of the stream"
        assert want is not None, f"{where}: {got} was never committed"
        if previous is not None:
            assert got.position > previous.position, f"{where}: {got} after {previous}"
            same = got.transaction == previous.transaction
            assert same is not previous.last, f"{where}: mark of the last change: {previous}, {got}"
        previous = got
        assert got.transaction == want.gtid, f"{where}: expected {want}, found {got}"
        assert got.event.key == want.key, f"{where}: expected {want}, found {got}"
        if got.event.op:  # a change in the object store tells only its headers
            found = (got.event.op, got.event.table, got.event.old_key)
            assert found == (want.op, want.table, want.old_key), f"{where}: {want}, {got}"
    return number
