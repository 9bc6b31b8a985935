"""Which dead letters a command is about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from cyclopts import Parameter

from connectors.letters import State
from control.cli.output import utc
from control.letters.selection import Selection


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Choice:
    """Conditions that all must hold; without any, every letter is chosen.

    Attributes:
        sink: Of this sink.
        source: Of this source.
        topic: Of this topic; `db.*` for all below.
        partition: Of this partition.
        key: Of this row: its key as JSON, or the value of a key of one column.
        op: One of c, u, d, r, t, m; may be given several times.
        text: With this somewhere in the change.
        state: Failed, parked or skipped; may be given several times.
        error: Whose error has this in its code or its message.
        since: Put aside, or tried last, then or later; UTC unless it says otherwise.
        until: Put aside, or tried last, before.
        first: With this id or a later one.
        last: With this id or an earlier one.
    """

    sink: str = ""
    source: str = ""
    topic: str = ""
    partition: int | None = None
    key: str = ""
    op: tuple[Literal["c", "u", "d", "r", "t", "m"], ...] = ()
    text: str = ""
    state: tuple[Literal["failed", "parked", "skipped"], ...] = ()
    error: str = ""
    since: datetime | None = None
    until: datetime | None = None
    first: Annotated[int, Parameter(name="--from")] = 0
    last: Annotated[int | None, Parameter(name="--to")] = None

    @property
    def selection(self) -> Selection:
        """What is meant."""
        return Selection(
            sink=self.sink,
            source=self.source,
            topic=self.topic,
            partition=self.partition,
            key=self.key,
            error=self.error,
            states=frozenset(map(State, self.state)),
            ops=frozenset(self.op),
            text=self.text,
            first=self.first,
            last=self.last,
            start=utc(self.since) if self.since else None,
            end=utc(self.until) if self.until else None,
        )
