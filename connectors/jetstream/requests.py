"""What the owner asks of a running flow about dead letters, in the stream `CDC_REQUESTS`.

A request lies at `CDCREQ.<sink>.<stream>` until the flow has carried it out, so it waits for a flow
that does not run (a day at most), and one that was interrupted is carried out again. The answer
goes to the subject that the request names.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import msgspec
import structlog

from connectors.errors import ConfigError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.layout import ensure_bucket
from connectors.letters import Asked, LetterAnswer, LetterRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.subscription import Subscription

    from connectors.contracts.sink import Claim
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec
    from connectors.jetstream.wire import Incoming

log = structlog.get_logger()

STREAM = "CDC_REQUESTS"
_DAY_NS = 24 * 3600 * 1_000_000_000
# Requests are heard at once; one that was missed is found this many seconds later.
_LOOK_EVERY = 5.0
# So many letters go into one request, that a flow comes back to its changes between two.
_MOST = 5000


def request_subject(sink: str, stream: str) -> str:
    """Where requests about the letters of a sink and stream lie."""
    return f"CDCREQ.{sink}.{stream}"


class Requests:
    """Hears the requests that concern a claim. Used by one thread at a time.

    Args:
        nats: Where they are.
        claim: Of the share that they must concern.

    Raises:
        RetryableError: NATS does not answer.
    """

    def __init__(self, nats: NatsSpec, claim: Claim) -> None:
        self._claim = claim
        self._subject = request_subject(claim.share.sink, claim.share.stream)
        self._given = 0
        self._heard = threading.Event()
        self._looked = 0.0
        self._subscription: Subscription | None = None
        self._connection = connect(nats)

    def next(self) -> Asked | None:
        """The next request, each given once; None when there is none now."""
        now = time.monotonic()
        if not self._heard.is_set() and now - self._looked < _LOOK_EVERY:
            return None
        self._looked = now
        self._heard.clear()
        try:
            if self._subscription is None:
                self._subscription = self._connection.subscribe(
                    self._subject, lambda _: self._heard.set()
                )
            found = api.next_message(self._connection, STREAM, self._given + 1, self._subject)
        except api.ApiError:  # nobody has asked for anything yet: there is no such stream
            return None
        except RetryableError as error:
            log.debug("asking later what is wanted", where=self._subject, reason=str(error))
            return None
        if found is None:
            return None
        self._heard.set()  # perhaps another one waits
        self._given = found.seq
        try:
            return Asked(self._claim, found.seq, decode(found.data))
        except msgspec.MsgspecError as error:
            log.warning("a request cannot be read", where=self._subject, reason=str(error))
            api.delete_message(self._connection, STREAM, found.seq)
            return None

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        if self._subscription is not None:
            self._connection.unsubscribe(self._subscription)
        self._connection.release()


decode = msgspec.json.Decoder(LetterRequest).decode


def finish(connection: Connection, sequence: int, reply: str, answer: LetterAnswer) -> None:
    """Answer a request that was carried out, and remove it.

    Raises:
        RetryableError: NATS does not answer; the request is carried out once more.
    """
    if reply:
        data = msgspec.json.encode(answer)
        connection.send(b"PUB %b %d\r\n%b\r\n" % (reply.encode(), len(data), data))
    api.delete_message(connection, STREAM, sequence)


class Asking:
    """Asks running flows, and hears what came of it; use as a context manager.

    Args:
        connection: To NATS.
        replicas: Of the requests' stream, if it has to be made.
    """

    def __init__(self, connection: Connection, replicas: int) -> None:
        self._connection = connection
        self._answers: list[LetterAnswer] = []
        self._came = threading.Event()
        self._asked = 0
        self._inbox = connection.inbox()
        ensure_bucket(
            connection,
            STREAM,
            ["CDCREQ.>"],
            {"retention": "workqueue", "max_age": _DAY_NS, "num_replicas": replicas},
        )
        self._subscription = connection.subscribe(self._inbox, self._take)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.unsubscribe(self._subscription)

    def ask(self, sink: str, stream: str, request: LetterRequest) -> None:
        """Leave a request for the flow of a sink; large ones are split.

        Raises:
            ConfigError: The server refuses it.
            RetryableError: NATS does not answer.
        """
        for part in parts(request.sequences):
            body = msgspec.structs.replace(request, sequences=part, reply=self._inbox)
            reply = self._connection.request(
                request_subject(sink, stream), msgspec.json.encode(body)
            )
            ack = api.decode_ack(reply.payload)
            if ack.error is not None:
                raise ConfigError(
                    "jetstream.not_stored",
                    f"{ack.error.description} ({ack.error.err_code})",
                    where=STREAM,
                )
            self._asked += 1

    def answers(self, patience: float) -> tuple[list[LetterAnswer], int]:
        """What has come of the requests, and how many have no answer.

        Args:
            patience: Seconds without an answer after which it waits no longer.
        """
        while len(self._answers) < self._asked:
            self._came.clear()
            if len(self._answers) >= self._asked or not self._came.wait(patience):
                break
        return list(self._answers), self._asked - len(self._answers)

    def _take(self, message: Incoming) -> None:
        if message[2][8:9] != b" ":
            self._answers.append(msgspec.json.decode(message[3], type=LetterAnswer))
            self._came.set()


def parts(sequences: Sequence[int]) -> list[list[int]]:
    """Cut a selection into the sizes of requests."""
    return [list(sequences[at : at + _MOST]) for at in range(0, len(sequences), _MOST)]
