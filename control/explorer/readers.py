"""Which sinks read which messages, as far as the registered configuration tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from connectors.errors import ConfigError
from connectors.jetstream.topics import filter_subjects
from connectors.subjects import covers

if TYPE_CHECKING:
    from collections.abc import Mapping


class UnknownSinkError(Exception):
    """No sink of this name is registered."""


class Registered(Protocol):
    """A revision of the configuration."""

    @property
    def revision(self) -> int:
        """Grows with each write."""
        ...

    @property
    def tree(self) -> Mapping[str, object]:
        """The sections of `waxtap.yaml`, without `nats`, references unresolved."""
        ...


class Specs(Protocol):
    """Where the configuration is registered."""

    def read(self) -> Registered:
        """The latest revision.

        Raises:
            RetryableError: It cannot be read now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reader:
    """A sink.

    Attributes:
        name: Its name.
        type: Which connector.
        topics: Patterns of what it reads.
        sources: Whose streams it reads.
    """

    name: str
    type: str
    topics: tuple[str, ...]
    sources: tuple[str, ...]

    def subjects(self, source: str) -> tuple[str, ...]:
        """The filters of its share of a source's stream; none: it does not read it."""
        if source not in self.sources:
            return ()
        try:
            return filter_subjects(source, self.topics)
        except ConfigError:  # its flow tells of that
            return ()

    def reads(self, source: str, subject: str) -> bool:
        """Whether it is given what lies at a subject."""
        return any(covers(pattern, subject) for pattern in self.subjects(source))


def readers(registered: Registered) -> dict[str, Reader]:
    """Every registered sink by its name."""
    known = tuple(_section(registered, "sources"))
    found: dict[str, Reader] = {}
    for name, entry in sorted(_section(registered, "sinks").items()):
        if isinstance(entry, dict):
            topics, sources = _texts(entry.get("topics")), _texts(entry.get("from"))
            found[name] = Reader(name, str(entry.get("type", "")), topics, sources or known)
    return found


def sources(registered: Registered) -> tuple[str, ...]:
    """The names of the registered sources."""
    return tuple(sorted(_section(registered, "sources")))


def _section(registered: Registered, name: str) -> Mapping[str, object]:
    section = registered.tree.get(name)
    return section if isinstance(section, dict) else {}


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        return ()
    return tuple(each for each in value if isinstance(each, str))
