"""The messages of pgoutput, protocol version 1, as values.

Source: PostgreSQL documentation, "Logical Replication Message Formats". LSNs are numbers, times
Unix time in microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias


class Absent(Enum):
    """What stands in a tuple for a value that the log does not carry."""

    UNCHANGED = "unchanged TOAST"


UNCHANGED: Final = Absent.UNCHANGED
Value: TypeAlias = str | Absent | None
Row: TypeAlias = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """`B`.

    Attributes:
        commit_lsn: Where the transaction's commit record starts.
        committed_at: Unix time in microseconds.
        xid: The transaction's id.
    """

    commit_lsn: int
    committed_at: int
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """`C`.

    Attributes:
        commit_lsn: As in `Begin`.
        end_lsn: Behind the transaction: what may be confirmed.
        committed_at: Unix time in microseconds.
    """

    commit_lsn: int
    end_lsn: int
    committed_at: int


@dataclass(frozen=True, slots=True)
class Origin:
    """`O`: the transaction was replicated from elsewhere."""

    commit_lsn: int
    name: str


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A column of a `Relation`.

    Attributes:
        name: Unquoted.
        type_oid: `atttypid`.
        type_modifier: `atttypmod`.
        key: Part of the replica identity.
    """

    name: str
    type_oid: int
    type_modifier: int
    key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """`R`: the shape of the tuples that follow.

    Attributes:
        oid: `pg_class.oid`.
        schema: Namespace.
        name: Unquoted.
        identity: `relreplident`: `d` default, `n` nothing, `f` full, `i` index.
        columns: In the tuples' order.
    """

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """`Y`: the name of a type that is not built in."""

    oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Insert:
    """`I`."""

    relation: int
    new: Row


@dataclass(frozen=True, slots=True)
class Update:
    """`U`.

    Attributes:
        relation: `pg_class.oid`.
        kind: What `old` is: `K` the old key (other columns are None), `O` the whole old row, or
            empty when there is none.
        old: The old tuple.
        new: The new row.
    """

    relation: int
    kind: str
    old: Row | None
    new: Row


@dataclass(frozen=True, slots=True)
class Delete:
    """`D`; attributes as in `Update`."""

    relation: int
    kind: str
    old: Row


@dataclass(frozen=True, slots=True)
class Truncate:
    """`T`: several tables at once."""

    relations: tuple[int, ...]
    cascade: bool
    restart_identity: bool


@dataclass(frozen=True, slots=True)
class Message:
    """`M`: `pg_logical_emit_message`."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


LogicalMessage: TypeAlias = (
    Begin | Commit | Origin | Relation | Type | Insert | Update | Delete | Truncate | Message
)
