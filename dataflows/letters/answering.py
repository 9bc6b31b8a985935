"""Carries out what the owner asks about dead letters, and answers."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

import structlog

from connectors.jetstream.connection import connect
from connectors.jetstream.patience import Patience
from connectors.jetstream.requests import STREAM, finish
from dataflows.stopping import stopping

if TYPE_CHECKING:
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec
    from connectors.letters import Asked, LetterAnswer
    from dataflows.dead_letters import DeadLetterWriter

log = structlog.get_logger()


class Answering:
    """The requests of one share that are to be carried out.

    Args:
        nats: Where they came from.
    """

    def __init__(self, nats: NatsSpec) -> None:
        self._nats = nats
        self._connection: Connection | None = None
        self._patience = Patience(STREAM, threading.Event(), (stopping,))
        self._asked: deque[Asked] = deque()

    def add(self, asked: Asked) -> None:
        """Take a request, to be carried out behind those that came before it."""
        self._asked.append(asked)

    def carry_out(self, writer: DeadLetterWriter) -> None:
        """Carry out what can be now.

        Raises:
            FencedError: A newer claim exists.
            RetryableError: The flow stops meanwhile; requests that are not finished come again.
        """
        while self._asked:
            answer = writer.carry_out(self._asked[0].request)
            if answer is None:
                return
            self._finish(self._asked.popleft(), answer)

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        if self._connection is not None:
            self._connection.release()

    def _finish(self, asked: Asked, answer: LetterAnswer) -> None:
        log.info(
            "dead letters were worked on, as asked",
            sink=asked.claim.share.sink,
            stream=asked.claim.share.stream,
            action=asked.request.action,
            replayed=answer.replayed,
            failed=answer.failed,
            waiting=answer.waiting,
            discarded=answer.discarded,
            gone=answer.gone,
        )
        connection = self._connection = self._connection or connect(self._nats)
        self._patience.repeat(
            lambda: finish(connection, asked.sequence, asked.request.reply, answer)
        )
