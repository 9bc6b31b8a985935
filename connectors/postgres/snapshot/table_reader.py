"""Reads PostgreSQL tables for snapshots."""

from __future__ import annotations

import select
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, LiteralString, cast

import psycopg
from psycopg import pq, sql

from connectors.errors import ConfigError, FatalError, RetryableError
from connectors.postgres.pgoutput.lsn import parse_lsn
from connectors.postgres.pgoutput.types import TypeResolver
from connectors.postgres.replication.catalog import ServerCatalog
from connectors.postgres.server import one_line, rows
from connectors.postgres.snapshot import copy_text, queries, tables
from connectors.postgres.snapshot.block import TableBlock
from connectors.postgres.snapshot.reading_connection import connect_to_read, refusal
from connectors.postgres.snapshot.rendering import TableRenderer
from connectors.postgres.snapshot.visibility import parse_visible, short
from connectors.snapshot.job import Job, no_table
from connectors.snapshot.reading import Cut, Request, Survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.errors import WaxtapError
    from connectors.postgres.server import Connection
    from connectors.postgres.setup.settings import Settings
    from connectors.postgres.snapshot.tables import Described, Published

# A chunk is cut when its rows are this large, so that two of them are no burden.
CHUNK_BYTES = 8 * 1024 * 1024


# A standby does not tell which transactions run on its primary, only before which one all have
# ended: what follows counts as not seen. What it sends it has replayed, and shows.
_SEEN = """
SELECT CASE WHEN pg_is_in_recovery()
         THEN format('%1$s:%1$s:', pg_snapshot_xmin(pg_current_snapshot()))
         ELSE pg_current_snapshot()::text END,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
         ELSE pg_current_wal_insert_lsn() END::text,
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint
"""


