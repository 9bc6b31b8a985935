"""What a source has seen, as it is kept in checkpoints.

A checkpoint's state holds

    server      the server's own identity
    generation  rises with each change of server
    file        the file that was read last, and
    offset      where the last transaction in it began
    gtids       every transaction that is complete, as a set of the server's kind
    held        XA transactions that are prepared and wait for their end: their ids, each with the
                one before it in its domain
    partial     transactions that are stored in part, each with how many of its changes are: after a
                change of server others may come before they do
    tables      a digest of the table patterns, which decide how rows are counted
    inside      the transactions that the position may lie in, each with its file and offset

so that a position inside a chunk is found again on any server of the topology: what lies below it
in `inside` is complete, and of the transaction that it names, the rows up to it are. What else is
there, such as how far a snapshot is, is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from connectors.errors import FatalError
from connectors.mysql.binlog.gtids import MariadbGtids, MysqlGtids, parse_gtid_text
from connectors.mysql.binlog.position import parse_position, split_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.source import Checkpoint
    from connectors.mysql.binlog.events import Gtid

_OWN = {
    "server", "generation", "file", "offset", "gtids", "held", "partial", "tables", "inside",
}  # fmt: skip
_REQUIRED = ("server", "generation", "gtids", "tables")


class Spot(NamedTuple):
    """Where a transaction begins.

    Attributes:
        file: The file's number.
        offset: Of its GTID event.
        gtid: Its id.
    """

    file: int
    offset: int
    gtid: Gtid


@dataclass(frozen=True, slots=True)
class Resume:
    """From where a source goes on.

    Attributes:
        server: The server that was read.
        generation: Its generation.
        file: The file that was read last; empty: none yet.
        offset: Of the last transaction that began in it.
        gtids: What is complete, as the checkpoint has it.
        tables: Digest of the patterns.
        held: Prepared XA transactions, each with the transaction before it (None: MySQL, or none).
        done: Further transactions that are complete, in the log's order.
        partial: Transactions that are stored in part, and how many of their changes are.
        more: What the state holds besides.
    """

    server: str
    generation: int
    file: str
    offset: int
    gtids: str
    tables: str
    held: dict[Gtid, Gtid | None] = field(default_factory=dict)
    done: tuple[Gtid, ...] = ()
    partial: dict[Gtid, int] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)

    def seen(self, *, mariadb: bool) -> MysqlGtids | MariadbGtids:
        """Everything that is complete."""
        seen = MariadbGtids(self.gtids) if mariadb else MysqlGtids(self.gtids)
        for gtid in self.done:
            seen.add(gtid)
        return seen

    def stored(self, *, mariadb: bool) -> MysqlGtids | MariadbGtids:
        """Everything of which the stream holds something, so that every server must know it."""
        stored = self.seen(mariadb=mariadb)
        for gtid in self.partial:
            stored.add(gtid)
        return stored

    def start(self, *, mariadb: bool) -> MysqlGtids | MariadbGtids:
        """What the server need not send again: all that is complete, but held transactions."""
        start = self.seen(mariadb=mariadb)
        for gtid, before in self.held.items():
            if isinstance(start, MysqlGtids):
                start.discard(gtid)
            elif gtid in start:
                start.go_back(gtid, before)
        return start


def parse_resume(checkpoint: Checkpoint) -> Resume:
    """Read a checkpoint.

    Raises:
        FatalError: `mysql.invalid_checkpoint`: it is not one of this source type.
    """
    state, place = checkpoint.state, parse_position(checkpoint.position)
    if any(name not in state for name in _REQUIRED):
        raise _invalid(state)
    done: list[Gtid] = []
    try:
        partial = _decode_partial(state.get("partial", ""))
        for spot in decode_spots(state.get("inside", "")):
            if place is not None and (spot.file, spot.offset) < (place.file, place.offset):
                done.append(spot.gtid)
                partial.pop(spot.gtid, None)
            elif place is not None and (spot.file, spot.offset) == (place.file, place.offset):
                partial[spot.gtid] = place.row + 1
        return Resume(
            server=state["server"],
            generation=int(state["generation"]),
            file=state.get("file", ""),
            offset=int(state.get("offset", "0")),
            gtids=state["gtids"],
            tables=state["tables"],
            held=_decode_held(state.get("held", "")),
            done=tuple(done),
            partial=partial,
            more={name: value for name, value in state.items() if name not in _OWN},
        )
    except ValueError:
        raise _invalid(state) from None


def _invalid(state: dict[str, str]) -> FatalError:
    return FatalError(
        "mysql.invalid_checkpoint",
        f"a state of {sorted(state)} that no MySQL source has written",
        cure="give the source a name whose stream no other kind of source has written",
    )


class Progress:
    """What is complete while a server is read.

    Attributes:
        seen: Every transaction that is complete.
        held: Prepared XA transactions, each with the one before it in its domain.
        partial: Transactions that are stored in part and were not read again yet.
        more: What the state holds besides.

    Args:
        resume: Where reading began.
        server: The server that is read.
        generation: Of this server.
        mariadb: Which kind of server it is.
    """

    def __init__(self, resume: Resume, server: str, generation: int, *, mariadb: bool) -> None:
        self.seen = resume.seen(mariadb=mariadb)
        self.held = dict(resume.held)
        self.partial = dict(resume.partial)
        self.more = dict(resume.more)
        same = generation == resume.generation
        self._fixed = {
            "server": server,
            "generation": str(generation),
            "tables": resume.tables,
        }
        self._file = resume.file if same else ""
        self._offset = resume.offset if same else 0

    def done(self, gtid: Gtid, file: str, offset: int) -> None:
        """A transaction is complete."""
        self.seen.add(gtid)
        self.partial.pop(gtid, None)
        self._file, self._offset = file, offset

    def state(self) -> dict[str, str]:
        """As a checkpoint's state, without `inside`."""
        state = {**self._fixed, "gtids": str(self.seen)}
        if self._file:
            state |= {"file": self._file, "offset": str(self._offset)}
        if self.held:
            state["held"] = _encode_held(self.held)
        if self.partial:
            state["partial"] = _encode_partial(self.partial)
        return state | self.more


