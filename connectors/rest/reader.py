"""Polls in a thread of its own, and hands out what it finds in chunks."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import structlog

from connectors.contracts.source import Chunk
from connectors.errors import ConfigError, FatalError, RetryableError, WaxtapError
from connectors.rest.chunks import chunks
from connectors.rest.columns import Columns
from connectors.rest.names import parse
from connectors.rest.outcome import split_position
from connectors.rest.poller import Poller
from connectors.rest.refusals import LaterError
from connectors.rest.schedule import Schedule, delay

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from connectors.contracts.source import Checkpoint, SourceContext
    from connectors.rest.ledger import Ledger
    from connectors.rest.names import PollName
    from connectors.rest.outcome import Outcome
    from connectors.rest.spec import RestSourceSpec

_WAIT_S = 0.002
# So long a start waits for the first poll; what takes longer goes on while the flow runs.
_FIRST_POLL_S = 2.0
_END_S = 5.0
_MOST_CHUNKS = 2

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class RestReader:
    """Implements `contracts.SourceReader`.

    Args:
        source: The source's name.
        spec: Its configuration.
        accept: Losses that the owner has accepted.
        context: The flow's.
        ledger: Has been opened; closed with the reader.
        resume: Behind which change to go on.
    """

    def __init__(
        self,
        source: str,
        spec: RestSourceSpec,
        accept: Collection[str],
        context: SourceContext,
        ledger: Ledger,
        resume: Checkpoint | None,
    ) -> None:
        self._source, self._spec, self._accept = source, spec, accept
        self._context, self._ledger = context, ledger
        self._resume = self._last = resume
        self._chunks: deque[Chunk] = deque()
        self._arrived, self._answered = threading.Event(), threading.Event()
        # Guards `_starting` and `_error` together: whoever fails knows who will hear of it.
        self._lock = threading.Lock()
        self._starting = True
        self._error: WaxtapError | None = None
        self._closed = self._done = self._told = False
        self._confirmed: PollName | None = None
        self._failures = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"waxtap-{source}-poll", daemon=True)

    def start(self) -> None:
        """Begin to poll; returns when the first poll is done, or takes long.

        Raises:
            ConfigError: The API refuses, or its answers do not fit the configuration.
            GapError: `rest.too_many_deletions`.
            RetryableError: It does not answer, and nothing is known of it yet.
        """
        self._thread.start()
        deadline = time.monotonic() + _FIRST_POLL_S
        while not self._answered.wait(_WAIT_S) and time.monotonic() < deadline:
            if self._context.stop.is_set() or not self._thread.is_alive():
                break
        with self._lock:
            self._starting = False
            error = self._error
        if error is not None:
            self.close()
            raise error

    def read(self) -> Chunk | None:
        """Return the next chunk, or None when there is nothing now.

        Raises:
            FatalError: The source cannot go on; nothing was lost.
        """
        if not self._chunks:
            self._arrived.wait(_WAIT_S)
            self._arrived.clear()
        if self._chunks:
            chunk = self._chunks.popleft()
            self._call(self._wake.set)
            return chunk
        ended = not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        if ended and not (self._done or self._closed):
            raise FatalError("rest.polling_died", "polling ended unexpectedly; see the traceback")
        return None

    def confirm(self, checkpoint: Checkpoint) -> None:
        """What the polls before that of the checkpoint have found is removed, by and by."""
        self._confirmed = parse(checkpoint.state.get("poll", ""))
        self._call(self._wake.set)

    def close(self) -> None:
        """End the polling. Never raises."""
        self._closed = True
        self._call(self._cancel)
        if self._thread.ident is not None:
            self._thread.join(_END_S)

    def _call(self, what: Callable[[], object]) -> None:
        loop = self._loop
        if loop is not None:
            # It may just have ended.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(what)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        with closing(self._ledger):
            asyncio.run(self._main())

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if self._closed:
            return
        try:
            await self._replay()
            if self._context.past is None:
                await self._poll()
            self._done = True
        except asyncio.CancelledError:
            if not self._closed:
                raise
        except WaxtapError as error:
            self._error = error
        except (OSError, sqlite3.Error) as error:
            self._error = FatalError(
                "rest.local_files",
                f"the temporary files of a poll cannot be used: {error}",
                where="TMPDIR",
                cure="free space on the disk of TMPDIR, or set it to a directory that can be"
                " written; nothing was lost",
            )
        finally:
            self._answered.set()

    async def _replay(self) -> None:
        """Hand on what earlier polls have found, as far as it was not."""
        ledger = self._ledger
        index = split_position(self._resume.position)[1] if self._resume else -1
        for name in ledger.unfinished(index):
            outcome = await self._patiently(partial(ledger.fetch, name))
            with closing(outcome):
                for _ in outcome.delta():
                    pass
                await self._hand_on(outcome, index if name is ledger.begun else -1)

    async def _poll(self) -> None:
        poller = Poller(self._source, self._spec, self._accept, self._ledger)
        schedule = Schedule(self._spec)
        try:
            if self._resume is not None and not schedule.at_start:
                now = datetime.now(UTC)
                self._answered.set()
                await self._sleep(schedule.wait(now, now))
            while True:
                self._tidy()
                began = datetime.now(UTC)
                try:
                    outcome = await poller.poll(began)
                except (RetryableError, ConfigError) as error:
                    await self._failed(error, polled=poller.polled)
                    continue
                self._answered.set()
                self._succeeded()
                if outcome is not None:
                    with closing(outcome):
                        for _ in outcome.delta():
                            pass
                        await self._hand_on(outcome)
                await self._sleep(schedule.wait(began, datetime.now(UTC)))
        finally:
            await poller.close()

    async def _hand_on(self, outcome: Outcome, after: int = -1) -> None:
        schema, name = self._spec.named(self._source)
        columns = Columns(self._spec.columns, outcome.head.columns)
        table = columns.table(self._source, schema, name, self._spec.key)
        for chunk in chunks(outcome, table, after):
            while len(self._chunks) >= _MOST_CHUNKS:
                self._wake.clear()
                if len(self._chunks) >= _MOST_CHUNKS:
                    await self._wake.wait()
            self._put(chunk)
            await asyncio.sleep(0)

    def _put(self, chunk: Chunk) -> None:
        self._last = chunk.checkpoint
        self._chunks.append(chunk)
        self._answered.set()
        self._arrived.set()

    async def _failed(self, error: RetryableError | ConfigError, *, polled: bool) -> None:
        """Wait until it is tried again, or raise the error if that is of no use."""
        with self._lock:
            hopeless = isinstance(error, ConfigError) and not polled
            if hopeless or (self._starting and self._resume is None):
                self._error = error
                raise error
        self._failures += 1
        if not self._told:
            self._told = True
            _log.warning("polling fails, retrying", source=self._source, reason=str(error))
        if self._last is not None and not self._chunks:
            # so that a flow that has been fenced finds out
            self._put(Chunk(self._source, [], self._last, self._last.state))
        after = error.after if isinstance(error, LaterError) else None
        await self._sleep(delay(self._failures, after))

    def _succeeded(self) -> None:
        self._failures = 0
        if self._told:
            self._told = False
            _log.info("polling works again", source=self._source)

    async def _patiently(self, fetch: Callable[[], Outcome]) -> Outcome:
        while True:
            try:
                return fetch()
            except RetryableError as error:
                await self._failed(error, polled=True)

    async def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._remove_confirmed()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                return
            self._wake.clear()

    def _tidy(self) -> None:
        """What may as well be done later."""
        self._remove_confirmed()
        with suppress(RetryableError):
            self._ledger.rebase()

    def _remove_confirmed(self) -> None:
        name, self._confirmed = self._confirmed, None
        if name is not None:
            with suppress(RetryableError):
                self._ledger.confirm(name)
