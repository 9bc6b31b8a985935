"""A database on a MySQL or MariaDB server, and what its log says, decoded both ways."""

from __future__ import annotations

import secrets
import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from connectors import registry
from connectors.mysql.binlog.decoder import Decoder
from connectors.mysql.binlog.progress import parse_resume
from connectors.mysql.binlog.tables import Tables
from connectors.mysql.replication.catalog import ServerCatalog
from connectors.mysql.replication.session import start
from connectors.mysql.server import connect as connect_source
from connectors.mysql.setup.preflight import look
from connectors.mysql.setup.settings import resolve
from tests.contract.context import source_context
from tests.servers.binlog import connect, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.backfills import Backfills
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Checkpoint, Source
    from connectors.mysql.setup.settings import Settings
    from connectors.mysql.spec import MariadbSourceSpec, MysqlSourceSpec
    from control.servers.binlog_server import BinlogServer

PATIENCE = 60.0
# A change of this table ends what `Log.changes` reads.
_END = "the_end"


class Log:
    """A database of its own, and a source that reads it from its creation on.

    Args:
        type_: `mysql` or `mariadb`.
        server: Where it lies.
        settings: Of the source.
    """

    def __init__(self, type_: str, server: BinlogServer, **settings: object) -> None:
        self.type = type_
        self.server = server
        self.name = f"log_{secrets.token_hex(4)}"
        self._options = settings
        run(
            server,
            f"CREATE DATABASE {self.name} CHARACTER SET utf8mb4",
            f"CREATE TABLE {self.name}.{_END} (id int PRIMARY KEY)",
        )
        self._ends = 0
        with closing(self.source().open(None)) as reader:
            chunk = reader.read()
        assert chunk is not None
        self.begun: Checkpoint = chunk.checkpoint

    def run(self, *statements: str) -> None:
        """Run statements in one session, each committed by itself."""
        run(self.server, *statements, database=self.name)

    def execute(self, statement: str, values: Sequence[object]) -> None:
        """Run one statement with values."""
        with connect(self.server, self.name) as connection, connection.cursor() as cursor:
            cursor.execute(statement, tuple(values))

    def spec(self, **settings: object) -> MysqlSourceSpec | MariadbSourceSpec:
        """The configuration of the source, with further settings."""
        options = {
            "type": self.type,
            "dsn": self.server.dsn(),
            "tables": [f"{self.name}.*"],
            # Most tests are about the log alone.
            "snapshot": "never",
            **self._options,
            **settings,
        }
        spec: MysqlSourceSpec | MariadbSourceSpec = registry.source_spec(self.type).model_validate(
            options
        )  # type: ignore[assignment]
        return spec

    def source(self, **settings: object) -> Source:
        """The source as a new process would make it."""
        return self.asked(None, **settings)

    def asked(self, backfills: Backfills | None, /, **settings: object) -> Source:
        """The same, of which backfills are asked."""
        context = source_context(backfills=backfills)
        return registry.source(self.type, self.name, self.spec(**settings), (), context)

    def settings(self) -> Settings:
        return resolve(self.name, self.spec())

    def changes(self) -> list[Change]:
        """Every change since the beginning, decoded both ways, which must agree."""
        self._ends += 1
        self.run(f"INSERT INTO {_END} VALUES ({self._ends})")
        settings = self.settings()
        session = start(settings, self.begun, first=False)
        events: list[bytes] = []
        compiled: list[Change] = []
        deadline = time.monotonic() + PATIENCE
        with closing(session):
            while sum(_is_end(change) for change in compiled) < self._ends:
                assert time.monotonic() < deadline, f"{len(compiled)} changes in {PATIENCE} s"
                session.stream.wait(0.1)
                received = session.stream.drain().events
                events += received
                session.decoder.feed(received)
                while (chunk := session.decoder.chunk(idle=True)) is not None:
                    compiled += chunk.changes
        assert [_without_time(change) for change in compiled] == [
            _without_time(change) for change in self._exactly(settings, events)
        ]
        return [change for change in compiled if not _is_end(change)]

    def rows(self) -> list[dict[str, object]]:
        """What the changes put into tables."""
        return [after(change) for change in self.changes() if change.op in "cu"]

    def _exactly(self, settings: Settings, events: list[bytes]) -> list[Change]:
        mariadb = self.type == "mariadb"
        with closing(connect_source(settings.dsn, self.name)) as connection:
            server = look(connection)
            catalog = ServerCatalog(settings, connection, server)
        tables = Tables(
            self.name,
            catalog,
            lambda schema, _: schema == self.name,
            mariadb=mariadb,
            zero_dates=settings.zero_dates,
            compiled=False,
        )
        decoder = Decoder(
            self.name,
            tables,
            resume=parse_resume(self.begun),
            position="",
            server=server.identity,
            generation=0,
            mariadb=mariadb,
            stop_at_statements=settings.stop_at_statements,
        )
        decoder.feed(events)
        changes: list[Change] = []
        while (chunk := decoder.chunk(idle=True)) is not None:
            changes += chunk.changes
        return changes


def after(change: Change) -> dict[str, object]:
    return dict(msgspec.json.decode(change.envelope)["after"])


def _is_end(change: Change) -> bool:
    return change.table is not None and change.table.name == _END


def _without_time(change: Change) -> Change:
    head, _, rest = change.envelope.rpartition(b'"ts_ms":')
    return change._replace(envelope=head + rest.partition(b",")[2])
