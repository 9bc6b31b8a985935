"""Changes of the configuration: made, checked, stored whole; carried out once, however often asked.

A change is a function from the configuration as it is to what it should be. It runs again when
somebody else was faster, so it decides anew each time. A request that has an id is remembered for
an hour in the same document that it has changed, so that a repetition finds its answer whichever
service it reaches, and even if the first answer never arrived.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid4

import grpc
from msgspec.structs import replace

from connectors.errors import RetryableError, WaxtapError
from control.server.statuses import ApiError, invalid
from control.specs.checking import check
from control.specs.document import Answered
from control.specs.store import OvertakenError, Stored, succeeding

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from google.protobuf.message import Message

    from connectors.jetstream.spec import NatsSpec
    from control.specs.document import Difference, Disposal, Document, Tree
    from control.specs.store import SpecStore

_REMEMBERED = 3600.0
_MOST_REMEMBERED = 1000
# Of requests without an id, enough to find out what became of a write that got no answer.
_MOST_NAMELESS = 64
_NAMELESS = "-"
# Services that write at the same time make each other begin anew.
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a change.

    Attributes:
        id: As the caller gave it; empty: none.
        digest: Of the method and everything in the request.
        author: Who asks.
        validate_only: Whether everything but the change itself is wanted.
    """

    id: str
    digest: str
    author: str
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a request makes of the configuration.

    Attributes:
        tree: The new one.
        checked: Section and name of the entries that must be right; None: all.
        answer: Makes the answer, given the document.
        disposals: What is to be removed besides.
        disposed: Names of sources of which everything is removed now.
    """

    tree: Tree
    checked: Collection[tuple[str, str]] | None
    answer: Callable[[Document], Message]
    disposals: Mapping[str, Disposal] = field(default_factory=dict)
    disposed: Collection[str] = ()


class _Job:
    """A change that waits to be carried out."""

    def __init__(self, request: Asked, change: Callable[[Stored], Change], alone: bool) -> None:
        self.request, self.change, self.alone = request, change, alone
        self.mark = request.id or f"{_NAMELESS}{uuid4()}"
        self.outcome: Done | Exception | None = None


class Done(NamedTuple):
    """The answer, serialized; and where it was stored: revision 0 was not stored now."""

    answer: bytes
    stored: Stored | None


def asked(
    method: str, request: Message, request_id: str, author: str, *, validate_only: bool = False
) -> Asked:
    """A request as `Editing.run` takes it.

    Raises:
        ApiError: The id is no UUID.
    """
    if request_id:
        try:
            UUID(request_id)
        except ValueError:
            raise invalid(
                "control.request_id", "it is no UUID", where="request_id", cure="send a fresh UUID4"
            ) from None
    data = request.SerializeToString(deterministic=True)
    digest = blake2b(method.encode() + b"\0" + data, digest_size=16).hexdigest()
    return Asked(request_id, digest, author, validate_only)


class Editing:
    """Carries out changes. Blocks; usable from any thread.

    Changes that are asked for at the same time are stored by one write, in one revision; each is
    made of what the one before it has left, and one that is wrong does not keep the others back.

    Args:
        store: Where the configuration is.
        nats: Where the flows' streams are.
        environment: Where references are looked up.
    """

    def __init__(self, store: SpecStore, nats: NatsSpec, environment: Mapping[str, str]) -> None:
        self._store, self._nats, self._environment = store, nats, environment
        self._waiting: deque[_Job] = deque()
        self._leading = threading.Lock()

    def run(
        self, request: Asked, change: Callable[[Stored], Change], *, alone: bool = False
    ) -> Done:
        """Carry out a change, or find that it has been.

        Args:
            request: Whose.
            change: What is to be changed.
            alone: Whether it is to have a revision of its own.

        Raises:
            ApiError: As `change`; or the id was used for another request.
            ConfigError: The configuration would not be right; or it is too large.
            RetryableError: NATS does not answer.
        """
        job = _Job(request, change, alone)
        self._waiting.append(job)
        while job.outcome is None:
            # Whoever gets here first does the work of all who wait.
            with self._leading:
                if job.outcome is None:
                    self._carry_out(self._together())
        if isinstance(job.outcome, Exception):
            raise job.outcome
        return job.outcome

    def _together(self) -> list[_Job]:
        jobs = [self._waiting.popleft()]
        while self._waiting and not jobs[0].alone and not self._waiting[0].alone:
            jobs.append(self._waiting.popleft())
        return jobs

    def _carry_out(self, jobs: list[_Job]) -> None:
        """Give every job its outcome."""
        try:
            self._store_all(jobs)
        except Exception as error:  # noqa: BLE001 - it is raised where the change was asked for
            for job in jobs:
                if job.outcome is None:
                    job.outcome = error

    def _store_all(self, jobs: list[_Job]) -> None:
        for tries_left in reversed(range(_TRIES)):
            base = self._store.read()
            document, answers = self._steps(base, jobs)
            if not answers:
                return
            try:
                stored = self._store.write(base, document)
            except OvertakenError:
                continue
            except RetryableError:
                # It may have been stored: the next look tells.
                if not tries_left:
                    raise
                continue
            for job, answer in answers:
                job.outcome = Done(answer, stored)
            return
        raise ApiError(
            grpc.StatusCode.ABORTED,
            "control.contended",
            "others change the configuration all the time",
            cure="try again",
            retry=True,
        )

    def _steps(self, base: Stored, jobs: list[_Job]) -> tuple[Document, list[tuple[_Job, bytes]]]:
        """One change after the other; the document behind them, and the answers of those in it."""
        document = base.document
        answers: list[tuple[_Job, bytes]] = []
        changes: tuple[Difference, ...] = ()
        for job in jobs:
            if job.outcome is not None:
                continue
            try:
                step = self._step(Stored(base.revision, document), job)
            except (ApiError, WaxtapError) as error:
                job.outcome = error
                continue
            if isinstance(step, Done):
                job.outcome = step
                continue
            document, answer = step
            changes += document.changes
            answers.append((job, answer))
        authors = dict.fromkeys(job.request.author for job, _ in answers)
        return replace(document, changes=changes, author=", ".join(authors)), answers

    def _step(self, base: Stored, job: _Job) -> Done | tuple[Document, bytes]:
        request = job.request
        if (before := _answered(base, request, job.mark)) is not None:
            return Done(before, None)
        wanted = job.change(base)
        check(wanted.tree, self._environment, self._nats, wanted.checked)
        document = succeeding(base, wanted.tree, request.author)
        answer = wanted.answer(document).SerializeToString()
        if request.validate_only:
            return Done(answer, None)
        document = _remembering(document, request, job.mark, answer)
        return replace(document, disposals=_disposals(document, wanted)), answer


def _answered(base: Stored, request: Asked, mark: str) -> bytes | None:
    known = base.document.requests.get(mark)
    if known is None or known.time < time.time() - _REMEMBERED:
        return None
    if known.request != request.digest:
        raise invalid(
            "control.request_id",
            "it was used for another request within the last hour",
            where="request_id",
            cure="send a fresh UUID4",
        )
    return known.answer


def _remembering(document: Document, request: Asked, mark: str, answer: bytes) -> Document:
    now = time.time()
    known = document.requests | {mark: Answered(request.digest, now, answer)}
    nameless = [name for name in known if name.startswith(_NAMELESS)][-_MOST_NAMELESS:]
    named = [
        name
        for name, one in known.items()
        if not name.startswith(_NAMELESS) and one.time > now - _REMEMBERED
    ]
    kept = [*nameless, *named[-_MOST_REMEMBERED:]]
    return replace(document, requests={name: known[name] for name in kept})


def _disposals(document: Document, change: Change) -> dict[str, Disposal]:
    known = document.disposals | dict(change.disposals)
    return {name: one for name, one in known.items() if name not in change.disposed}
