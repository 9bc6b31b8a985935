"""Reads MySQL and MariaDB tables for snapshots.

No lock is taken: a transaction WITH CONSISTENT SNAPSHOT sees what the engine has committed. MariaDB
tells the place in its log that belongs to it exactly (`Binlog_snapshot_position`). MySQL tells what
is committed (`gtid_executed`) before the snapshot is taken: all of that is in it, and perhaps more,
which counts as not seen. On both, a transaction is in the log, and may reach us, before it is
committed in the engine.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pymysql

from connectors.errors import ConfigError, FatalError, RetryableError
from connectors.mysql.binlog.gtids import MysqlGtids
from connectors.mysql.binlog.position import log_place
from connectors.mysql.binlog.table import describe
from connectors.mysql.replication.catalog import ServerCatalog
from connectors.mysql.server import TRANSIENT, connect, error_parts, rows
from connectors.mysql.setup.patterns import parse_patterns, wanted
from connectors.mysql.setup.preflight import log_status, look
from connectors.mysql.snapshot import queries, tables
from connectors.mysql.snapshot.block import TableBlock
from connectors.mysql.snapshot.columns import table_map
from connectors.mysql.snapshot.queries import Paging
from connectors.mysql.snapshot.rendering import TableRenderer
from connectors.mysql.snapshot.result_set import ResultSet
from connectors.mysql.snapshot.row_store import RowStore
from connectors.mysql.snapshot.splicing import values_of
from connectors.mysql.snapshot.visibility import SeenGtids, SeenPlace
from connectors.snapshot.job import Job, no_table
from connectors.snapshot.reading import Cut, Request, Survey

if TYPE_CHECKING:
    from connectors.errors import WaxtapError
    from connectors.mysql.server import Connection
    from connectors.mysql.setup.preflight import Server
    from connectors.mysql.setup.settings import Settings
    from connectors.mysql.snapshot.tables import Described, Listed
    from connectors.mysql.snapshot.visibility import Places

# A chunk is cut when its rows are this large, so that two of them are no burden.
CHUNK_BYTES = 8 * 1024 * 1024
_QUERY = 0x03
_BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
_READ_BYTES = 256 * 1024
_PAUSE_S = 0.1
# So that ALTER TABLE need not wait for us behind somebody whom we wait for.
_LOCK_WAIT_S = 5
# A busy server may take long until the first row.
_SILENCE_S = 600.0
_NO_TABLE, _NO_DATABASE, _NO_COLUMN, _NO_INDEX, _REDEFINED = 1146, 1049, 1054, 1176, 1412
# A table that was altered or dropped between two statements is read again.
_CHANGED = {_NO_TABLE, _NO_DATABASE, _NO_COLUMN, _NO_INDEX, _REDEFINED}
_DENIED = {1142, 1143, 1044}


class MysqlTableReader:
    """Implements `snapshot.reading.TableReader`.

    Args:
        settings: The source's.
        places: Where the transactions begin that are given out, and on which server.
        job: What is read.
    """

    def __init__(self, settings: Settings, places: Places, job: Job | None = None) -> None:
        self._settings, self._places, self._job = settings, places, job or Job()
        self._stopped = threading.Event()
        self._connection: Connection | None = None
        self._server: Server | None = None
        self._catalog: ServerCatalog | None = None
        self._renderer: TableRenderer | None = None

    def survey(self) -> Survey[Listed]:
        """As `TableReader.survey`."""
        connection, server = self._connect()
        captured = wanted(self._settings.patterns, fold=server.folds_names)
        found = tables.listed(connection, captured)
        if not self._job.initial:
            asked = wanted(parse_patterns(self._job.tables), fold=server.folds_names)
            found = [table for table in found if asked(table.schema, table.name)]
            if not found:
                raise no_table("mysql", self._job)
            if self._job.where:
                found = [self._checked(connection, table) for table in found]
        return Survey(tuple(found), (), synchronous=False)

    def cut(self, cut: Cut[Listed]) -> tuple[str, ...] | None:
        """As `TableReader.cut`; None: the table has no key."""
        connection, _ = self._connect()
        described = tables.describe(connection, cut.table)
        if described is None:
            return ()
        if not described.key:
            return None
        renderer = self._renderer_of(described)
        store = RowStore()
        self._fetch(renderer.paging.bound(cut.after, cut.limit), store, cut.table.label)
        # The row itself, and one behind it.
        return renderer.after(store, 0) if len(store) > 1 else ()

    def read(self, request: Request[Listed]) -> TableBlock:
        """As `TableReader.read`."""
        try:
            return self._read(request)
        except FatalError as error:
            if self._job.where and not isinstance(error, ConfigError):
                # Only some rows show what is wrong with it.
                raise _no_condition(error.message, request.table) from None
            raise

    def _read(self, request: Request[Listed]) -> TableBlock:
        connection, server = self._connect()
        visible = self._begin(connection, server)
        # Whatever the snapshot sees is in the log before the end that is asked for behind it.
        file, offset = log_status(connection, server)
        block = TableBlock(request, visible, file, offset, time.time_ns() // 1_000_000)
        table = request.table
        described = tables.describe(connection, table)
        if described is None:
            block.complete = True
        else:
            block.renderer = self._renderer_of(described)
            if described.key:
                self._read_by_key(block, block.renderer.paging)
            else:
                self._fetch(block.renderer.paging.whole(), block.store, table.label)
                block.complete = True
        connection, _ = self._connect()
        if block.complete and self._job.initial:
            block.final = not any(self._has_rows(each) for each in request.following)
        rows(connection, "COMMIT")
        return block

    def nudge(self) -> None:
        """Nothing: a server tells the end of its log by itself, in heartbeats."""

    def stop(self) -> None:
        """As `TableReader.stop`."""
        self._stopped.set()

    def disconnect(self) -> None:
        """As `TableReader.disconnect`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # What is on its way is not waited for.
            connection._force_close()  # type: ignore[attr-defined]

    def _connect(self) -> tuple[Connection, Server]:
        if self._connection is not None and self._server is not None:
            if self._server.identity == self._places.server:
                return self._connection, self._server
            self.disconnect()
        settings = self._settings
        connection = self._connection = connect(settings.dsn, settings.source)
        server = look(connection)
        if server.identity != self._places.server:
            self.disconnect()
            raise RetryableError(
                "mysql.other_server",
                "this is not the server whose log is read",
                where=server.where,
            )
        unlimited = "max_statement_time" if server.mariadb else "max_execution_time"
        rows(
            connection,
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        )
        rows(
            connection,
            # Texts come in their columns' own character sets, moments in UTC.
            "SET character_set_results = NULL, time_zone = '+00:00', sql_mode = '',"
            f" {unlimited} = 0, sql_select_limit = DEFAULT, lock_wait_timeout = {_LOCK_WAIT_S}",
        )
        if self._server is None or self._server.identity != server.identity:
            self._catalog, self._renderer = ServerCatalog(settings, connection, server), None
        self._server = server
        return connection, server

    def _begin(self, connection: Connection, server: Server) -> SeenGtids | SeenPlace:
        """Begin a transaction that sees all that was given out before this process."""
        while not server.mariadb:
            ((gtids, all_committed),) = rows(
                connection,
                "SELECT @@GLOBAL.gtid_executed, GTID_SUBSET(%s, @@GLOBAL.gtid_executed)",
                self._places.stored,
            )
            if all_committed:
                rows(connection, _BEGIN)
                return SeenGtids(MysqlGtids(str(gtids)))
            self._pause()
        while True:
            rows(connection, _BEGIN)
            found = rows(connection, "SHOW STATUS LIKE 'binlog\\_snapshot\\_%'")
            told = {str(name).lower(): str(value) for name, value in found}
            file, offset = told["binlog_snapshot_file"], told["binlog_snapshot_position"]
            place = log_place(file, int(offset))
            if place >= self._places.horizon:
                return SeenPlace(place, self._places)
            rows(connection, "ROLLBACK")
            self._pause()

    def _pause(self) -> None:
        if self._stopped.wait(_PAUSE_S):
            raise RetryableError("mysql.snapshot_stopped", "it is not wanted any more")

    def _checked(self, connection: Connection, table: Listed) -> Listed:
        """A table, if the condition is one of it; its estimate is that of the rows that fulfil it.

        Raises:
            ConfigError: `mysql.backfill_where`: it is none.
        """
        statement = queries.trial(table.schema, table.name, self._job.where)
        rows(connection, "START TRANSACTION READ ONLY")
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                names = [str(column[0]) for column in cursor.description]
                found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except (pymysql.Error, OSError) as error:
            number, message = error_parts(error)
            if isinstance(error, OSError) or not number or number in TRANSIENT:
                raise RetryableError("mysql.connection_lost", message) from None
            raise _no_condition(message, table) from None
        rows(connection, "ROLLBACK")
        return replace(table, estimated=_planned(found))

    def _renderer_of(self, described: Described) -> TableRenderer:
        known = self._renderer
        if known is not None and known.described == described:
            return known
        catalog, settings = self._catalog, self._settings
        if catalog is None:
            raise RetryableError("mysql.connection_lost", "there is no connection")
        map_ = table_map(
            described.schema,
            described.name,
            described.columns,
            [column.name for column in described.key],
            catalog.collation,
        )
        table = describe(map_, settings.source, catalog, mariadb=settings.mariadb)
        paging = Paging(described, table.types, self._job.where)
        known = self._renderer = TableRenderer(
            described,
            table,
            paging,
            zero_dates=settings.zero_dates,
            mark="true" if self._job.initial else "incremental",
        )
        return known

    def _read_by_key(self, block: TableBlock, paging: Paging) -> None:
        request = block.request
        # One more tells whether there are more.
        statement = paging.chunk(request.after, request.until, request.limit + 1)
        whole = self._fetch(statement, block.store, request.table.label, CHUNK_BYTES)
        more = not whole or block.rows > request.limit
        if block.rows > request.limit:
            block.store.drop_last()
        block.complete = not more and not request.until
        if request.until and not more:
            block.end = request.until

    def _has_rows(self, table: Listed) -> bool:
        """Whether there is a row; one in a table that was dropped is none."""
        store = RowStore()
        try:
            self._fetch(queries.exists(table.schema, table.name), store, table.label)
        except RetryableError as error:
            if error.code != "mysql.table_changed":
                raise
            return False
        data, (start,) = store.read(0, 1)
        return values_of(data, start, 1) != ["0"]

    def _fetch(self, statement: str, store: RowStore, where: str, most: int = 0) -> bool:
        """Run a query; returns whether its rows are all in the store.

        Args:
            statement: The query.
            store: Takes its rows.
            where: Names the table.
            most: So many bytes of rows are enough; 0: all are wanted.
        """
        connection, _ = self._connect()
        result = ResultSet(store)
        try:
            connection._execute_command(_QUERY, statement)  # type: ignore[attr-defined]
            source = cast("socket.socket", vars(connection)["_sock"])
            source.settimeout(_SILENCE_S)
            while not result.done:
                data = source.recv(_READ_BYTES)
                if not data:
                    raise RetryableError("mysql.connection_lost", "the server has closed it")
                result.feed(data)
                if most and store.size > most and not result.done:
                    # There is no other way to say that it is enough.
                    self.disconnect()
                    return False
                if self._stopped.is_set():
                    raise RetryableError("mysql.snapshot_stopped", "it is not wanted any more")
        except (pymysql.Error, OSError) as error:
            raise RetryableError("mysql.connection_lost", error_parts(error)[1]) from None
        if result.refusal is not None:
            raise _refused(*result.refusal, where)
        return True


def _no_condition(message: str, table: Listed) -> ConfigError:
    return ConfigError(
        "mysql.backfill_where",
        f"the condition is none for {table.label}: {message}",
        where="where",
        cure="write what may stand behind WHERE in a query of each of the tables, or name fewer",
    )


def _planned(plan: list[dict[str, object]]) -> int:
    """How many rows an EXPLAIN expects of its first table."""
    share = str(plan[0].get("filtered") or 100)
    return int(float(str(plan[0].get("rows") or 0)) * float(share) / 100)


def _refused(number: int, message: str, where: str) -> WaxtapError:
    if number in _DENIED:
        return ConfigError(
            "mysql.select_right",
            message,
            where=where,
            cure="GRANT SELECT on the table to the account, or set `snapshot: never`",
        )
    if number in _CHANGED:
        return RetryableError("mysql.table_changed", message, where=where)
    if number in TRANSIENT:
        return RetryableError("mysql.connection_lost", message, where=where)
    return FatalError(
        "mysql.snapshot_refused",
        f"{message} ({number})",
        where=where,
        cure="see the server's log; nothing was lost",
    )
