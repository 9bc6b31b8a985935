"""What would keep a source that starts anew from starting, found without changing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import WaxtapError
from connectors.postgres.server import connect
from connectors.postgres.setup import gaps, preflight, slot
from connectors.postgres.setup.prepare import prepare_publication, slot_unknown
from connectors.postgres.setup.primary import primary
from connectors.postgres.snapshot.tables import published
from connectors.trials import findings

if TYPE_CHECKING:
    from connectors.postgres.server import Connection
    from connectors.postgres.setup.settings import Settings


def try_out(settings: Settings) -> list[WaxtapError]:
    """The errors that a start would end with, each told once."""
    try:
        connection = connect(settings.dsn, settings.source)
    except WaxtapError as error:
        return [error]
    with connection:
        return findings(
            lambda: preflight.check_server(connection, settings),
            lambda: _try_publication(connection, settings),
            lambda: _check_slot(connection, settings),
        )


def _try_publication(connection: Connection, settings: Settings) -> None:
    # Whether this role may create or alter it, only the server can tell.
    with primary(connection, settings) as writable, writable.transaction(force_rollback=True):
        prepare_publication(writable, settings)
        if settings.snapshot != "never":
            published(writable, settings.publication, settings.wants)
        elif settings.reselects:
            published(writable, settings.publication, settings.wants, "toast: mark")


def _check_slot(connection: Connection, settings: Settings) -> None:
    found = slot.find(connection, settings.slot)
    if found is None:
        if not settings.create:
            raise slot_unknown(settings)
        preflight.check_free_slot(connection, settings.slot)
        return
    preflight.check_slot(connection, found)
    if found.lost:
        raise gaps.slot_lost(found)
