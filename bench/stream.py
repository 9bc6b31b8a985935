"""Looking at a JetStream stream from outside, for code that is not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import nats
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from bench.errors import FailedError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it lies in the stream.

    Attributes:
        sequence: Of the stream.
        seconds: When the server stored it, since the epoch.
        data: Its payload.
    """

    sequence: int
    seconds: float
    data: bytes


class StreamObserver:
    """A connection of the benchmark's own to one stream.

    Args:
        url: Of the NATS server.
        stream: The stream's name; it need not exist yet.
    """

    def __init__(self, url: str, stream: str) -> None:
        self._stream = stream
        self._runner = asyncio.Runner()
        self._client = self._run(nats.connect(url))
        self._jetstream = self._client.jetstream(timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._client.close())
        self._runner.close()

    def create(self, subjects: Sequence[str]) -> None:
        """Create the stream with file storage and no limits."""
        self._run(self._jetstream.add_stream(name=self._stream, subjects=list(subjects)))

    def messages(self, subjects: str = ">") -> int:
        """How many messages match; 0 while the stream does not exist."""
        try:
            info = self._run(self._jetstream.stream_info(self._stream, subjects_filter=subjects))
        except NotFoundError:
            return 0
        return sum((info.state.subjects or {}).values())

    def last_sequence(self) -> int:
        """The sequence of the stream's last message."""
        return self._run(self._jetstream.stream_info(self._stream)).state.last_seq

    def delete_consumers(self) -> None:
        """Delete every consumer: the next delivery is the first that the stream sees."""
        for consumer in self._run(self._jetstream.consumers_info(self._stream)):
            self._run(self._jetstream.delete_consumer(self._stream, consumer.name))

    def forget_offsets(self) -> None:
        """Delete the offsets of sinks that lie beside the stream: a delivery starts anew."""
        with suppress(NotFoundError):
            self._run(self._jetstream.delete_stream("KV_CDC_OFFSETS"))

    def read(self, subjects: str, *, after: int, count: int) -> list[Stored]:
        """Read the next `count` messages that match, beyond a sequence.

        Raises:
            FailedError: There are fewer.
        """
        return self._run(self._read(subjects, after, count))

    async def _read(self, subjects: str, after: int, count: int) -> list[Stored]:
        found: list[Stored] = []
        subscription = await self._jetstream.subscribe(
            subjects,
            stream=self._stream,
            ordered_consumer=True,
            config=ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1
            ),
        )
        try:
            while len(found) < count:
                message = await subscription.next_msg(timeout=10)
                metadata = message.metadata
                found.append(
                    Stored(metadata.sequence.stream, metadata.timestamp.timestamp(), message.data)
                )
        except NatsTimeoutError:
            raise FailedError(f"{self._stream}: {len(found)} of {count} messages came") from None
        finally:
            await subscription.unsubscribe()
        return found

    def _run(self, coroutine: Coroutine[object, object, _T]) -> _T:
        return self._runner.run(coroutine)
