"""How requests are carried out: where blocking work runs, and each of them once."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast
from uuid import uuid4

import grpc
import structlog
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from msgspec.structs import replace

from connectors.errors import WaxtapError
from connectors.jetstream.connection import connect
from control.server.statuses import ApiError, invalid
from control.services import request_bucket as requests
from control.services.request_bucket import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec

_P = ParamSpec("_P")
_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Who carries a request out says so that often; a repetition looks that often for the answer.
_BEAT_EVERY = 1.0
_LOOK_EVERY = 0.1
# Who has not said so for that long has died.
SILENCE = 5.0
# A repetition waits at most so long for the answer.
_PATIENCE = 30.0

log = structlog.get_logger()


class Workers:
    """Threads for work that blocks.

    Args:
        count: So much work is done at once; the rest waits.
    """

    def __init__(self, count: int = 8) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="waxtap-calls")

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do it in a thread, and return what it returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(work, *args, **kwargs))

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown(cancel_futures=True)


class Repetitions:
    """Has a request that is repeated carried out once, whichever service each call reaches.

    What was answered is remembered for an hour. A request whose service has died before it could
    tell the answer is carried out again when it is repeated. Usable from any thread.

    Args:
        nats: Where that is remembered.
    """

    def __init__(self, nats: NatsSpec) -> None:
        self._nats = nats

    def once(self, name: str, request: Message, work: Callable[[], _M]) -> _M:
        """Carry out a request, or return what was answered to it before.

        Args:
            name: Its `request_id`; empty: it is carried out in any case.
            request: As it was given.
            work: Carries it out. What it raises is not remembered.

        Raises:
            ApiError: The id is none, or that of another request; or the request is still being
                carried out (UNAVAILABLE).
            RetryableError: NATS does not answer.
            ConfigError: The bucket cannot be used.
        """
        if not name:
            return work()
        if not _UUID.fullmatch(name):
            raise invalid(
                "control.request_id", "it is no UUID", where="request_id", cure="send a fresh UUID4"
            )
        with connect(self._nats) as connection:
            claim = _claim(connection, name, _digest(request))
            if isinstance(claim, Record):
                return cast("_M", _message(claim))
            with _told(connection, name, claim):
                answer = work()
                claim.answer = answer
            return answer


class _Claim:
    """A request that is ours to carry out.

    Attributes:
        record: As it is stored.
        revision: Of that.
        answer: What is to be answered; None: nothing to be remembered.
    """

    def __init__(self, record: Record, revision: int) -> None:
        self.record, self.revision = record, revision
        self.answer: Message | None = None


def _claim(connection: Connection, name: str, digest: str) -> _Claim | Record:
    """Become the one who carries a request out; or what was answered to it."""
    began = changed = time.monotonic()
    seen = -1
    while True:
        record, revision = requests.read(connection, name)
        now = time.monotonic()
        if record is not None and record.digest != digest:
            raise invalid(
                "control.request_id",
                "it was used for another request within the last hour",
                where="request_id",
                cure="send a fresh UUID4",
            )
        if record is not None and record.kind:
            return record
        if revision != seen:
            seen, changed = revision, now
        if record is None or now - changed >= SILENCE:
            ours = Record(digest, uuid4().hex)
            stored = requests.write(connection, name, ours, revision)
            if stored is not None:
                return _Claim(ours, stored)
        elif now - began >= _PATIENCE:
            raise ApiError(
                grpc.StatusCode.UNAVAILABLE,
                "control.under_way",
                "the request is still being carried out",
                where="request_id",
                cure="repeat it later",
                retry=True,
            )
        else:
            time.sleep(_LOOK_EVERY)


@contextmanager
def _told(connection: Connection, name: str, claim: _Claim) -> Iterator[None]:
    """Say that a request is being carried out, and then what was answered, or that nothing was."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_EVERY):
            _note(connection, name, claim, replace(claim.record, beat=claim.record.beat + 1))

    beating = threading.Thread(target=beat, name="waxtap-request", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        if (said := claim.answer) is None:
            _note(connection, name, claim, None)
        else:
            kind, answer = said.DESCRIPTOR.full_name, said.SerializeToString()
            _note(connection, name, claim, replace(claim.record, kind=kind, answer=answer))


def _note(connection: Connection, name: str, claim: _Claim, record: Record | None) -> None:
    """Write down how far a request is. If that fails, a repetition carries it out again."""
    try:
        stored = requests.write(connection, name, record, claim.revision)
        if stored is None:
            known, claim.revision = requests.read(connection, name)
            if known is None or known.by != claim.record.by:
                return  # somebody else carries it out by now
            # A write of ours was stored though its answer was lost.
            stored = requests.write(connection, name, record, claim.revision)
    except WaxtapError as error:
        log.warning("a request's answer cannot be remembered", request=name, reason=str(error))
        return
    if stored is not None and record is not None:
        claim.record, claim.revision = record, stored


def _digest(request: Message) -> str:
    """Of the method and of all that a request says: each method has a message of its own."""
    content = request.SerializeToString(deterministic=True)
    method = request.DESCRIPTOR.full_name.encode()
    return blake2b(method + b"\0" + content, digest_size=16).hexdigest()


def _message(record: Record) -> Message:
    kind = descriptor_pool.Default().FindMessageTypeByName(record.kind)
    message = message_factory.GetMessageClass(kind)()
    message.ParseFromString(record.answer)
    return message
