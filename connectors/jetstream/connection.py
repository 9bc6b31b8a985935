"""One connection to NATS for each configuration in a process, usable from any thread.

I/O runs in an event loop of its own thread. The connection mends itself, without end and with
backoff; one line is logged when it is lost and one when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self

import nats.errors
import structlog

from connectors.errors import ConfigError, RetryableError
from connectors.jetstream.client import StreamClient
from connectors.jetstream.options import client_options, explain
from connectors.jetstream.replies import Replies, Reply
from connectors.jetstream.stored import status

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Any, TypeVar

    from nats.aio.subscription import Subscription

    from connectors.jetstream.spec import NatsSpec
    from connectors.jetstream.wire import Incoming

    T = TypeVar("T")

log = structlog.get_logger()

_FIRST_ANSWER = 5.0
_CLOSING = 5.0
# Of an error: nobody has subscribed to what was asked.
NO_RESPONDERS = "jetstream.no_responders"
_NOBODY = 503

_connections: dict[NatsSpec, Connection] = {}
_lock = threading.Lock()


class Wanted(NamedTuple):
    """A request: where to, its data, and lines of `Name: value`, each ended by CR LF."""

    subject: str
    payload: bytes = b""
    headers: str = ""


def connect(spec: NatsSpec) -> Connection:
    """The process's connection for `spec`; each call needs one `release`.

    Raises:
        RetryableError: No server can be reached.
        ConfigError: The servers refuse us, or credentials cannot be read.
    """
    with _lock:
        connection = _connections.get(spec)
        if connection is None:
            connection = _connections[spec] = Connection(spec)
            try:
                connection.open()
            except BaseException:
                del _connections[spec]
                raise
        connection.users += 1
        return connection


class Connection:
    """A connection to NATS; made by `connect`.

    Attributes:
        users: How many hold it.
        losses: Grows whenever the connection is lost: what was sent before and not yet answered
            may never be.
    """

    def __init__(self, spec: NatsSpec) -> None:
        self.spec = spec
        self.users = 0
        self.losses = 0
        self._client = StreamClient()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="waxtap-nats", daemon=True)
        self._closing = False
        self._failures: deque[Exception] = deque(maxlen=8)
        self._denials: deque[tuple[float, str]] = deque(maxlen=32)
        self._watchers: set[threading.Event] = set()
        self._replies = Replies(self._client)

    def open(self) -> None:
        """Connect for the first time. Raises as `connect`."""
        self._thread.start()
        try:
            self._await(self._connect())
        except BaseException:
            self._stop()
            raise

    def release(self) -> None:
        """Let go of the connection; the last one to do so closes it. Never raises."""
        with _lock:
            self.users -= 1
            if self.users:
                return
            _connections.pop(self.spec, None)
        self._closing = True
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        """The largest message in bytes, headers included, that the server takes."""
        return self._client.max_payload

    @property
    def server_version(self) -> str:
        """The version of the server that we are connected to."""
        return str(self._client._server_info.get("version", "unknown"))

    def watch(self, event: threading.Event) -> None:
        """Set `event` whenever the connection is lost or back."""
        self._watchers.add(event)

    def unwatch(self, event: threading.Event) -> None:
        """Undo `watch`."""
        self._watchers.discard(event)

    def inbox(self) -> str:
        """A fresh subject for answers, allowed by the `inbox_prefix`."""
        return self._client.new_inbox()

    def send(self, frames: bytes) -> None:
        """Send whole protocol frames; they are dropped while there is no connection."""
        self._loop.call_soon_threadsafe(self._client.send, frames)

    def subscribe(self, subject: str, callback: Callable[[Incoming], object]) -> Subscription:
        """Subscribe; `callback` runs in the I/O thread and must neither raise nor block.

        Raises:
            RetryableError: There is no connection.
        """
        self._require()
        return self._await(self._client.subscribe_raw(subject, callback))

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription. Never raises."""
        with contextlib.suppress(nats.errors.Error, RuntimeError, TimeoutError):
            self._await(self._client.unsubscribe_raw(subscription), _CLOSING)

    def request(
        self, subject: str, payload: bytes = b"", *, timeout: float = 5.0, headers: str = ""
    ) -> Reply:
        """Send a request and wait for its answer.

        Args:
            subject: Where to.
            payload: The data.
            timeout: Seconds to wait.
            headers: Lines of `Name: value`, each ended by CR LF.

        Raises:
            RetryableError: No connection, or no answer in time: it may have been received or not.
            ConfigError: We are not allowed to send there, or to receive answers.
        """
        return self.requests([Wanted(subject, payload, headers)], timeout=timeout)[0]

    def requests(self, wanted: Sequence[Wanted], *, timeout: float = 5.0) -> list[Reply]:
        """Send several requests at once and wait for all answers, in the order of the requests.

        Raises:
            RetryableError: As `request`; any of them may have been received or not.
            ConfigError: As `request`.
        """
        self._require()
        started = time.monotonic()

        async def ask() -> list[Incoming]:
            return await asyncio.gather(*[self._replies.request(*each, timeout) for each in wanted])

        try:
            answers = self._await(ask())
        except TimeoutError as error:
            subject = wanted[0].subject
            self.check_allowed(subject, started)
            raise RetryableError(
                "jetstream.timeout",
                f"no answer within {timeout:g} s",
                where=f"{subject} at {self.spec.shown}",
            ) from error
        for each, (_, _, header, _) in zip(wanted, answers, strict=True):
            if header and status(header) == _NOBODY:
                raise RetryableError(
                    NO_RESPONDERS,
                    "nobody answers there: JetStream is off, starting, or without a leader",
                    where=f"{each.subject} at {self.spec.shown}",
                    cure="enable JetStream in the server's configuration, and for the account",
                )
        return [Reply(header, data) for _, _, header, data in answers]

    def exchange(
        self, encode: Callable[[Sequence[str]], bytes], answers: int, timeout: float
    ) -> Future[list[Reply]]:
        """Send frames of one's own and let the answers come; does not wait.

        Args:
            encode: Makes the frames, which name each of the reply subjects that it is given.
            answers: How many reply subjects.
            timeout: Seconds until the answers no longer count.

        Returns:
            The answers in the order of their subjects, or TimeoutError: any of them, or none, may
            have been received.
        """
        asking = self._replies.exchange(encode, answers, timeout)
        return asyncio.run_coroutine_threadsafe(asking, self._loop)

    def run(self, work: Callable[[StreamClient], Coroutine[Any, Any, T]], timeout: float) -> T:
        """Run a coroutine of nats-py's client in the I/O thread and wait for its result.

        Raises:
            RetryableError: No connection, or it took too long.
            ConfigError: We lack a permission that it needs.
        """
        self._require()
        started = time.monotonic()
        try:
            return self._await(work(self._client), timeout)
        except (TimeoutError, nats.errors.TimeoutError, nats.errors.NoRespondersError) as error:
            self.check_allowed("", started)
            raise RetryableError(
                "jetstream.timeout", f"no answer within {timeout:g} s", where=self.spec.shown
            ) from error

    def check_allowed(self, subject: str, since: float) -> None:
        """Raise ConfigError if the server has refused `subject` since `since` (monotonic).

        An empty subject stands for any.
        """
        for moment, text in self._denials:
            if moment >= since and (subject.lower() in text or "subscription" in text):
                raise ConfigError(
                    "jetstream.denied",
                    f"the server says: {text}",
                    where=subject or self.spec.shown,
                    cure="give the user the permissions that docs/jetstream.md lists",
                )

    def _require(self) -> None:
        if not self._client.is_connected:
            raise RetryableError(
                "jetstream.unreachable", "no connection to NATS", where=self.spec.shown
            )

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _await(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except nats.errors.OutboundBufferLimitError as error:
            raise RetryableError(
                "jetstream.unreachable", "no connection to NATS", where=self.spec.shown
            ) from error
        except TimeoutError:
            future.cancel()
            raise

    def _stop(self) -> None:
        future = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        with contextlib.suppress(TimeoutError):
            future.result(_CLOSING)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _close(self) -> None:
        if self._client.begun:
            await self._client.close()
        own = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not own]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connect(self) -> None:
        spec = self.spec
        options = client_options(spec) | {
            "error_cb": self._failed,
            "disconnected_cb": self._lost,
            "reconnected_cb": self._back,
        }
        connecting = asyncio.ensure_future(self._client.connect(**options))
        deadline = time.monotonic() + _FIRST_ANSWER
        while not connecting.done():
            await asyncio.wait({connecting}, timeout=0.01)
            # A server that refuses us hangs up at once, and its reset may overtake its words.
            told = [each for each in self._failures if not isinstance(each, ConnectionResetError)]
            hopeless = len(told) >= min(len(spec.url), 8) or len(self._failures) == 8
            if not connecting.done() and (hopeless or time.monotonic() > deadline):
                connecting.cancel()
                await asyncio.wait({connecting})
                failures = told or [*self._failures]
                raise explain(spec, failures[-1] if failures else None)
        try:
            connecting.result()
        except FileNotFoundError as error:
            raise ConfigError(
                "jetstream.credentials", f"cannot be read: {error.strerror}", where=error.filename
            ) from error
        await self._replies.open()

    async def _failed(self, error: Exception) -> None:
        text = str(error).lower()
        if "permissions violation" in text:
            self._denials.append((time.monotonic(), text))
        else:
            self._failures.append(error)

    async def _lost(self) -> None:
        self.losses += 1
        self._client.forget_pending()
        self._replies.lose()
        if self._replies.opened and not self._closing:  # of one that never was, the caller tells
            log.warning("connection to NATS lost, reconnecting", servers=self.spec.shown)
        self._wake()

    async def _back(self) -> None:
        log.info("connection to NATS is back", servers=self.spec.shown)
        self._wake()

    def _wake(self) -> None:
        for event in list(self._watchers):
            event.set()