class PostgresTableReader:
    """Implements `snapshot.reading.TableReader`.

    Args:
        settings: The source's.
        wanted: Whether a table (schema, name) is captured, and asked for.
        job: What is read.
    """

    def __init__(
        self, settings: Settings, wanted: Callable[[str, str], bool], job: Job | None = None
    ) -> None:
        self._settings, self._wanted, self._job = settings, wanted, job or Job()
        self._stopped = threading.Event()
        self._connection: Connection | None = None
        self._search_path = ""
        self._catalog = ServerCatalog(settings.dsn, settings.source)
        self._renderers: dict[int, TableRenderer] = {}

    def survey(self) -> Survey[Published]:
        """As `TableReader.survey`."""
        connection = self._connect()
        found = tables.published(connection, self._settings.publication, self._wanted)
        if not found and not self._job.initial:
            raise no_table("postgres", self._job)
        if not self._job.initial:
            found = [self._checked(connection, table) for table in found]
        # Its list has none of those that began behind the last one that ended; their locks have.
        ((running, synchronous),) = rows(
            connection,
            "SELECT ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot())::text"
            " UNION SELECT transactionid::text FROM pg_locks"
            " WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted),"
            " current_setting('synchronous_standby_names') <> ''",
        )
        running = tuple(short(xid) for xid in cast("list[str]", running))
        return Survey(tuple(found), running, bool(synchronous))

    def cut(self, cut: Cut[Published]) -> tuple[str, ...] | None:
        """As `TableReader.cut`; where rows are paged by their place, after so many pages."""
        connection = self._connect()
        described = tables.describe(connection, self._settings.publication, cut.table)
        if described is None:
            return ()
        if not described.key:
            return _pages_on(described, cut.after, cut.limit)
        statement = queries.bound(
            described, cut.after, cut.limit, partitioned=cut.table.partitioned
        )
        _command(connection, "BEGIN READ ONLY")
        lines, _ = self._copy(connection, statement)
        _command(connection, "COMMIT")
        # The row itself, and one behind it.
        return copy_text.at(lines[0], tuple(range(len(described.key)))) if len(lines) > 1 else ()

    def read(self, request: Request[Published]) -> TableBlock:
        """As `TableReader.read`."""
        try:
            return self._read(request)
        except FatalError as error:
            if self._job.where and not isinstance(error, ConfigError):
                # Only some rows show what is wrong with it, such as a division by zero.
                raise _no_condition(error.message, request.table) from None
            raise

    def _read(self, request: Request[Published]) -> TableBlock:
        connection = self._connect()
        _command(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # The first statement takes the snapshot; whatever the snapshot sees is in the log before
        # the end that is asked for behind it.
        ((visible, wal_end, read_ms),) = rows(connection, _SEEN)
        block = TableBlock(
            request, parse_visible(str(visible)), parse_lsn(str(wal_end)), cast("int", read_ms)
        )
        described = tables.describe(connection, self._settings.publication, request.table)
        if described is not None and self._job.where:
            described = described.restricted(self._job.where)
        if described is None:
            block.complete = True
        else:
            block.renderer = self._renderer(connection, described)
            if described.key:
                self._read_by_key(connection, block, described)
            else:
                self._read_by_place(connection, block, described)
        if block.complete and self._job.initial:
            block.final = not any(self._has_rows(connection, each) for each in request.following)
        _command(connection, "COMMIT")
        return block

    def nudge(self) -> None:
        """As `TableReader.nudge`: a transaction that has done nothing but begin is enough.

        A standby shows what it has replayed, which is written down.
        """
        rows(
            self._connect(),
            "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_xact_id()::text END",
        )

    def stop(self) -> None:
        """As `TableReader.stop`."""
        self._stopped.set()

    def disconnect(self) -> None:
        """As `TableReader.disconnect`."""
        self._catalog.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        settings = self._settings
        connection, self._search_path = connect_to_read(settings)
        self._connection = connection
        self._catalog = ServerCatalog(settings.dsn, settings.source, connection)
        return connection

    def _checked(self, connection: Connection, table: Published) -> Published:
        """A table, if the condition is one of it; its estimate is that of the rows that fulfil it.

        Raises:
            ConfigError: `postgres.backfill_where`: it is none.
        """
        described = tables.describe(connection, self._settings.publication, table)
        if described is None:
            return table
        relation = described.relation
        statements = queries.explained(
            (relation.schema, relation.name),
            self._job.where or "true",
            partitioned=table.partitioned,
        )
        _command(connection, "BEGIN READ ONLY")
        try:
            rows(connection, "SELECT set_config('search_path', %s, true)", self._search_path)
            # Prepared, it is one statement and no more, whatever the condition holds.
            prepared = connection.pgconn.prepare(b"", statements.check.encode())
            if prepared.status != pq.ExecStatus.COMMAND_OK:
                raise _unprepared(prepared, table)
            try:
                ((plan,),) = rows(connection, statements.explain)
            except FatalError as error:
                raise _no_condition(error.message, table) from None
        finally:
            _command(connection, "ROLLBACK")
        return replace(table, estimated=0 if table.leaf else _planned(plan))

    def _renderer(self, connection: Connection, described: Described) -> TableRenderer:
        relation = described.relation
        known = self._renderers.get(relation.oid)
        # Under identity FULL the key is asked from the catalog.
        if known is None or known.relation != relation or relation.identity == "f":
            known = TableRenderer(
                relation,
                self._settings.source,
                connection.info.dbname,
                TypeResolver(self._catalog),
                self._catalog,
                "true" if self._job.initial else "incremental",
            )
            self._renderers = {relation.oid: known}
        return known

    def _read_by_key(self, connection: Connection, block: TableBlock, described: Described) -> None:
        request = block.request
        # One more tells whether there are more.
        statement = queries.by_key(
            described,
            request.after,
            request.until,
            request.limit + 1,
            partitioned=request.table.partitioned,
        )
        block.lines, whole = self._copy(connection, statement)
        block.key = tuple(column.index for column in described.key)
        more = not whole or len(block.lines) > request.limit
        del block.lines[request.limit :]
        block.complete = not more and not request.until
        if request.until and not more:
            block.end = request.until

    def _read_by_place(
        self, connection: Connection, block: TableBlock, described: Described
    ) -> None:
        """Read the next pages that hold a row, up to the limit."""
        request = block.request
        file = str(described.filenode)
        # A table that was written anew (VACUUM FULL, CLUSTER) has other places.
        place = request.after[1] if request.after and request.after[0] == file else "(0,0)"
        block.leading, block.key, block.filenode = 1, (0,), file
        holder = _name(connection, request.table)
        if holder is None:
            block.complete = True
            return
        until = request.until if request.until and request.until[0] == file else ()
        last = _page(until[1]) + 1 if until else described.pages
        while not block.lines and not block.complete:
            end = min(_page(place) + queries.PAGES, max(last, 1))
            statement = queries.by_place(holder, described, place, end, request.limit)
            block.lines, whole = self._copy(connection, statement)
            if whole and len(block.lines) < request.limit:
                block.complete = end >= last and not until
                place = _behind_page(end - 1)
                block.end = (file, place)
                if block.end == until:
                    break
            if self._stopped.is_set():
                break

    def _has_rows(self, connection: Connection, table: Published) -> bool:
        name = _name(connection, table)
        if name is None:
            return False
        statement = queries.exists(name, partitioned=table.partitioned)
        try:
            ((found,),) = connection.execute(statement).fetchall()
        except psycopg.Error as error:
            raise _refused(error, table.label) from None
        return bool(found)

    def _copy(self, connection: Connection, statement: sql.Composed) -> tuple[list[str], bool]:
        """Run a COPY; returns its lines, and whether they are all."""
        text = statement.as_string(connection)
        # What a value looks like may depend on it, as that of a regclass does.
        rows(connection, "SELECT set_config('search_path', %s, true)", self._search_path)
        pgconn = connection.pgconn
        pieces: list[bytes] = []
        size, whole = 0, True
        result = pgconn.exec_(text.encode())
        if result.status != pq.ExecStatus.COPY_OUT:
            raise _failure(result)
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN)
        get = pgconn.get_copy_data
        try:
            while True:
                taken, data = get(1)
                if taken > 0:
                    if size <= CHUNK_BYTES:
                        pieces.append(bytes(data))
                        size += taken
                    elif whole:
                        whole = False
                        pgconn.get_cancel().cancel()
                elif taken == 0:
                    # Waiting lets the other threads go on; what libpq itself waits in does not.
                    poll.poll()
                    pgconn.consume_input()
                else:
                    break
        except psycopg.OperationalError as error:
            raise RetryableError("postgres.connection_lost", one_line(str(error))) from None
        while (end := pgconn.get_result()) is not None:
            if end.status == pq.ExecStatus.FATAL_ERROR and whole:
                raise _failure(end)
        if not whole:
            # The transaction was cancelled with the statement; its rows are good.
            _command(connection, "ROLLBACK")
            _command(connection, "BEGIN READ ONLY")
        else:
            rows(connection, "SELECT set_config('search_path', 'pg_catalog', true)")
        return copy_text.lines(b"".join(pieces)), whole


