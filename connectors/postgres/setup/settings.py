"""A source's configuration with every default filled in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from connectors.errors import ConfigError
from connectors.postgres.conninfo import application_name
from connectors.postgres.pgoutput.lsn import format_lsn
from connectors.postgres.setup.patterns import TablePattern, is_excluded, parse_patterns

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.postgres.spec import SourceSpec

_SLOT_NAME = re.compile(r"[a-z0-9_]{1,63}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a source's parts need to know.

    Attributes:
        source: The source's name.
        dsn: The user's connection string; a secret.
        application: The application name of its sessions.
        patterns: Which tables it captures.
        all_published: True when a publication that is not ours decides what is captured, because
            the user named no tables.
        publication: The publication's name.
        slot: The slot's name.
        default_slot: True when the slot's name is the default one.
        create: Whether to create what is missing.
        messages: Whether to capture logical decoding messages.
        snapshot: Whether the rows that are there before are read: `initial`, `never` or `only`.
        snapshot_readers: Over how many connections they are read at once.
        accept: Losses that the user has accepted, by token.
        max_slot_lag: Bytes of log that the server may keep for the slot; 0: any amount.
        on_slot_lag: What happens beyond: `warn` or `drop`.
        heartbeat_s: Seconds between two heartbeats; 0: there are none.
        heartbeat_sql: What is run with each of them; empty: nothing.
        failover: Whether standbys may copy the slot.
        primary_dsn: Leads to the primary, where `dsn` leads to a standby; a secret; empty: `dsn`
            does.
        reselects: Whether values that the log left out are read from the table.
    """

    source: str
    dsn: str = field(repr=False)
    application: str
    patterns: tuple[TablePattern, ...]
    all_published: bool
    publication: str
    slot: str
    default_slot: bool
    create: bool
    messages: bool
    snapshot: str
    snapshot_readers: int
    accept: frozenset[str]
    max_slot_lag: int = 0
    on_slot_lag: str = "warn"
    heartbeat_s: float = 0.0
    heartbeat_sql: str = ""
    reselects: bool = False
    failover: bool = True
    primary_dsn: str = field(default="", repr=False)

    @property
    def reads_standby(self) -> bool:
        """Whether the server may be a standby: whoever owns nothing there, or names the primary."""
        return bool(self.primary_dsn) or not self.create

    @property
    def writable_dsn(self) -> str:
        """Leads to where something can be written."""
        return self.primary_dsn or self.dsn

    @property
    def where(self) -> str:
        """The source's place in the configuration."""
        return f"sources.{self.source}"

    def wants(self, schema: str, name: str) -> bool:
        """Whether a table of the publication is captured."""
        if is_excluded(schema):
            return False
        return self.all_published or any(each.matches(schema, name) for each in self.patterns)

    def accepts_gap(self, lsn: int) -> bool:
        """Whether the user accepts that the changes behind this position are missing."""
        return gap_token(self.slot, lsn) in self.accept or self.accepts_new_slot(lsn)

    def accepts_new_slot(self, lsn: int) -> bool:
        """Whether the user has the slot made anew, though it still is what it was."""
        return unpublished_token(self.slot, lsn) in self.accept or self.accepts_refill(lsn)

    def accepts_refill(self, lsn: int) -> bool:
        """Whether targets are to be emptied before the tables are read again, for this gap."""
        return refill_token(self.slot, lsn) in self.accept


def gap_token(slot: str, lsn: int) -> str:
    """What names the loss of what follows a position in a slot."""
    return f"gap:{slot}@{format_lsn(lsn)}"


def refill_token(slot: str, lsn: int) -> str:
    """As `gap_token`, and has the targets' tables emptied first."""
    return f"refill:{slot}@{format_lsn(lsn)}"


def unpublished_token(slot: str, lsn: int) -> str:
    """As `gap_token`, where the slot is there but there was no publication for a while."""
    return f"unpublished:{slot}@{format_lsn(lsn)}"


def resolve(source: str, spec: SourceSpec, accept: Collection[str] = ()) -> Settings:
    """Fill in the defaults.

    Raises:
        ConfigError: A table pattern or the slot's name is malformed.
    """
    default = default_name(source)
    slot = spec.slot or default
    if not _SLOT_NAME.fullmatch(slot):
        raise ConfigError(
            "postgres.slot_name",
            f"{slot!r} cannot name a replication slot",
            where=f"sources.{source}.slot",
            cure="use lower-case letters, digits and underscores, 63 at most",
        )
    return Settings(
        source=source,
        dsn=spec.dsn.get_secret_value(),
        application=application_name(source),
        patterns=parse_patterns(spec.tables),
        all_published=not spec.create and "tables" not in spec.model_fields_set,
        publication=spec.publication or default,
        slot=slot,
        default_slot=slot == default,
        create=spec.create,
        messages=spec.messages,
        snapshot=spec.snapshot,
        snapshot_readers=spec.snapshot_readers,
        accept=frozenset(accept),
        max_slot_lag=spec.max_slot_lag,
        on_slot_lag=spec.on_slot_lag,
        heartbeat_s=spec.heartbeat.interval.total_seconds() if spec.heartbeat else 0.0,
        failover=spec.failover,
        primary_dsn=spec.primary_dsn.get_secret_value() if spec.primary_dsn else "",
        reselects=spec.toast == "reselect",
        heartbeat_sql=spec.heartbeat.sql if spec.heartbeat else "",
    )


def default_name(source: str) -> str:
    """`waxtap_<source>`, made to fit the rules for slot names without two sources colliding."""
    name = f"waxtap_{source}"
    if _SLOT_NAME.fullmatch(name):
        return name
    digest = blake2b(source.encode(), digest_size=4).hexdigest()
    return f"{re.sub(r'[^a-z0-9_]', '_', name.lower())[:54]}_{digest}"
