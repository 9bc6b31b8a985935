"""Which dead letters are meant, free of I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from connectors.jetstream.stream import source_name
from connectors.subjects import topic_of
from control.explorer.messages import partition_of

if TYPE_CHECKING:
    from connectors.letters import Head, State


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions that all must hold; without any, every letter is chosen.

    Attributes:
        sink: Of this sink.
        source: Of this source.
        topic: Of this topic; `db.*` for all below.
        partition: Of this partition; None: of any.
        key: Of this row: its key as JSON, or the value of a key of one column.
        error: Whose error has this in its code or its message.
        error_code: Whose error has this code.
        states: In one of these states.
        ops: With one of these operations; `matches` does not tell, the change has to be read.
        text: With this somewhere in the change; `matches` does not tell either.
        first: With this sequence or a later one.
        last: With this sequence or an earlier one.
        sequences: With one of these sequences.
        start: Put aside, or tried last, then or later.
        end: Put aside, or tried last, before.
    """

    sink: str = ""
    source: str = ""
    topic: str = ""
    partition: int | None = None
    key: str = ""
    error: str = ""
    error_code: str = ""
    states: frozenset[State] = frozenset()
    ops: frozenset[str] = frozenset()
    text: str = ""
    first: int = 0
    last: int | None = None
    sequences: frozenset[int] = frozenset()
    start: datetime | None = None
    end: datetime | None = None

    @property
    def is_all(self) -> bool:
        """Whether no condition was given."""
        return self == Selection()

    @property
    def needs_content(self) -> bool:
        """Whether changes have to be read to tell which letters are chosen."""
        return bool(self.ops or self.text)

    def matches(self, head: Head) -> bool:
        """Whether a letter is chosen, as far as its head tells."""
        topic = topic_of(head.subject)
        wanted = self.topic.removesuffix("*")
        told = f"{head.reason.code} {head.reason.message}"
        return (
            self.sink in ("", head.sink)
            and self.source in ("", source_name(head.stream))
            and (topic.startswith(wanted) if wanted != self.topic else self.topic in ("", topic))
            and (self.partition is None or partition_of(head.subject) == self.partition)
            and (not self.states or head.state in self.states)
            and self.error in told
            and self.error_code in ("", head.reason.code)
            and self.first <= head.sequence
            and (self.last is None or head.sequence <= self.last)
            and (not self.sequences or head.sequence in self.sequences)
            and self._in_time(head.failed_at)
            and (not self.key or _is_key(self.key, head.key))
        )

    def _in_time(self, failed_at: str) -> bool:
        if self.start is None and self.end is None:
            return True
        if not failed_at:
            return False
        moment = datetime.fromisoformat(failed_at)
        return (self.start is None or self.start <= moment) and (
            self.end is None or moment < self.end
        )


def place(head: Head) -> tuple[str, str, int, str]:
    """What letters are ordered by: sink, stream, sequence; a stream may have been made again."""
    return head.sink, head.stream, head.sequence, head.created


def _is_key(wanted: str, key: str | None) -> bool:
    if key is None:
        return False
    values = msgspec.json.decode(key, type=dict[str, msgspec.Raw])
    if len(values) == 1 and wanted == _plain(bytes(*values.values())):
        return True
    try:
        return bool(_exact(wanted) == _exact(key))
    except ValueError:
        return False


def _plain(value: bytes) -> str:
    """A value as somebody writes it: a text without its quotes, anything else as it stands."""
    return str(json.loads(value)) if value.startswith(b'"') else value.decode()


def _exact(text: str) -> object:
    """JSON with every digit of its numbers."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)
