"""Looks through the dead letters of all sinks, beside the flows."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from connectors.jetstream import api
from connectors.jetstream.dead_letters import read_letter, remove_letters
from connectors.jetstream.headers_only import headers_of
from connectors.jetstream.letters import STREAM, letter_subject, read_head, share_subjects
from connectors.jetstream.schemas import SchemaStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import DirectGets, Raw
    from connectors.letters import Head


# So many are read or deleted at once, and so many bytes read; one letter may have more.
_PIECE, _MOST_BYTES = 1000, 1024 * 1024


class Opened(NamedTuple):
    """A letter with its content."""

    head: Head
    change: Delivered


def heads(connection: Connection, sink: str = "") -> Iterator[Head]:
    """What is known of every letter, of one sink or of all.

    Raises:
        RetryableError: NATS does not answer.
        ConfigError: We are not allowed to read them.
    """
    if api.stream_info(connection, STREAM) is None:
        return
    subject = share_subjects(sink, "*") if sink else f"{STREAM}.>"
    for seen in headers_of(connection, STREAM, subject):
        head = read_head(seen.subject, seen.header)
        if head is not None:
            yield head


def stored(connection: Connection, reads: DirectGets, sink: str = "") -> Iterator[Raw]:
    """All that is stored of letters of one sink or of all, a few messages in memory at a time.

    What lies beside the letters is among it: `letters.read_head` tells them apart.

    Raises:
        RetryableError: NATS does not answer.
    """
    info = api.stream_info(connection, STREAM)
    if info is None:
        return
    subject = share_subjects(sink, "*") if sink else f"{STREAM}.>"
    next_, last = 1, info.state.last_seq
    while next_ <= last:
        place = {"seq": next_, "next_by_subj": subject, "batch": _PIECE, "max_bytes": _MOST_BYTES}
        found = reads.get(STREAM, place)
        for raw in found:
            # What is tried again meanwhile lies behind the end.
            if raw.sequence > last:
                return
            yield raw
        if not found or not found[-1].pending:
            return
        next_ = found[-1].sequence + 1


def named(connection: Connection, sink: str, stream: str, sequence: int) -> list[Head]:
    """The letters of a sink about one sequence, the latest life of the stream last.

    Raises:
        RetryableError: NATS does not answer.
    """
    if api.stream_info(connection, STREAM) is None:
        return []
    subject = f"{STREAM}.{sink}.{stream}.*.{sequence}"
    found = [
        read_head(seen.subject, seen.header) for seen in headers_of(connection, STREAM, subject)
    ]
    return sorted((head for head in found if head is not None), key=lambda head: head.created)


def read(connection: Connection, chosen: Sequence[Head]) -> Iterator[Opened]:
    """Letters with their contents; those that are gone meanwhile are left out.

    Raises:
        GapError: A shape, or a large row, is gone.
        RetryableError: NATS does not answer.
    """
    schemas = SchemaStore(connection)
    for head in chosen:
        message = api.last_message(connection, STREAM, _subject(head))
        if message is not None:
            yield Opened(head, read_letter(connection, schemas, head.sequence, message))


def drop(connection: Connection, chosen: Iterable[Head]) -> None:
    """Delete letters that no flow waits for: of a sink or a stream that is no more.

    Args:
        connection: To NATS.
        chosen: Which; a piece of them is in memory at a time.

    Raises:
        RetryableError: NATS does not answer.
    """
    left = iter(chosen)
    while piece := list(islice(left, _PIECE)):
        subjects = [_subject(head) for head in piece]
        large = [_subject(head) for head in piece if head.large]
        remove_letters(connection, subjects, large)


def created(connection: Connection, stream: str) -> str:
    """When a stream was created; empty when there is none."""
    info = api.stream_info(connection, stream)
    return info.created if info else ""


def _subject(head: Head) -> str:
    return letter_subject(head.sink, head.stream, head.created, head.sequence)
