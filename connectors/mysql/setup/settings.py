"""A source's configuration with every default filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING
from uuid import UUID

from connectors.mysql.dsn import Dsn, parse_dsn
from connectors.mysql.setup.patterns import TablePattern, parse_patterns

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.mysql.binlog.progress import Resume
    from connectors.mysql.spec import MariadbSourceSpec, MysqlSourceSpec

# Where server ids of our own making begin: people number their servers from the other end.
_FIRST_ID = 1 << 31


@dataclass(frozen=True, slots=True)
class Settings:
    """What a source's parts need to know.

    Attributes:
        source: The source's name.
        type: `mysql` or `mariadb`.
        dsn: Where its servers are.
        patterns: Which tables it captures.
        tables: A digest of the patterns.
        server_id: As which replica it registers.
        replica: Its identity as a replica; a newer session of the same source ends an older one.
        stop_at_statements: Whether changes that were logged as statements are an error.
        zero_dates: Whether dates that no calendar has are written as they are.
        snapshot: `initial`, `never` or `only`.
        snapshot_readers: Over how many connections a snapshot reads at once.
        accept: Losses that the user has accepted, by token.
        ddl: Whether DDL statements are told.
    """

    source: str
    type: str
    dsn: Dsn = field(repr=False)
    patterns: tuple[TablePattern, ...]
    tables: str
    server_id: int
    replica: UUID
    stop_at_statements: bool
    zero_dates: bool
    snapshot: str
    snapshot_readers: int
    accept: frozenset[str]
    ddl: bool = False

    @property
    def mariadb(self) -> bool:
        """Which kind of server it is."""
        return self.type == "mariadb"

    def accepts_gap(self, resume: Resume) -> bool:
        """Whether the user accepts that the changes behind this place are missing."""
        return gap_token(self.source, resume) in self.accept


def gap_token(source: str, resume: Resume) -> str:
    """What names the loss of what follows a place in the log."""
    digest = blake2b(resume.gtids.encode(), digest_size=4).hexdigest()
    return f"gap:{source}@{resume.file}:{resume.offset}:{digest}"


def resolve(
    source: str,
    spec: MysqlSourceSpec | MariadbSourceSpec,
    accept: Collection[str] = (),
    *,
    ddl: bool = False,
) -> Settings:
    """Fill in the defaults.

    Raises:
        ConfigError: `mysql.dsn` or `mysql.table_pattern`.
    """
    digest = blake2b(f"waxtap/{source}".encode(), digest_size=16).digest()
    own_id = _FIRST_ID | int.from_bytes(digest[:4], "big")
    patterns = "\n".join(sorted(spec.tables))
    return Settings(
        source=source,
        type=spec.type,
        dsn=parse_dsn(spec.dsn.get_secret_value()),
        patterns=parse_patterns(spec.tables),
        tables=blake2b(patterns.encode(), digest_size=4).hexdigest(),
        server_id=spec.server_id or own_id,
        replica=UUID(bytes=digest),
        stop_at_statements=spec.statements == "stop",
        zero_dates=spec.zero_dates == "as_text",
        snapshot=spec.snapshot,
        snapshot_readers=spec.snapshot_readers,
        accept=frozenset(accept),
        ddl=ddl,
    )
