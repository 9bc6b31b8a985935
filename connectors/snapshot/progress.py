"""How far a snapshot is, as the checkpoint's state carries it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from connectors.errors import FatalError, GapError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.contracts.source import Checkpoint

# Where it stands in `Checkpoint.state`; without it there is no snapshot, and never was.
STATE = "snapshot"
# The same of a backfill; the last one stays there when it is done.
BACKFILL = "backfill"


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """From where a snapshot goes on.

    Tables are read in the order of their ids, which must sort as text: everything before `table` is
    done, so that the state stays small however many tables there are.

    Attributes:
        table: The id of the table that was read last; empty: none yet.
        after: What its last stored row is found by, as text: the key's columns in the key's order,
            or what else the connector pages by. Empty: from the table's beginning.
        complete: `table` is done as well.
        rows: How many rows were read so far, of all tables.
        done: All tables are done.
    """

    table: str = ""
    after: tuple[str, ...] = ()
    complete: bool = False
    rows: int = 0
    done: bool = False

    def reached(self, table: str, after: tuple[str, ...], rows: int) -> Progress:
        """`rows` more were read, up to the one that `after` names."""
        return Progress(table, after, rows=self.rows + rows)

    def ended(self, table: str, rows: int) -> Progress:
        """`rows` more were read, the last ones of this table."""
        return Progress(table, complete=True, rows=self.rows + rows)

    def finished(self) -> Progress:
        """Nothing is left to read."""
        return Progress(rows=self.rows, done=True)

    def begins(self, table: str) -> bool:
        """Whether this table is still to be read, at least in part."""
        return not self.done and (table > self.table or (table == self.table and not self.complete))

    @property
    def encoded(self) -> str:
        """The value in the state; `read` reads it back. In ASCII: it stands in a header."""
        return json.dumps(msgspec.to_builtins(self), separators=(",", ":"))


def read(state: Mapping[str, str]) -> Progress | None:
    """The progress in a checkpoint's state; None: there is no snapshot.

    Raises:
        FatalError: `snapshot.state_unreadable`: a later version wrote it, or it is damaged.
    """
    text = state.get(STATE)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Progress)
    except msgspec.MsgspecError as error:
        raise FatalError(
            "snapshot.state_unreadable",
            f"the state of the snapshot in the stream's checkpoint cannot be read: {error}",
            cure="run the version that wrote it, or a later one",
        ) from error


def is_done(state: Mapping[str, str]) -> bool:
    """Whether a checkpoint's state tells of a snapshot that is complete. Raises as `read`."""
    progress = read(state)
    return progress is not None and progress.done


def check_repeatable(connector: str, resume: Checkpoint | None, goal: Checkpoint) -> None:
    """Check that no row of a snapshot lies between two checkpoints: it cannot be read again.

    Raises:
        GapError: `<connector>.snapshot_between`.
    """
    state = resume.state if resume else {}
    if any(state.get(key) != goal.state.get(key) for key in (STATE, BACKFILL)):
        raise GapError(
            f"{connector}.snapshot_between",
            "rows of a snapshot are among what the stream holds, and their tables have changed",
        )
