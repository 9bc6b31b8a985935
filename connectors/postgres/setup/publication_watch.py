"""Looks after the publication while it is read from.

Adds tables and schemas that match the patterns to one of ours when they appear, and tells what
others have changed.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from connectors.errors import FatalError, RetryableError
from connectors.postgres.server import Connection, connect
from connectors.postgres.setup import inventory, publication
from connectors.postgres.setup.gaps import publication_gone
from connectors.postgres.setup.prepare import is_ours
from connectors.postgres.setup.publication_drift import changes, terms

if TYPE_CHECKING:
    from connectors.postgres.setup.publication_drift import Terms
    from connectors.postgres.setup.settings import Settings

INTERVAL_S = 2.0
# Where no table waits to be added.
RARELY_S = 10.0
_GOES_ON_SINCE = 180000

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class PublicationWatch:
    """Looks every two or ten seconds, in a thread and on a connection of its own.

    A table that appears is published from the moment it was added on. One whose rows could not be
    told apart is left out with a warning: publishing it would make the UPDATEs of its users fail.

    Attributes:
        problem: Set once the publication was dropped, on a server that goes on without it.

    Args:
        settings: The source's.
        growing: Whether tables are to be added.
    """

    def __init__(self, settings: Settings, *, growing: bool) -> None:
        self.problem: FatalError | None = None
        self._settings = settings
        self._growing = growing
        self._interval = INTERVAL_S if growing else RARELY_S
        self._oid = 0
        self._terms: Terms | None = None
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
                        connection = connect(self._settings.writable_dsn, self._settings.source)
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
        if found is None or (self._oid and found.oid != self._oid):
            self._dropped(connection.info.server_version)
        if found is None:
            return
        self._oid = found.oid
        tables = inventory.list_tables(connection)
        now = terms(connection, found, self._settings.wants)
        if self._terms is not None:
            existing = [(table.schema, table.name) for table in tables]
            for told in changes(self._terms, now, existing):
                _log.warning(
                    "the publication was changed",
                    source=self._settings.source,
                    publication=found.name,
                    what=told,
                )
        self._terms = now
        if not self._growing or not is_ours(found, self._settings):
            return
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

    def _dropped(self, version: int) -> None:
        """Older servers refuse to go on at the next change; newer ones leave it out."""
        if version < _GOES_ON_SINCE:
            self._warn(
                "publication gone",
                "the publication was dropped: the source stops at the next change",
            )
        elif self.problem is None:
            self.problem = publication_gone(
                "it was dropped, and changes are left out since", self._settings.publication
            )

    def _warn(self, key: str, event: str, **details: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            _log.warning(event, source=self._settings.source, reason=key, **details)
