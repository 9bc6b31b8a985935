"""Which messages somebody looks for, free of I/O."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.jetstream.topics import filter_subjects
from connectors.subjects import DEAD
from control.explorer.messages import operation, partition_of, unpacked

if TYPE_CHECKING:
    from connectors.jetstream.direct import Raw


@dataclass(frozen=True, slots=True)
class Wanted:
    """Conditions that all must hold.

    Attributes:
        topic: A topic, or a pattern as sinks have it; empty: any.
        partition: None: any.
        source: Empty: any.
        key: The row's key as it is stored; empty: any.
        ops: Empty: any.
        start: The first moment (nanoseconds since 1970); None: from the beginning.
        end: Behind the last moment; None: to the end.
        text: Somewhere in the payload; empty: any.
    """

    topic: str = ""
    partition: int | None = None
    source: str = ""
    key: str = ""
    ops: frozenset[str] = frozenset()
    start: int | None = None
    end: int | None = None
    text: str = ""

    @property
    def is_pattern(self) -> bool:
        """Whether several topics may be meant."""
        return self.topic in ("", "*") or self.topic.endswith(".*")

    @property
    def subjects_tell(self) -> bool:
        """Whether the filters of subjects choose the partition."""
        return self.partition is None or not self.is_pattern

    @property
    def needs_look(self) -> bool:
        """Whether messages have to be read to tell."""
        return bool(self.key or self.ops or self.text) or not self.subjects_tell

    @property
    def needs_payload(self) -> bool:
        """Whether the payload has to be read to tell."""
        return bool(self.ops or self.text)

    def subjects(self, source: str) -> tuple[str, ...]:
        """The filters for a source's stream; no two match the same subject.

        Raises:
            ConfigError: The topic is not well-formed.
        """
        if self.topic in ("", "*"):
            # Checkpoints have one word less.
            return (f"CDC.{source}.*.>",)
        if self.partition is None or self.is_pattern:
            return filter_subjects(source, [self.topic])
        filter_subjects(source, [self.topic])
        place = f"{self.topic}.{self.partition}"
        return f"CDC.{source}.{place}", f"CDC.{source}.{DEAD}.{place}"


class Look:
    """Tells whether a message is wanted, as far as its subject filter has not told it already."""

    def __init__(self, wanted: Wanted) -> None:
        self._key = f"\r\nCdc-Key: {wanted.key}\r\n".encode() if wanted.key else b""
        self._ops = wanted.ops
        self._hints = [f'"op":"{op}"'.encode() for op in wanted.ops]
        self._texts = _spellings(wanted.text)
        self._partition = None if wanted.subjects_tell else wanted.partition

    def of_header(self, raw: Raw) -> bool:
        """Whether the headers speak for it."""
        if self._key and self._key not in raw.header:
            return False
        return self._partition is None or partition_of(raw.subject) == self._partition

    def of_payload(self, raw: Raw, payload: bytes) -> bool:
        """Whether the unpacked payload speaks for it."""
        if self._texts and not any(text in payload for text in self._texts):
            return False
        if not self._ops:
            return True
        if b"\r\nCdc-Op: " not in raw.header and not any(hint in payload for hint in self._hints):
            return False
        return operation(raw.header, payload) in self._ops

    def takes(self, raw: Raw) -> tuple[bool, bytes | None]:
        """Whether it is wanted, and its payload; what lies in the object store is not looked into.

        Whoever wants that asks `of_payload` with what was fetched.
        """
        if not self.of_header(raw):
            return False, None
        payload = unpacked(raw)
        if payload is None:
            return not (self._ops or self._texts), None
        return self.of_payload(raw, payload), payload


def key_text(text: str) -> str:
    """A row's key as it is stored: JSON in ASCII without blanks, each number as it is written.

    Raises:
        ValueError: It is no JSON object; says so.
    """
    try:
        # Numbers are not read: they may have more digits than a float keeps.
        key = json.loads(text, parse_float=str, parse_int=str, parse_constant=_refused)
    except (ValueError, RecursionError):
        key = None
    if not isinstance(key, dict) or not key:
        raise ValueError('a key is a JSON object such as {"id": 17}')
    return _TOKEN.sub(_compact, text.strip())


# What of valid JSON is not stored as it may be written: texts, and blanks around them.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t\r\n]+')


def _compact(token: re.Match[str]) -> str:
    return json.dumps(json.loads(token[0])) if token[0][0] == '"' else ""


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _spellings(text: str) -> list[bytes]:
    """How a text may stand in JSON."""
    if not text:
        return []
    forms = (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1])
    return [form.encode() for form in dict.fromkeys(forms)]
