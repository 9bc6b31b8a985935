"""nats-py's client, with a short way for our own subscriptions.

nats-py keeps what it is good at: TLS, credentials, cluster discovery, reconnecting and
resubscribing. Messages of the subscriptions made by `subscribe_raw` never become nats-py messages:
they go to a callback as plain tuples (6 µs a message instead of 30).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats.aio.client import Client
from nats.errors import Error, ProtocolError
from nats.protocol.parser import PERMISSIONS_ERR, Parser

from connectors.jetstream.wire import FrameReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from connectors.jetstream.wire import Incoming


class _RoutingParser(Parser):
    """Passes to nats-py's parser only what is not for one of our callbacks."""

    def __init__(self, client: StreamClient) -> None:
        self.reader = FrameReader()
        super().__init__(client)

    def reset(self) -> None:
        self.reader.reset()
        super().reset()

    async def parse(self, data: bytes = b"") -> None:
        try:
            frames = self.reader.feed(data)
        except ValueError as error:
            raise ProtocolError from error
        for frame in frames:
            await super().parse(frame)


class StreamClient(Client):
    """A connection to NATS for bulk work. Used inside one event loop only."""

    def __init__(self) -> None:
        super().__init__()
        self._routing = _RoutingParser(self)
        self._ps = self._routing

    @property
    def begun(self) -> bool:
        """Whether nats-py got as far as to have something to close."""
        return self._flush_queue is not None and not self.is_closed

    async def subscribe_raw(
        self, subject: str, callback: Callable[[Incoming], object]
    ) -> Subscription:
        """Subscribe; `callback` runs in the event loop and must neither raise nor block.

        The subscription survives reconnects like any other.
        """
        subscription = await self.subscribe(subject, cb=_unexpected)
        self._routing.reader.routes[str(subscription._id).encode()] = callback
        # `send` overtakes nats-py's queue: an answer could come before the server knows of us.
        await self._flush_pending(force_flush=True)
        return subscription

    async def unsubscribe_raw(self, subscription: Subscription) -> None:
        """End a subscription; messages on their way are dropped."""
        self._routing.reader.routes.pop(str(subscription._id).encode(), None)
        if not self.is_closed:
            await subscription.unsubscribe()

    def send(self, frames: bytes) -> None:
        """Hand whole frames to the socket; while there is no connection they are dropped.

        Unlike nats-py's own queue, nothing is kept to be sent after a reconnect: whoever sends
        must find out what was stored before sending it again.
        """
        if self.is_connected and self._transport is not None:
            self._transport.write(frames)

    def forget_pending(self) -> None:
        """Drop what nats-py has queued, so that a reconnect repeats nothing."""
        self._pending.clear()
        self._pending_data_size = 0

    async def _process_err(self, err_msg: str) -> None:
        """Reconnect where nats-py would close the connection for good.

        Credentials may be renewed, an account may be let in again: a flow waits for that.
        """
        if PERMISSIONS_ERR in err_msg:
            await super()._process_err(err_msg)
            return
        await self._process_op_err(Error(f"nats: {err_msg}"))


async def _unexpected(message: Msg) -> None:
    """Never called: messages of a raw subscription do not reach nats-py."""
    raise AssertionError(f"message on {message.subject}")
