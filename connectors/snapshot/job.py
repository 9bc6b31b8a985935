"""What rows are read for: a source's first snapshot, or a backfill that somebody has asked for."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from connectors.contracts.backfills import INITIAL, BackfillStatus, Stage
from connectors.errors import ConfigError, FatalError
from connectors.snapshot.progress import BACKFILL, STATE, Progress, read

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Kept(msgspec.Struct, frozen=True):
    id: str
    progress: Progress


@dataclass(frozen=True, slots=True)
class Job:
    """What is read, and for whom.

    Attributes:
        id: `initial`, or the backfill's.
        tables: Patterns within what the source captures; empty: all of that.
        where: A condition in the source's SQL that rows must fulfil, untrusted; empty: none.
        sink: The only sink that is given the rows; empty: all are.
        beside: What the checkpoint's state holds besides, and keeps.
    """

    id: str = INITIAL
    tables: tuple[str, ...] = ()
    where: str = ""
    sink: str = ""
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def initial(self) -> bool:
        """Whether it is the source's first snapshot."""
        return self.id == INITIAL

    def state(self, progress: Progress) -> dict[str, str]:
        """What the checkpoint's state holds of all snapshots, once this one is so far."""
        if self.initial:
            return {**self.beside, STATE: progress.encoded}
        kept = msgspec.to_builtins(_Kept(self.id, progress))
        # In ASCII: it stands in a header.
        return {**self.beside, BACKFILL: json.dumps(kept, separators=(",", ":"))}


def read_backfill(state: Mapping[str, str]) -> tuple[str, Progress]:
    """The last backfill that a checkpoint's state tells of: its id, and how far it is.

    Returns:
        An empty id where there was none.

    Raises:
        FatalError: `snapshot.state_unreadable`: a later version wrote it, or it is damaged.
    """
    text = state.get(BACKFILL)
    if text is None:
        return "", Progress()
    try:
        kept = msgspec.json.decode(text, type=_Kept)
    except msgspec.MsgspecError as error:
        raise FatalError(
            "snapshot.state_unreadable",
            f"the state of the backfill in the stream's checkpoint cannot be read: {error}",
            cure="run the version that wrote it, or a later one",
        ) from error
    return kept.id, kept.progress


def ended(state: Mapping[str, str]) -> BackfillStatus:
    """What is told of a first snapshot that was done before this process. Raises as `read`."""
    progress = read(state) or Progress()
    return BackfillStatus(Stage.DONE, rows=progress.rows, ended=time.time_ns())


def no_table(connector: str, job: Job) -> ConfigError:
    """The error for a backfill none of whose tables is captured."""
    return ConfigError(
        f"{connector}.backfill_tables",
        f"no table that is captured matches {', '.join(job.tables)}",
        where="tables",
        cure="name tables that the source captures, as in its own `tables`",
    )


def beside(state: Mapping[str, str], key: str) -> dict[str, str]:
    """What a checkpoint's state tells of snapshots but for those under `key`."""
    return {name: state[name] for name in (STATE, BACKFILL) if name != key and name in state}
