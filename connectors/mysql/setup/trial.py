"""What would keep a source that starts anew from starting, found without changing anything."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from connectors.errors import WaxtapError
from connectors.mysql.replication.connection import DumpConnection
from connectors.mysql.setup import history, preflight
from connectors.mysql.snapshot.tables import check_rights
from connectors.trials import findings

if TYPE_CHECKING:
    from connectors.mysql.server import Connection
    from connectors.mysql.setup.settings import Settings

_HALF = 2**31


def try_out(settings: Settings) -> list[WaxtapError]:
    """The errors that a start would end with, each told once."""
    # The server ends an older session of the same replica: this is to be another one.
    guest = replace(settings, server_id=_HALF + secrets.randbelow(_HALF - 1), replica=uuid4())
    try:
        stream = DumpConnection(guest)
    except WaxtapError as error:
        return [error]
    try:
        connection = stream.connection
        server = preflight.look(connection)
        found = findings(
            lambda: preflight.check_kind(server, settings),
            lambda: preflight.check_log(server),
            lambda: preflight.check_replica(connection, server, settings),
            lambda: _check_rights(connection, settings),
        )
        # Whether this account may read the log, only the server can tell.
        return found or findings(
            lambda: stream.start(
                history.beginning(connection, server, settings).start(mariadb=server.mariadb)
            )
        )
    except WaxtapError as error:
        return [error]
    finally:
        stream.close()


def _check_rights(connection: Connection, settings: Settings) -> None:
    if settings.snapshot != "never":
        check_rights(connection, settings.patterns)
