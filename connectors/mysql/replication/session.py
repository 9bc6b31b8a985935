"""One stretch of streaming: a connection and its decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from connectors.contracts.source import Checkpoint
from connectors.errors import ConfigError
from connectors.mysql.binlog.decoder import Decoder
from connectors.mysql.binlog.position import log_place
from connectors.mysql.binlog.progress import Progress, Resume, parse_resume
from connectors.mysql.binlog.tables import Tables
from connectors.mysql.replication.catalog import ServerCatalog
from connectors.mysql.replication.connection import DumpConnection
from connectors.mysql.setup import history, preflight
from connectors.mysql.setup.patterns import wanted

if TYPE_CHECKING:
    from connectors.mysql.setup.settings import Settings


@dataclass(frozen=True, slots=True)
class Session:
    """What a reader reads from.

    Attributes:
        stream: The connection, streaming.
        decoder: Set up to hand out what follows the checkpoint that the session started from.
        checkpoint: Behind which it started, as this server's state tells it.
        server: The server's identity.
        log_end: Where its log ended, as `position.log_place` counts it, once it was known to hold
            all that precedes the checkpoint.
    """

    stream: DumpConnection
    decoder: Decoder
    checkpoint: Checkpoint
    server: str
    log_end: int

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        self.stream.close()


def start(settings: Settings, checkpoint: Checkpoint | None, *, first: bool) -> Session:
    """Check the server and start streaming behind a checkpoint.

    Args:
        settings: The source's.
        checkpoint: Behind which to start; None: at the end of the log.
        first: Whether the source is only being opened: then everything is checked.

    Raises:
        ConfigError: What has to be set up first.
        GapError: The server no longer has what follows.
        RetryableError: The server cannot be reached, or has yet to replicate what precedes.
    """
    resume = parse_resume(checkpoint) if checkpoint is not None else None
    stream = DumpConnection(settings)
    try:
        connection = stream.connection
        server = preflight.look(connection)
        preflight.check_kind(server, settings)
        preflight.check_log(server)
        if first:
            preflight.check_replica(connection, server, settings)
        if resume is None:
            resume = history.beginning(connection, server, settings)
            number = 0
        else:
            resume = _with_tables(history.check(connection, server, settings, resume), settings)
            number = history.generation(connection, server, resume)
        end = log_place(*preflight.log_status(connection, server))
        position = checkpoint.position if checkpoint is not None else ""
        tables = Tables(
            settings.source,
            ServerCatalog(settings, connection, server),
            wanted(settings.patterns, fold=server.folds_names),
            mariadb=server.mariadb,
            zero_dates=settings.zero_dates,
            compiled=True,
        )
        decoder = Decoder(
            settings.source,
            tables,
            resume=resume,
            position=position,
            server=server.identity,
            generation=number,
            mariadb=server.mariadb,
            stop_at_statements=settings.stop_at_statements,
            ddl=settings.ddl,
        )
        stream.start(resume.start(mariadb=server.mariadb))
    except BaseException:
        stream.close()
        raise
    if checkpoint is None:
        progress = Progress(resume, server.identity, number, mariadb=server.mariadb)
        checkpoint = Checkpoint("", progress.state())
    return Session(stream, decoder, checkpoint, server.identity, end)


def _with_tables(resume: Resume, settings: Settings) -> Resume:
    """Take note of the present patterns.

    Raises:
        ConfigError: `mysql.tables_changed`: a transaction is stored in part, and its rows were
            counted under others.
    """
    if resume.tables == settings.tables:
        return resume
    for gtid in resume.partial:
        raise ConfigError(
            "mysql.tables_changed",
            f"the stream may hold only a part of the transaction {gtid.source}{gtid.number}, whose"
            " rows were counted under the former `tables`",
            where=f"sources.{settings.source}.tables",
            cure="start the source once with the former patterns, and change them after that",
        )
    return replace(resume, tables=settings.tables)
