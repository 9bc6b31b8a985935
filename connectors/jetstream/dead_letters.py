"""The dead letters of every sink, in the stream `DLQ`; how they are stored tells `letters`.

Whoever delivers a share claims its letters first, by a message on `DLQ.<sink>.<stream>.claim`.
Each letter names that message's sequence as the one that it expects there, so that the letters of
an older flow are refused once a newer one has claimed.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

import structlog

from connectors.contracts.changes import Delivered
from connectors.errors import FencedError, GapError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import NO_RESPONDERS, Wanted, connect
from connectors.jetstream.frames import read_headers
from connectors.jetstream.headers_only import headers_of
from connectors.jetstream.letter_claims import newest_claim
from connectors.jetstream.letters import (
    STREAM,
    claim_subject,
    copied,
    is_letter,
    letter_headers,
    letter_subject,
    lines,
    read_head,
    reason_headers,
    share_subjects,
    truncate_subject,
    truncated_topic,
)
from connectors.jetstream.objects import ensure_objects, fetch_object, put_object, remove_object
from connectors.jetstream.oversize import resolve
from connectors.jetstream.patience import Patience
from connectors.jetstream.refusals import Kind, classify
from connectors.jetstream.schemas import SchemaStore
from connectors.jetstream.stored import parse_headers
from connectors.letters import Outstanding
from connectors.subjects import topic_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from connectors.contracts.sink import Claim
    from connectors.errors import FatalError
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import DeadLetterSpec, NatsSpec
    from connectors.letters import Letter, Reason

    T = TypeVar("T")

log = structlog.get_logger()

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
# So many bytes of letters are under way at once.
_AT_ONCE_BYTES = 8 * 1024 * 1024
_AT_ONCE = 250
# The bucket of large rows, which are copied since those of a stream expire.
_OBJECTS = "CDC_DEAD_LETTERS"


class DeadLetters:
    """The letters of one claim; see `letters.LetterStore`. Used by one thread at a time.

    Args:
        nats: Where they are.
        spec: How long they live.
        claim: Whose they are.
        stop: Once set, trouble is no longer waited for.
    """

    def __init__(
        self, nats: NatsSpec, spec: DeadLetterSpec, claim: Claim, stop: threading.Event
    ) -> None:
        self._share, self._fence = claim.share, claim.fence
        self._layout, self._spec = nats.stream, spec
        # What is stored as far as is known, and that of it which is large.
        self._stored: set[int] = set()
        self._objects: set[int] = set()
        # When the stream was created; empty until letters are loaded.
        self._created = ""
        self._wake = threading.Event()
        self._patience = Patience(STREAM, self._wake, (stop,))
        self._connection = connect(nats)
        self._connection.watch(self._wake)
        self._schemas = SchemaStore(self._connection)

    def load(self) -> Outstanding:
        """What is there at the beginning; letters of an earlier stream of that name are not."""
        return self._repeat(self._load)

    def put(self, letters: Sequence[Letter]) -> None:
        """Return once all of these are stored; one that is there already is stored once."""
        for first in range(0, len(letters), _AT_ONCE):
            part = letters[first : first + _AT_ONCE]
            self._store(self._repeat(lambda part=part: self._copies(part)))  # type: ignore[misc]
            self._stored.update(letter.sequence for letter in part)

    def mark(self, topic: str, sequence: int) -> None:
        """Note that a table of a topic is emptied at `sequence`."""
        headers = lines({"Cdc-Sequence": str(sequence)})
        self._store([Wanted(truncate_subject(self._share, topic), b"", headers)])

    def get(self, sequences: Sequence[int]) -> list[Delivered | None]:
        """The changes as they lay in their stream; None for a letter that is gone."""
        return self._repeat(lambda: self._get(sequences))

    def failed_again(self, sequence: int, reason: Reason) -> None:
        """Note a further attempt that failed; not where there is no room for a note."""
        subject = self._subject(sequence)
        stored = self._repeat(lambda: api.last_message(self._connection, STREAM, subject))
        if stored is None:
            return
        fields = read_headers(stored.hdrs)
        attempts = int(fields.get("Cdc-Attempts", "0")) + 1
        fields |= {"Cdc-State": "failed"} | reason_headers(reason, attempts, _now())
        # The sender's own headers are not copied: they were meant for the first copy.
        self._store([Wanted(subject, stored.data, lines(copied(fields)))])

    def delete(self, sequences: Sequence[int]) -> None:
        """Delete letters; one that is gone already is fine."""
        subjects = [self._subject(sequence) for sequence in sequences]
        large = [self._subject(each) for each in self._objects.intersection(sequences)]
        self._repeat(lambda: remove_letters(self._connection, subjects, large))
        self._objects.difference_update(sequences)
        self._stored.difference_update(sequences)

    def check(self) -> None:
        """Raise FencedError if a newer claim exists, GapError if the stream was deleted."""
        if self._repeat(lambda: newest_claim(self._connection, self._share)) != self._fence:
            raise self._repeat(self._overtaken)

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        self._connection.unwatch(self._wake)
        self._connection.release()

    def _subject(self, sequence: int) -> str:
        share = self._share
        return letter_subject(share.sink, share.stream, share.created, sequence)

    def _load(self) -> Outstanding:
        share = self._share
        letters: dict[int, tuple[int, str, tuple[int, ...]]] = {}
        truncated: dict[str, int] = {}
        info = api.stream_info(self._connection, STREAM)
        if info is None:
            raise self._gone()
        self._created = info.created
        self._objects.clear()
        for seen in headers_of(self._connection, STREAM, share_subjects(share.sink, share.stream)):
            head = read_head(seen.subject, seen.header)
            if head is not None and head.created == share.created:
                # The last copy counts; one that was to replace another may stand beside it.
                letters[head.sequence] = head.sequence, topic_of(head.subject), head.rows
                if head.large:
                    self._objects.add(head.sequence)
            topic = truncated_topic(seen.subject)
            if topic is not None and seen.subject == truncate_subject(share, topic):
                truncated[topic] = int(read_headers(seen.header)["Cdc-Sequence"])
        found = sorted(letters.values())
        if share.end is not None:
            found = self._cut_off(found, share.end)
        self._stored = {sequence for sequence, _, _ in found}
        return Outstanding(found, truncated)

    def _cut_off(
        self, letters: list[tuple[int, str, tuple[int, ...]]], end: int
    ) -> list[tuple[int, str, tuple[int, ...]]]:
        """Drop the letters of what a truncated stream has lost: it is captured anew."""
        lost = [sequence for sequence, _, _ in letters if sequence > end]
        api.purge(self._connection, STREAM, [self._subject(sequence) for sequence in lost])
        if lost:
            log.warning(
                "dead letters of the part that the stream has lost were dropped",
                sink=self._share.sink,
                stream=self._share.stream,
                letters=len(lost),
            )
        return [letter for letter in letters if letter[0] <= end]

    def _copies(self, letters: Sequence[Letter]) -> list[Wanted]:
        """What is to be published: copies of the letters' messages."""
        share = self._share
        found = api.messages(
            self._connection, share.stream, [letter.sequence for letter in letters]
        )
        when = _now()
        copies = []
        for letter, message in zip(letters, found, strict=True):
            if message is None:
                raise GapError(
                    "jetstream.gap",
                    f"message {letter.sequence} has expired before it could become a dead letter",
                    where=share.stream,
                    cure="restart the flow: it tells how to go on without it",
                )
            subject = self._subject(letter.sequence)
            original = read_headers(message.hdrs) | {"Cdc-Subject": message.subject}
            if "Cdc-Object" in original:
                # It may expire with the message.
                ensure_objects(self._connection, self._layout, _OBJECTS, self._spec.max_age)
                data = fetch_object(self._connection, original["Cdc-Object"])
                original["Cdc-Object"] = put_object(self._connection, _OBJECTS, subject, data)
                self._objects.add(letter.sequence)
            headers = letter_headers(share, letter, original, when)
            copies.append(Wanted(subject, message.data, headers))
        return copies

    def _store(self, wanted: Sequence[Wanted]) -> None:
        """Publish, as long as it takes; older copies of what is stored are deleted."""
        left = list(wanted)
        # Where there is an older copy, or may be one since an answer was lost.
        doubled: set[str] = set()
        while left:
            if self._fence == 0:
                self._fence = self._repeat(self._claim)
            part: list[Wanted] = []
            size = 0
            while left[len(part) :] and (not part or size < _AT_ONCE_BYTES):
                size += len(left[len(part)].payload)
                part.append(left[len(part)])
            attempts = count()

            def publish(
                part: list[Wanted] = part, attempts: Iterator[int] = attempts
            ) -> list[Wanted]:
                if next(attempts):
                    doubled.update(each.subject for each in part)
                return self._publish(part)

            refused = self._repeat(publish)
            doubled.update(each.subject for each in part if self._replaces(each.subject))
            # A letter that is there already needs no further copy.
            refused = [each for each in refused if not self._known(each.subject)]
            left = [*refused, *left[len(part) :]]
            if refused:
                self._patience.complain(
                    "the stream of dead letters is full, the sink waits: replay or discard some, "
                    "or raise `dead_letters.max_bytes`",
                    f"{len(left)} letters wait",
                )
                self._patience.wait("the stream of dead letters is full")
            else:
                self._patience.went_well()
        if doubled:
            subjects = sorted(doubled)
            self._repeat(lambda: api.purge(self._connection, STREAM, subjects, keep=1))

    def _known(self, subject: str) -> bool:
        """Whether it is that of a letter that is stored."""
        return is_letter(subject) and int(subject.rpartition(".")[2]) in self._stored

    def _replaces(self, subject: str) -> bool:
        """Whether what is stored there may have an older copy."""
        return not is_letter(subject) or self._known(subject)

    def _publish(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Publish at once; returns those for which there is no room."""
        fence = lines({_EXPECTED: str(self._fence), f"{_EXPECTED}-Subject": self._claimed})
        replies = self._connection.requests(
            [each._replace(headers=each.headers + fence) for each in wanted]
        )
        refused = []
        for each, reply in zip(wanted, replies, strict=True):
            error = api.decode_ack(reply.payload).error
            if error is None:
                continue
            kind = classify(error)
            if kind is Kind.OVERTAKEN:
                raise self._overtaken()
            if kind is not Kind.NO_ROOM:
                raise api.ApiError(error.code, error.err_code, error.description)
            refused.append(each)
        return refused

    @property
    def _claimed(self) -> str:
        return claim_subject(self._share)

    def _claim(self) -> int:
        """Claim late, as the stream was full; refused when somebody else has claimed meanwhile."""
        reply = self._connection.request(self._claimed, headers=lines({_EXPECTED: "0"}))
        error = api.decode_ack(reply.payload).error
        if error is None:
            return api.decode_ack(reply.payload).seq
        if classify(error) is Kind.OVERTAKEN:
            raise self._overtaken()
        raise api.ApiError(error.code, error.err_code, error.description)

    def _repeat(self, attempt: Callable[[], T]) -> T:
        """Wait for NATS, but not for a stream that was deleted: it is made at a start."""

        def once() -> T:
            try:
                return attempt()
            except (RetryableError, api.ApiError) as error:
                if _may_be_gone(error) and api.stream_info(self._connection, STREAM) is None:
                    raise self._gone() from error
                raise

        return self._patience.repeat(once)

    def _gone(self) -> GapError:
        return GapError(
            "jetstream.letters_gone",
            f"the stream {STREAM} was deleted, and the dead letters with it",
            where=f"sink {self._share.sink}",
            cure="start the flow again: it makes the stream anew and goes on without them",
        )

    def _overtaken(self) -> FatalError:
        """Why the claim does not hold any more."""
        info = api.stream_info(self._connection, STREAM)
        if info is None or self._created not in ("", info.created):
            return self._gone()
        return FencedError(
            "jetstream.letters_fenced",
            f"another flow has taken over stream {self._share.stream}",
            where=f"sink {self._share.sink}",
            cure="none is needed: this one ends, the newer one goes on",
        )

    def _get(self, sequences: Sequence[int]) -> list[Delivered | None]:
        subjects = [self._subject(sequence) for sequence in sequences]
        stored = api.messages(self._connection, STREAM, subjects)
        return [
            read_letter(self._connection, self._schemas, sequence, message) if message else None
            for sequence, message in zip(sequences, stored, strict=True)
        ]


def read_letter(
    connection: Connection, schemas: SchemaStore, sequence: int, message: api.StoredMessage
) -> Delivered:
    """The change of a letter, as it lay in its stream.

    Raises:
        GapError: Its shape, or a large row, is gone.
        RetryableError: NATS does not answer.
    """
    headers = parse_headers(message.hdrs)
    subject = read_headers(message.hdrs).get("Cdc-Subject", "")
    if headers is None or not subject:
        raise GapError(
            "jetstream.foreign_message",
            "it was not written by Waxtap",
            where=message.subject,
            cure=f"nats stream rmm {STREAM} {message.seq}",
        )
    return Delivered(
        sequence,
        subject,
        headers.position,
        headers.key,
        schemas.get(headers.schema) if headers.schema else None,
        headers.transaction,
        headers.last,
        resolve(connection, headers.encoding, headers.object, message.data),
        headers.unavailable,
        headers.json_nulls,
        headers.failed,
    )


def _may_be_gone(error: RetryableError | api.ApiError) -> bool:
    """Whether it is what requests get that are about a stream that does not exist."""
    if isinstance(error, api.ApiError):
        return error.err_code == api.STREAM_NOT_FOUND
    return error.code == NO_RESPONDERS


def remove_letters(
    connection: Connection, subjects: Sequence[str], large: Sequence[str] = ()
) -> None:
    """Delete the letters on these subjects, and the objects of those that have one."""
    api.purge(connection, STREAM, subjects)
    for subject in large:
        remove_object(connection, f"{_OBJECTS}/{subject}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