def follows(spot: Spot, last: Spot) -> bool:
    """Whether a transaction is the next one of the same source in the same file."""
    return (
        spot.file == last.file
        and spot.gtid.source == last.gtid.source
        and spot.gtid.number == last.gtid.number + 1
    )


def encode_spots(spots: Sequence[Spot]) -> str:
    """Write down where transactions begin.

    Returns:
        `gtid@file/offset+distance+distance;...` in hexadecimal digits; a `+` stands for a
        transaction that `follows` the one before.
    """
    runs: list[str] = []
    run = ""
    last: Spot | None = None
    for spot in spots:
        if last is not None and follows(spot, last):
            run += f"+{spot.offset - last.offset:x}"
        else:
            if run:
                runs.append(run)
            run = f"{spot.gtid.source}{spot.gtid.number}@{spot.file:x}/{spot.offset:x}"
        last = spot
    if run:
        runs.append(run)
    return ";".join(runs)


def decode_spots(text: str) -> list[Spot]:
    """Read what `encode_spots` wrote.

    Raises:
        ValueError: It did not write that.
    """
    spots: list[Spot] = []
    for run in text.split(";") if text else ():
        head, *distances = run.split("+")
        gtid_text, _, place = head.partition("@")
        file, _, start = place.partition("/")
        gtid, offset = parse_gtid_text(gtid_text), int(start, 16)
        spots.append(Spot(int(file, 16), offset, gtid))
        for distance in distances:
            offset += int(distance, 16)
            gtid = gtid._replace(number=gtid.number + 1)
            spots.append(Spot(int(file, 16), offset, gtid))
    return spots


def is_behind(file: str, other: str) -> bool:
    """Whether a log file comes before another one; names of another base count as such."""
    base, number = split_file(file)
    other_base, other_number = split_file(other)
    return base != other_base or number < other_number


def _encode_held(held: dict[Gtid, Gtid | None]) -> str:
    return ";".join(
        f"{gtid.source}{gtid.number}" + (f"<{before.source}{before.number}" if before else "")
        for gtid, before in held.items()
    )


def _decode_held(text: str) -> dict[Gtid, Gtid | None]:
    held = {}
    for part in text.split(";") if text else ():
        gtid, _, before = part.partition("<")
        held[parse_gtid_text(gtid)] = parse_gtid_text(before) if before else None
    return held


def _encode_partial(partial: dict[Gtid, int]) -> str:
    return ";".join(f"{gtid.source}{gtid.number}={rows}" for gtid, rows in partial.items())


def _decode_partial(text: str) -> dict[Gtid, int]:
    parts = (part.split("=") for part in text.split(";") if part)
    return {parse_gtid_text(gtid): int(rows) for gtid, rows in parts}