def _page(place: str) -> int:
    return int(place[1 : place.index(",")])


def _behind_page(page: int) -> str:
    """No row has this number in its page."""
    return f"({page},65535)"


def _pages_on(described: Described, after: tuple[str, ...], limit: int) -> tuple[str, ...] | None:
    """A place behind which `limit` rows have come by the server's statistics."""
    if not described.tuples or not described.pages:
        return None
    file = str(described.filenode)
    page = _page(after[1]) if after and after[0] == file else 0
    pages = max(1, int(limit * described.pages / described.tuples))
    end = page + min(pages, queries.PAGES)
    return (file, _behind_page(end)) if end + 1 < described.pages else ()


def _planned(plan: object) -> int:
    """How many rows an EXPLAIN in JSON expects."""
    ((node),) = cast("list[dict[str, dict[str, int]]]", plan)
    return node["Plan"]["Plan Rows"]


def _unprepared(result: pq.abc.PGresult, table: Published) -> WaxtapError:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    if not state or state[:2] in ("08", "53", "57"):
        return _failure(result)
    # Not its place, which is one in a statement that nobody knows.
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
    return _no_condition(message.decode(errors="replace"), table)


def _no_condition(message: str, table: Published) -> ConfigError:
    return ConfigError(
        "postgres.backfill_where",
        f"the condition is none for {table.label}: {message}",
        where="where",
        cure="write what may stand behind WHERE in a query of each of the tables, or name fewer",
    )


def _name(connection: Connection, table: Published) -> tuple[str, str] | None:
    """Schema and name of what holds a table's rows; None: it was dropped."""
    found = rows(
        connection,
        "SELECT n.nspname::text, c.relname::text FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s::oid",
        table.leaf or table.oid,
    )
    return (str(found[0][0]), str(found[0][1])) if found else None


def _command(connection: Connection, text: LiteralString) -> None:
    try:
        connection.execute(text)
    except psycopg.Error as error:
        raise _refused(error, "") from None


def _failure(result: pq.abc.PGresult) -> WaxtapError:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(
        errors="replace"
    )
    return _meaning(state, message or one_line(result.get_error_message()), "")


def _refused(error: psycopg.Error, where: str) -> WaxtapError:
    return _meaning(error.sqlstate or "", one_line(str(error)), where)


def _meaning(state: str, message: str, where: str) -> WaxtapError:
    return refusal(state, message, where, "snapshot: never")
