"""How far sinks are, for each stream that they read.

The truth is what the target holds, and the sink itself is asked for it (`Sink.offsets`): that is
right while its flow runs and while it stands still. Where the target does not answer, a message is
known to be delivered when the consumer of the flow has acknowledged it, which it does behind the
target's commit; of any other one nothing is known then.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import structlog

from connectors import registry
from connectors.contracts.sink import Share, SinkContext
from connectors.errors import WaxtapError
from connectors.jetstream.consumers import Progress, progress
from connectors.jetstream.offsets import KvOffsets
from connectors.subjects import stored_upto
from dataflows.spec import part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.contracts.sink import Sink
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec
    from control.explorer.readers import Reader, Registered, Specs
    from control.explorer.streams import Stream
    from dataflows.spec import Config, SourceConfig

log = structlog.get_logger()

# How old an answer of a target may be.
_FRESH = 1.0
# How long a target that does not answer is left alone.
_LEFT_ALONE = 5.0
# How long a request waits for a target.
_PATIENCE = 3.0


class Place(NamedTuple):
    """How far a sink is in a stream.

    Attributes:
        offsets: By subject, the sequence up to which the target has everything; None: it cannot be
            asked at the moment.
        acknowledged: Of the flow's consumer; None: there is none.
    """

    offsets: dict[str, int] | None
    acknowledged: Progress | None

    def upto(self, subject: str) -> int | None:
        """Up to which sequence the target has a subject for certain; None: nothing is known."""
        if self.offsets is not None:
            return stored_upto(self.offsets, subject)
        return self.acknowledged.floor if self.acknowledged else None

    @property
    def exact(self) -> bool:
        """Whether what lies behind `upto` is known not to be stored."""
        return self.offsets is not None


class Sinks:
    """What is registered, each entry for itself, and sinks to be asked. Usable from any thread.

    Args:
        nats: Where the streams are.
        specs: Where sinks and sources are registered.
        environment: What references to secrets are resolved from.
    """

    def __init__(self, nats: NatsSpec, specs: Specs, environment: Mapping[str, str]) -> None:
        self._nats, self._specs, self._environment = nats, specs, environment
        self._context = SinkContext(threading.Event(), KvOffsets(nats))
        self._lock = threading.Lock()
        self._revision = -1
        self._parts: dict[tuple[str, str], Config] = {}
        self._told: dict[tuple[str, str], str] = {}

    def config(self, name: str) -> Config | None:
        """A sink as its flow is built from it; None: it is not registered, or cannot be used.

        Raises:
            RetryableError: The configuration cannot be read now.
        """
        return self._part(self._specs.read(), "sinks", name)

    def sink(self, name: str) -> Sink | None:
        """A sink, made to be asked; None and raises as `config`."""
        config = self.config(name)
        if config is None:
            return None
        found = config.sinks[name]
        return registry.sink(found.type, found.name, found.spec, self._context)

    def sources(self, names: Sequence[str]) -> dict[str, SourceConfig]:
        """Those of these sources that are registered and can be used. Raises as `config`."""
        registered = self._specs.read()
        parts = {name: self._part(registered, "sources", name) for name in names}
        return {name: part.sources[name] for name, part in parts.items() if part is not None}

    def _part(self, registered: Registered, section: str, name: str) -> Config | None:
        """One entry alone: what is wrong with another one is of no concern to it.

        One that cannot be used is looked at again each time: a secret's file may come later.
        """
        entry = section, name
        with self._lock:
            if registered.revision != self._revision:
                self._revision = registered.revision
                self._parts.clear()
                self._told.clear()
            known = self._parts.get(entry)
        if known is not None:
            return known
        try:
            config = part(registered.tree, self._environment, self._nats, {entry})
        except WaxtapError as error:
            self._tell(entry, str(error))
            return None
        if name not in (config.sinks if section == "sinks" else config.sources):
            return None
        with self._lock:
            if registered.revision == self._revision:
                self._parts[entry] = config
        return config

    def _tell(self, entry: tuple[str, str], reason: str) -> None:
        """Log what is wrong with an entry, once."""
        with self._lock:
            is_known = self._told.get(entry) == reason
            self._told[entry] = reason
        if not is_known:
            log.warning("a registered entry cannot be used", where=".".join(entry), reason=reason)


class Places:
    """Asks sinks how far they are, and remembers the answer for a moment. Usable from any thread.

    Args:
        connection: To NATS.
        sinks: Whom to ask.

    Attributes:
        executor: Where servers are asked, several at once.
    """

    def __init__(self, connection: Connection, sinks: Sinks) -> None:
        self._connection, self._sinks = connection, sinks
        self.executor = ThreadPoolExecutor(8, thread_name_prefix="waxtap-sinks")
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, str], tuple[float, dict[str, int] | None]] = {}

    def close(self) -> None:
        """Wait for no more answers."""
        self.executor.shutdown(wait=False, cancel_futures=True)

    def forget(self, sink: str) -> None:
        """Ask a sink anew next time."""
        with self._lock:
            for place in [each for each in self._known if each[0] == sink]:
                del self._known[place]

    def of(
        self, readers: Sequence[Reader], streams: Sequence[Stream]
    ) -> dict[tuple[str, str], Place]:
        """How far sinks are, by sink and stream; only those that read a stream are in it.

        Raises:
            RetryableError: NATS does not answer.
        """
        found: dict[tuple[str, str], Place] = {}
        waiting = []
        for stream in streams:
            consumers = progress(self._connection, stream.name)
            for reader in readers:
                subjects = reader.subjects(stream.source)
                if not subjects:
                    continue
                share = Share(reader.name, stream.name, stream.created, subjects)
                future = self.executor.submit(self._offsets, share)
                waiting.append((share, future, consumers.get(reader.name)))
        deadline = time.monotonic() + _PATIENCE
        for share, future, consumer in waiting:
            offsets = None
            try:
                offsets = future.result(max(deadline - time.monotonic(), 0.0))
            except TimeoutError:
                log.debug("a target does not answer in time", sink=share.sink)
            found[share.sink, share.stream] = Place(offsets, consumer)
        return found

    def _offsets(self, share: Share) -> dict[str, int] | None:
        name = (share.sink, share.stream, share.created)
        with self._lock:
            since, known = self._known.get(name, (-_LEFT_ALONE, None))
        age = time.monotonic() - since
        if age < (_FRESH if known is not None else _LEFT_ALONE):
            return known
        asked = time.monotonic()
        try:
            sink = self._sinks.sink(share.sink)
            if sink is None:  # nobody was asked, so nobody has to be left alone
                return None
            known = sink.offsets(share)
        except WaxtapError as error:
            log.debug("a target cannot be asked", sink=share.sink, reason=str(error))
            known = None
        with self._lock:
            self._known[name] = asked, known
        return known
