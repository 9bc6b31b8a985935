"""The PostgreSQL sink: rows and offset in one transaction, so that each change counts once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from connectors.errors import ConfigError, RetryableError
from connectors.postgres.conninfo import ordinary
from connectors.postgres.server import one_line
from connectors.postgres.target import offsets
from connectors.postgres.target.session import connect, is_transient
from connectors.postgres.target.writer import PostgresWriter
from connectors.trials import findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.contracts.sink import Claim, Share, SinkContext, SinkWriter
    from connectors.errors import WaxtapError
    from connectors.postgres.spec import SinkSpec
    from connectors.postgres.target.session import Session

MINIMUM_VERSION = 130000


class PostgresSink:
    """A PostgreSQL database that follows the topics it reads; see `contracts.Sink`.

    Args:
        name: The sink's name in the configuration.
        spec: Its target.
        context: Whose `stop` ends the waiting for a target that is in trouble.

    Raises:
        ConfigError: `postgres.dsn`: not a connection string.
    """

    def __init__(self, name: str, spec: SinkSpec, context: SinkContext) -> None:
        ordinary(spec.dsn.get_secret_value(), name)
        self._name = name
        self._spec = spec
        self._stop = context.stop

    @property
    def whole_transactions(self) -> bool:
        """As configured; otherwise a transaction of the target holds whole batches."""
        return self._spec.transactions

    def check(self) -> list[WaxtapError]:
        """What would keep the sink from starting; the bookkeeping tables are tried and rolled back.

        Returns:
            One clear error, or none.
        """
        return findings(self._try)

    def claim(self, share: Share) -> Claim:
        """Become the only writer of the share, and read where it stands.

        Raises:
            ConfigError: `postgres.login`, `postgres.version`, `postgres.rights`: the bookkeeping
                tables cannot be used.
            RetryableError: The target cannot be reached, or the claim is locked.
        """
        with self._session() as session:
            offsets.create(session)
            return offsets.take(session, share)

    def offsets(self, share: Share) -> dict[str, int]:
        """Read from where a claim would go on. Raises as `claim`."""
        with self._session() as session:
            return offsets.read(session, share)

    def reset(self, share: Share, upto: int) -> None:
        """Let the next claim go on behind `upto`. Raises as `claim`."""
        with self._session() as session:
            offsets.create(session)
            offsets.place(session, share, upto)

    def open(self, claim: Claim) -> SinkWriter:
        """Make the writer for a claim; it connects when it has something to write."""
        return PostgresWriter(self._spec, claim, self._stop)

    def _try(self) -> None:
        with self._session() as session, session.transaction(force_rollback=True):
            offsets.create(session)
            offsets.check_rights(session)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """A session for the bookkeeping, whose errors are told as those of `claim`."""
        with self._connect() as session:
            try:
                yield session
            except psycopg.Error as error:
                raise self._refused(session, error) from None

    def _connect(self) -> Session:
        session = connect(self._spec.dsn.get_secret_value(), self._name)
        version = session.info.server_version
        if version < MINIMUM_VERSION:
            session.close()
            raise ConfigError(
                "postgres.version",
                f"the target is PostgreSQL {version // 10000}; 13 or newer is needed",
                where=f"sink {self._name}",
            )
        return session

    def _refused(self, session: Session, error: psycopg.Error) -> WaxtapError:
        """What it means that the bookkeeping tables could not be used."""
        reason = one_line(error.diag.message_primary or str(error))
        if is_transient(error):
            return RetryableError("postgres.claim_failed", reason, where=f"sink {self._name}")
        role, database = (
            sql.Identifier(part).as_string(session)
            for part in (session.info.user, session.info.dbname)
        )
        return ConfigError(
            "postgres.rights",
            f"the bookkeeping tables of schema waxtap cannot be used: {reason}",
            where=f"sink {self._name}",
            cure=f"GRANT CREATE ON DATABASE {database} TO {role}; or, where the tables "
            f"exist, GRANT USAGE ON SCHEMA waxtap TO {role}; GRANT SELECT, INSERT, "
            f"UPDATE, DELETE ON ALL TABLES IN SCHEMA waxtap TO {role}",
        )
