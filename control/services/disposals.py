"""Removes what deleted sources have left: objects on their servers, and their streams.

What is to be removed stands in the configuration's document, so it outlives the service that was
asked. It is removed only once the source's flow has stopped, by one service at a time: a late one
might otherwise meet the objects of a new source of the same name, which may be made afterwards.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog
from google.protobuf.empty_pb2 import Empty
from msgspec.structs import replace

from connectors.errors import RetryableError, WaxtapError
from connectors.jetstream import api, backfills
from connectors.jetstream.connection import connect
from connectors.jetstream.oversize import bucket_name
from connectors.jetstream.source_state import state_bucket
from connectors.jetstream.stream import stream_name
from control.server.statuses import ApiError
from control.specs.connecting import source_of
from control.specs.editing import Asked, Change
from dataflows.spec import part

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec
    from control.specs.document import Disposal
    from control.specs.editing import Editing
    from control.specs.store import SpecStore, Stored

log = structlog.get_logger()

# One who removes has that long; then another one may try.
_CLAIM_S = 300.0
_EVERY_S = 30.0
# So many sources' objects are removed at once.
_THREADS = 8


class Disposals:
    """Sees to what deleted sources have left.

    Args:
        store: Where the configuration is.
        editing: Changes it.
        nats: Where the streams are.
        environment: Where references are looked up.
        stopped: Returns once a flow (`capture/shop`) that a revision has deleted runs nowhere any
            more, nor may be started.
    """

    def __init__(
        self,
        store: SpecStore,
        editing: Editing,
        nats: NatsSpec,
        environment: Mapping[str, str],
        stopped: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._store, self._editing, self._stopped = store, editing, stopped
        self._nats, self._environment = nats, environment
        self._at_it: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # A server that does not answer keeps a thread for a while, and nobody else is to wait.
        self._threads = ThreadPoolExecutor(_THREADS, "waxtap-disposals")

    def close(self) -> None:
        """Let go of the threads, once no call is under way any more."""
        self._threads.shutdown()

    async def run(self) -> None:
        """Look for something to remove now and then, until cancelled."""
        waiting: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                with _told("the configuration"):
                    stored = await asyncio.to_thread(self._store.read)
                    for name in stored.document.disposals:
                        # One that waits for its flow or its server keeps no other one back.
                        if name not in waiting or waiting[name].done():
                            waiting[name] = group.create_task(self._try(name))
                    waiting = {name: task for name, task in waiting.items() if not task.done()}
                await asyncio.sleep(_EVERY_S)

    async def _try(self, name: str) -> None:
        with _told(f"sources/{name}"):
            await self.dispose(name)

    async def dispose(self, name: str) -> None:
        """Return once nothing is left of a deleted source that was to be removed.

        Raises:
            ConfigError: It cannot be removed as things are.
            RetryableError: Its server or NATS does not answer, or another service is at it.
        """
        async with self._at_it.setdefault(name, asyncio.Lock()):
            stored = await asyncio.to_thread(self._store.read)
            if name not in stored.document.disposals:
                return
            await self._stopped(f"capture/{name}", stored.revision)
            disposal = await asyncio.to_thread(self._claim, name)
            if disposal is None:
                return
            try:
                await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._remove, name, disposal
                )
            except api.ApiError as error:
                await asyncio.to_thread(self._note, name, replace(disposal, claimed=0.0))
                raise RetryableError(
                    "control.stream_not_deleted", str(error), where=f"sources/{name}"
                ) from error
            except BaseException:
                await asyncio.to_thread(self._note, name, replace(disposal, claimed=0.0))
                raise
            await asyncio.to_thread(self._note, name, None)

    def _claim(self, name: str) -> Disposal | None:
        """Become the only one who removes; None: nothing is left to do."""
        claimed: list[Disposal] = []

        def change(base: Stored) -> Change:
            claimed.clear()
            disposal = base.document.disposals.get(name)
            if disposal is None:
                return Change(base.tree, (), lambda _: Empty())
            if disposal.claimed > time.time():
                raise RetryableError(
                    "control.disposing",
                    "another control service removes what the source has left",
                    where=f"sources/{name}",
                )
            claimed.append(replace(disposal, claimed=time.time() + _CLAIM_S))
            return Change(base.tree, (), lambda _: Empty(), {name: claimed[0]})

        self._editing.run(_own(name), change)
        return claimed[0] if claimed else None

    def _note(self, name: str, disposal: Disposal | None) -> None:
        def change(base: Stored) -> Change:
            known = name in base.document.disposals
            kept = {name: disposal} if disposal is not None and known else {}
            gone = (name,) if disposal is None else ()
            return Change(base.tree, (), lambda _: Empty(), kept, gone)

        self._editing.run(_own(name), change)

    def _remove(self, name: str, disposal: Disposal) -> None:
        if disposal.server_objects:
            tree = {"sources": {name: disposal.entry}}
            config = part(tree, self._environment, self._nats).sources[name]
            dropped = source_of(config, self._nats).drop()
            log.info("a deleted source's objects were dropped", source=name, dropped=dropped)
        if disposal.stream:
            with connect(self._nats) as connection:
                info = api.stream_info(connection, stream_name(name))
                if info is not None and disposal.created not in ("", info.created):
                    log.warning("the stream is a newer one, and stays", source=name)
                    return
                for stream in (
                    stream_name(name), f"OBJ_{bucket_name(name)}", f"OBJ_{state_bucket(name)}"
                ):  # fmt: skip
                    _delete(connection, stream)
                backfills.forget(connection, name)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Log what keeps something from being removed, and go on."""
    try:
        yield
    except (WaxtapError, ApiError) as error:
        reason = str(error)
        log.warning("what a deleted source has left is not removed yet", of=what, reason=reason)
    except Exception:
        # A fault of ours must not keep the others from being removed.
        log.exception("what a deleted source has left cannot be removed", of=what)


def _delete(connection: Connection, stream: str) -> None:
    try:
        if api.delete_stream(connection, stream):
            log.info("a deleted source's stream was deleted", stream=stream)
    except api.ApiError as error:
        raise RetryableError("control.stream_not_deleted", str(error), where=stream) from error


def _own(name: str) -> Asked:
    return Asked("", f"disposal of {name}", "control")
