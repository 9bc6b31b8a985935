"""Which dead letters a command is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from control.letters.selection import Selection


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Choice:
    """Conditions that all must hold; without any, every letter is chosen.

    Attributes:
        sink: Of this sink.
        topic: Of this topic; `db.*` for all below.
        key: Of this row: its key as JSON, or the value of a key of one column.
        error: Whose error has this in its code or its message.
        first: With this id or a later one.
        last: With this id or an earlier one.
    """

    sink: str = ""
    topic: str = ""
    key: str = ""
    error: str = ""
    first: Annotated[int, Parameter(name="--from")] = 0
    last: Annotated[int | None, Parameter(name="--to")] = None

    @property
    def selection(self) -> Selection:
        """What is meant."""
        return Selection(
            sink=self.sink,
            topic=self.topic,
            key=self.key,
            error=self.error,
            first=self.first,
            last=self.last,
        )
