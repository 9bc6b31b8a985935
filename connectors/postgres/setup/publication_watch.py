"""Adds tables and schemas that match the patterns to a publication of ours when they appear."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from connectors.errors import FatalError, RetryableError
from connectors.postgres.server import Connection, connect
from connectors.postgres.setup import inventory, publication
from connectors.postgres.setup.prepare import is_ours

if TYPE_CHECKING:
    from connectors.postgres.setup.settings import Settings

INTERVAL_S = 2.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class PublicationWatch:
    """Looks every two seconds, in a thread and on a connection of its own.

    A table that appears is published from the moment it was added on. One whose rows could not be
    told apart is left out with a warning: publishing it would make the UPDATEs of its users fail.

    Args:
        settings: The source's.
        interval: Seconds between two looks.
    """

    def __init__(self, settings: Settings, interval: float = INTERVAL_S) -> None:
        self._settings = settings
        self._interval = interval
        self._stopped = threading.Event()
        self._warned: set[str] = set()
        self._thread = threading.Thread(
            target=self._run, name=f"waxtap-{settings.source}-publication", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End; waits for a moment at most. Never raises."""
        self._stopped.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        connection: Connection | None = None
        try:
            while not self._stopped.wait(self._interval):
                try:
                    if connection is None or connection.closed:
                        connection = connect(self._settings.dsn, self._settings.source)
                    self._look(connection)
                except RetryableError:
                    # The reader reports a server that is gone; a lock that was taken is tried for
                    # again at the next look.
                    continue
                except FatalError as error:
                    self._warn(str(error), "tables cannot be added to the publication")
        finally:
            if connection is not None:
                connection.close()

    def _look(self, connection: Connection) -> None:
        found = publication.find(connection, self._settings.publication)
        if found is None or not is_ours(found, self._settings):
            self._warn("publication gone", "the publication was dropped or replaced")
            return
        tables = inventory.list_tables(connection)
        selected = inventory.select(tables, self._settings.patterns)
        wanted = publication.desired_scope(connection, self._settings.patterns, selected)
        if wanted.everything != found.scope.everything:
            return
        new_tables = {
            table
            for table in selected
            if (table.schema, table.name) in wanted.tables - found.scope.tables
        }
        refused = set()
        for table in new_tables:
            unidentified = [
                stored for stored in inventory.storage(tables, [table]) if not stored.identified
            ]
            if unidentified:
                refused.add(table)
                self._warn(
                    f"identity {table}",
                    "a new table is not captured: its rows cannot be told apart",
                    table=str(table),
                    cure=f"ALTER TABLE {table.identifier.as_string()} REPLICA IDENTITY FULL",
                )
        addition = publication.Scope(
            schemas=wanted.schemas - found.scope.schemas,
            tables=frozenset((table.schema, table.name) for table in new_tables - refused),
        )
        if not addition.tables and not addition.schemas:
            return
        publication.add(connection, found.name, addition)
        _log.info(
            "added to the publication",
            source=self._settings.source,
            tables=sorted(".".join(table) for table in addition.tables),
            schemas=sorted(addition.schemas),
            note="rows that were there before are told by a backfill only: waxtap backfill start",
        )

    def _warn(self, key: str, event: str, **details: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            _log.warning(event, source=self._settings.source, reason=key, **details)
