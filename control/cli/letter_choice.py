"""Which dead letters a command is about."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from connectors.subjects import topic_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.letters import Head


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
    def is_all(self) -> bool:
        """Whether no condition was given."""
        return self == Choice()

    def of(self, heads: Iterable[Head]) -> list[Head]:
        """The letters that are chosen, in the order of sink, stream and id."""
        chosen = [head for head in heads if self._takes(head)]
        return sorted(chosen, key=lambda head: (head.sink, head.stream, head.sequence))

    def _takes(self, head: Head) -> bool:
        topic = topic_of(head.subject)
        wanted = self.topic.removesuffix("*")
        told = f"{head.reason.code} {head.reason.message}"
        return (
            self.sink in ("", head.sink)
            and (topic.startswith(wanted) if wanted != self.topic else self.topic in ("", topic))
            and (not self.key or _is_key(self.key, head.key))
            and self.error in told
            and self.first <= head.sequence
            and (self.last is None or head.sequence <= self.last)
        )


def _is_key(wanted: str, key: str | None) -> bool:
    if key is None:
        return False
    found = json.loads(key)
    if len(found) == 1 and wanted == str(*found.values()):
        return True
    try:
        return bool(json.loads(wanted) == found)
    except ValueError:
        return False
