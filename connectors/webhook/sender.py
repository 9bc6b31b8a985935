"""The threads that send: each has one connection and sees one request through after the other."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from connectors.backoff import doubled, jittered
from connectors.errors import ConfigError, FatalError, PermanentError, WaxtapError
from connectors.webhook.answers import Answer, Meaning
from connectors.webhook.delivery import Line, UnansweredError
from connectors.webhook.events import message

if TYPE_CHECKING:
    from connectors.trouble import Trouble
    from connectors.webhook.delivery import Endpoint
    from connectors.webhook.ordering import Unit
    from connectors.webhook.outbox import Outbox
    from connectors.webhook.spec import SinkSpec

_BACKOFF_S = (0.05, 30.0)
# Between the brackets of a list.
_BRACKETS = 2


class Sender:
    """A thread that delivers what it takes out of the outbox, until that is over.

    Args:
        spec: How requests are cut.
        endpoint: Where they go.
        outbox: Where events come from, and which is told of an error that ends everything.
        trouble: Told of what does not work.
        name: Of the thread.
    """

    def __init__(
        self, spec: SinkSpec, endpoint: Endpoint, outbox: Outbox, trouble: Trouble, name: str
    ) -> None:
        self._spec, self._endpoint, self._outbox = spec, endpoint, outbox
        self._trouble = trouble
        self._line = Line(endpoint)
        self._count = 1 if spec.body == "event" else spec.max_changes
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def hang_up(self) -> None:
        """Break the connection, whatever it is used for."""
        self._line.hang_up()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, which `Outbox.close` brings."""
        self._thread.join(timeout)

    def _run(self) -> None:
        outbox = self._outbox
        try:
            while units := outbox.take(self._count, self._spec.max_body - _BRACKETS):
                if self._deliver(units):
                    outbox.finish(units)
                else:
                    outbox.abandon()
        except Exception as error:  # noqa: BLE001 - raised to whoever writes or flushes
            outbox.fail(error)
            outbox.abandon()
        finally:
            self._line.close()

    def _deliver(self, units: list[Unit]) -> bool:
        """Send a request until it is taken; False when it is over before."""
        request = message([unit.event for unit in units], self._spec.body)
        if len(request.body) > self._spec.max_body:
            raise self._too_large(units, len(request.body))
        attempts = 0
        while not self._outbox.over():
            pause = None
            try:
                answer = self._line.send(request)
            except UnansweredError as error:
                if error.stale:
                    continue
                reason, silent = error.reason, True
            else:
                if answer.meaning is Meaning.DONE:
                    if self._trouble.over(self):
                        self._outbox.revive()
                    return True
                if answer.meaning is not Meaning.AGAIN:
                    raise self._refusal(answer, units)
                reason, silent, pause = self._said(answer), False, answer.pause
            if self._outbox.over():
                break
            self._trouble.failed(self, reason)
            attempts += 1
            delay = doubled(attempts, *_BACKOFF_S)
            if pause:
                self._outbox.rest(pause)
                delay = jittered(_BACKOFF_S[0])
            self._outbox.pause(delay, silent=silent)
        return False

    def _said(self, answer: Answer) -> str:
        told = f"the endpoint answers {answer.status}"
        if self._spec.show_answers and answer.excerpt:
            told += f": {answer.excerpt}"
        return told

    def _refusal(self, answer: Answer, units: list[Unit]) -> WaxtapError:
        where = self._endpoint.shown
        said = self._said(answer)
        if answer.meaning is Meaning.GONE:
            return FatalError(
                "webhook.gone",
                f"{said}: it wants nothing any more",
                where=where,
                cure="remove the sink, or, when the endpoint takes requests again, start the flow: "
                "it goes on with the first change that was not taken, asking once",
            )
        if answer.meaning is Meaning.ELSEWHERE:
            target = urlsplit(answer.location)
            place = f" to {target.scheme}://{target.netloc}" if target.netloc else ""
            return ConfigError(
                "webhook.redirected",
                f"{said}, a redirect{place}, which is not followed",
                where=where,
                cure="put the final address into `url`",
            )
        if answer.meaning is Meaning.STRANGER:
            return ConfigError(
                "webhook.unauthorized",
                f"{said}: it refuses the credentials",
                where=where,
                cure="correct `auth` or `headers`, then start the flow: it goes on where it was",
            )
        return PermanentError(
            "webhook.refused",
            f"{_shown(units)}: {said}",
            where=where,
            cure="mend the endpoint or the row, then send it again",
            sequence=_sequence(units),
        )

    def _too_large(self, units: list[Unit], size: int) -> PermanentError:
        return PermanentError(
            "webhook.too_large",
            f"{_shown(units)}: a request of {size} bytes is larger than `max_body`",
            where=self._endpoint.shown,
            cure="raise `max_body`, if the endpoint takes that, or leave columns out",
            sequence=_sequence(units),
        )


def _sequence(units: list[Unit]) -> int:
    """The sequence that is to blame; 0 when there are several."""
    found = {unit.event.sequence for unit in units}
    return found.pop() if len(found) == 1 else 0


def _shown(units: list[Unit]) -> str:
    first, last = units[0].event, units[-1].event
    if len(units) == 1:
        return f"{first.type} of sequence {first.sequence}"
    types = sorted({unit.event.type for unit in units})
    shown = ", ".join(types[:3]) + (", …" if len(types) > 3 else "")
    return f"one of {len(units)} changes ({shown}) of sequences {first.sequence} to {last.sequence}"
