"""The sink's writer: takes batches over and has them sent by threads of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from connectors.errors import FencedError, RetryableError
from connectors.stopping import wait_until
from connectors.subjects import stored_upto
from connectors.trouble import Trouble
from connectors.webhook.events import events, identity
from connectors.webhook.keeper import Keeper
from connectors.webhook.outbox import Outbox
from connectors.webhook.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.contracts.changes import Delivered
    from connectors.contracts.sink import Batch, Claim, SinkContext
    from connectors.webhook.delivery import Endpoint
    from connectors.webhook.spec import SinkSpec

# After an error: how long what is under way may take, so that less is sent twice.
_SETTLE_S = 2.0
_JOIN_S = 2.0


class WebhookWriter:
    """Writes one claim's batches; see `contracts.SinkWriter`.

    Args:
        spec: How it is sent.
        endpoint: Where to.
        claim: The right to write.
        context: Where offsets are kept; once its `stop` is set, an endpoint in trouble is no longer
            waited for: `write`, `flush` and `replay` raise RetryableError.
    """

    def __init__(
        self, spec: SinkSpec, endpoint: Endpoint, claim: Claim, context: SinkContext
    ) -> None:
        self._spec, self._endpoint = spec, endpoint
        self._claim, self._context = claim, context
        self._prefix = identity(claim.share)
        self._outbox = Outbox(min(claim.offsets.values(), default=0))
        self._trouble = Trouble(claim.share, "connectors.webhook.sink")
        self._keeper: Keeper | None = None
        self._senders: list[Sender] = []
        self._upto = 0
        self._stored: dict[str, int] = {}

    @property
    def stored(self) -> int:
        """Everything that was written up to this sequence is stored together with its offset."""
        return min(self._outbox.stored, self._upto)

    def write(self, batch: Batch) -> None:
        """Take a batch over; waits while too much is under way.

        Raises:
            FencedError: A newer claim exists.
            PermanentError: A change of this or an earlier batch is refused for good.
            FatalError: `webhook.gone`, `webhook.redirected`, `webhook.unauthorized`.
            RetryableError: `webhook.interrupted`: `stop` was set while the endpoint was in trouble.
        """
        if batch.claim.epoch != self._claim.epoch:
            raise FencedError(
                "webhook.fenced",
                f"the batch was read under epoch {batch.claim.epoch}, not {self._claim.epoch}",
                where=f"sink {self._claim.share.sink}",
            )
        new = list(events(batch.changes, self._prefix))
        if batch.changes and batch.changes[0].sequence <= max(self._claim.offsets.values()):
            pairs = zip(batch.changes, new, strict=True)
            new = [event for change, event in pairs if self._is_new(change)]
        outbox = self._outbox
        with outbox.changed:
            self._wait_until(lambda: outbox.room)
            self._upto = max(self._upto, batch.upto)
            self._start(outbox.put(new, batch.upto))

    def flush(self) -> None:
        """Return once everything written is stored together with its offset. Raises as `write`."""
        outbox = self._outbox
        with outbox.changed:
            outbox.flushing = True
            outbox.changed.notify_all()
            self._wait_until(lambda: outbox.empty and outbox.stored >= self._upto)
            outbox.flushing = False

    def replay(self, changes: Sequence[Delivered]) -> None:
        """Send dead letters behind everything that was written; returns when they are taken.

        A letter that is sent again has the id that it had. Raises as `write`; of what is refused,
        letters before it, and those of other keys, may have been taken.
        """
        self.flush()
        outbox = self._outbox
        with outbox.changed:
            self._start(outbox.put(events(changes, self._prefix), None))
            self._wait_until(lambda: outbox.empty)

    def close(self) -> None:
        """Let go of the connections without waiting for what is under way. Never raises."""
        self._outbox.close()
        senders, self._senders = self._senders, []
        for sender in senders:
            sender.hang_up()
        deadline = time.monotonic() + _JOIN_S
        for thread in (*senders, self._keeper):
            if thread is not None:
                thread.join(max(deadline - time.monotonic(), 0))
        self._keeper = None

    def _is_new(self, change: Delivered) -> bool:
        stored = self._stored.get(change.subject)
        if stored is None:
            stored = stored_upto(self._claim.offsets, change.subject)
            self._stored[change.subject] = stored
        return change.sequence > stored

    def _start(self, events: int) -> None:
        """Have as many threads as there may be work for."""
        name = f"webhook-sink-{self._claim.share.sink}"
        if self._keeper is None:
            self._keeper = Keeper(
                self._claim, self._context.offsets, self._outbox, self._trouble, f"{name}-offset"
            )
        while len(self._senders) < min(events, self._spec.parallelism):
            self._senders.append(
                Sender(self._spec, self._endpoint, self._outbox, self._trouble, name)
            )

    def _wait_until(self, done: Callable[[], bool]) -> None:
        """With the outbox held: wait, and raise the error that ends everything."""
        outbox = self._outbox
        if outbox.closing:
            raise RetryableError("webhook.closed", "the writer has been closed")
        over = wait_until(
            lambda: outbox.error is not None or done(), outbox.changed, self._context.stop
        )
        if not over:
            raise RetryableError("webhook.interrupted", "stopped while the endpoint was in trouble")
        if outbox.error is not None:
            self._settle()
            raise outbox.error

    def _settle(self) -> None:
        """Let the requests under way end, and the offset of what they have brought be stored."""
        outbox = self._outbox
        until = time.monotonic() + _SETTLE_S
        while outbox.sending or outbox.reached > outbox.stored:
            left = until - time.monotonic()
            if left <= 0 or isinstance(outbox.error, FencedError):
                return
            outbox.changed.wait(left)
