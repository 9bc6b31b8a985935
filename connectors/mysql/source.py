"""The MySQL and MariaDB sources."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from connectors.contracts.source import Observation
from connectors.mysql.replication.reader import CHECKPOINT_INTERVAL_S, MysqlReader
from connectors.mysql.replication.session import start
from connectors.mysql.server import connect
from connectors.mysql.setup import history, preflight
from connectors.mysql.setup.settings import resolve
from connectors.mysql.setup.trial import try_out

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.contracts.source import Checkpoint, SourceContext
    from connectors.errors import WaxtapError
    from connectors.mysql.spec import MariadbSourceSpec, MysqlSourceSpec


class MysqlSource:
    """Implements `contracts.Source` for a MySQL (8.0.1 or newer) or MariaDB (10.5) server.

    Args:
        name: The source's name in the configuration.
        spec: Its configuration, which tells the kind of server.
        accept: Losses that the owner has accepted, by the tokens that the errors named.
        context: Not needed: the server remembers.
        checkpoint_interval: How often an idle source moves its checkpoint, in seconds.

    Raises:
        ConfigError: The DSN or a table pattern is malformed.
    """

    def __init__(
        self,
        name: str,
        spec: MysqlSourceSpec | MariadbSourceSpec,
        accept: Collection[str] = (),
        context: SourceContext | None = None,
        *,
        checkpoint_interval: float = CHECKPOINT_INTERVAL_S,
    ) -> None:
        self._settings = resolve(name, spec, accept)
        self._checkpoint_interval = checkpoint_interval

    def open(self, resume: Checkpoint | None) -> MysqlReader:
        """Check the server, and start behind `resume`; without one, at the end of its log.

        An older session of the same source is ended by the server itself.

        Raises:
            ConfigError: One clear error for each thing that must be set up first.
            GapError: The server no longer has what follows `resume`.
            RetryableError: The server cannot be reached, or did not do its part in time.
        """
        session = start(self._settings, resume, first=True)
        return MysqlReader(
            self._settings,
            session,
            anchor=resume is None,
            checkpoint_interval=self._checkpoint_interval,
        )

    def check(self) -> list[WaxtapError]:
        """What would keep the source from starting anew; changes nothing on the server.

        The log is read for a moment, as a replica that is another one than the source.

        Returns:
            One clear error for each thing that was found.
        """
        return try_out(self._settings)

    def observe(self, stored: Checkpoint | None) -> Observation:
        """Ask the server where it is; see `contracts.Observable`.

        What a binary log holds behind a GTID set cannot be told in bytes.
        """
        with closing(connect(self._settings.dsn, self._settings.source)) as connection:
            server = preflight.look(connection)
            return Observation(history.executed(connection, server))

    def owned(self) -> list[str]:
        """Nothing, as there is nothing to drop."""
        return []

    def drop(self) -> list[str]:
        """Nothing: a source leaves nothing behind on its server.

        Returns:
            An empty list.
        """
        return []
