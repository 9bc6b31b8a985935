"""The streams of the sources, and which subjects they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from connectors.errors import RetryableError
from connectors.jetstream import api
from connectors.jetstream.stream import source_name

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection

_T = TypeVar("_T")
_PREFIX = "CDC_"
_SUBJECTS = "CDC.>"


class State(msgspec.Struct, frozen=True):
    """What a stream holds."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    subjects: dict[str, int] | None = None


class Stream(msgspec.Struct, frozen=True):
    """A stream of a source.

    Attributes:
        config: As the server gives it.
        created: When it was created (RFC 3339).
        state: What it holds.
    """

    config: dict[str, object]
    created: str
    state: State

    @property
    def name(self) -> str:
        """The stream's name."""
        return str(self.config["name"])

    @property
    def source(self) -> str:
        """The source whose stream it is."""
        return source_name(self.name)


class _Listed(msgspec.Struct, frozen=True):
    streams: list[Stream] | None = None
    total: int = 0
    offset: int = 0


class _Counted(msgspec.Struct, frozen=True):
    state: State
    total: int = 0


def streams(connection: Connection, source: str = "") -> list[Stream]:
    """The streams of every source, or of one, in the order of their names.

    Raises:
        RetryableError: NATS does not answer.
    """
    found: list[Stream] = []
    subject = f"CDC.{source}.>" if source else _SUBJECTS
    while True:
        body = {"subject": subject, "offset": len(found)}
        page = _call(connection, "STREAM.LIST", body, _Listed)
        found += page.streams or []
        if not page.streams or len(found) >= page.total:
            break
    return sorted(
        (each for each in found if each.name.startswith(_PREFIX)), key=lambda each: each.name
    )


def subjects(connection: Connection, stream: str, pattern: str) -> dict[str, int]:
    """How many messages a stream holds on each subject that matches. Raises as `streams`."""
    found: dict[str, int] = {}
    while True:
        body = {"subjects_filter": pattern, "offset": len(found)}
        page = _call(connection, f"STREAM.INFO.{stream}", body, _Counted)
        more = page.state.subjects or {}
        found |= more
        if not more or len(found) >= page.total:
            return found


def _call(connection: Connection, subject: str, body: object, answer: type[_T]) -> _T:
    try:
        return api.call(connection, subject, body, answer)
    except api.ApiError as error:
        raise RetryableError("jetstream.unread", str(error), where=subject) from error
