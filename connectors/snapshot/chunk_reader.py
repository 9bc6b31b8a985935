"""Reads chunks of tables in threads, each on a connection of its own, while the log is read."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic

import structlog

from connectors.errors import FatalError, RetryableError, WaxtapError
from connectors.reconnection import delay
from connectors.snapshot.reading import Answered, AnyTable, Bound, Cut, Request, Survey, TableReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    Answer = Survey[AnyTable] | Bound[AnyTable] | Answered[AnyTable]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _TellTables:
    """Asks for a `Survey`."""


class _Nudge:
    """Asks for `TableReader.nudge`."""


class ChunkReader(Generic[AnyTable]):
    """Has questions answered by several readers at once. Lost connections are mended inside.

    Args:
        connector: Whose it is, such as `postgres`; begins the code of its own error.
        source: The source's name.
        readers: Each has a thread of its own.
    """

    def __init__(
        self, connector: str, source: str, readers: Sequence[TableReader[AnyTable]]
    ) -> None:
        self._connector, self._source = connector, source
        self._questions: queue.SimpleQueue[
            _TellTables | _Nudge | Cut[AnyTable] | Request[AnyTable] | None
        ] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer[AnyTable] | WaxtapError] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._readers = readers
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(reader,),
                name=f"waxtap-{source}-snapshot-{number}",
                daemon=True,
            )
            for number, reader in enumerate(readers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def readers(self) -> int:
        """How many questions can be answered at once."""
        return len(self._threads)

    def survey(self) -> None:
        """Ask for a `Survey`."""
        self._questions.put(_TellTables())

    def cut(self, cut: Cut[AnyTable]) -> None:
        """Ask for a `Bound`."""
        self._questions.put(cut)

    def ask(self, request: Request[AnyTable]) -> None:
        """Ask for rows."""
        self._questions.put(request)

    def nudge(self) -> None:
        """Have the server write down the end of its log; nothing is answered."""
        self._questions.put(_Nudge())

    def take(self) -> Answer[AnyTable] | None:
        """An answer, in any order; None: there is none yet.

        Raises:
            WaxtapError: The tables cannot be read.
        """
        try:
            answer = self._answers.get_nowait()
        except queue.Empty:
            if not self._stopped.is_set() and not all(each.is_alive() for each in self._threads):
                raise FatalError(
                    f"{self._connector}.snapshot_died",
                    "the snapshot ended unexpectedly; see the traceback",
                ) from None
            return None
        if isinstance(answer, WaxtapError):
            self._stopped.set()
            raise answer
        return answer

    def stop(self) -> None:
        """End; waits for a moment at most. Never raises."""
        self._stopped.set()
        for _ in self._threads:
            self._questions.put(None)
        for reader in self._readers:
            reader.stop()
        for thread in self._threads:
            thread.join(1.0)

    def _run(self, reader: TableReader[AnyTable]) -> None:
        try:
            while True:
                question = self._questions.get()
                if question is None or self._stopped.is_set():
                    return
                answer = self._answered(reader, question)
                if answer is not None:
                    self._answers.put(answer)
        finally:
            reader.disconnect()

    def _answered(
        self,
        reader: TableReader[AnyTable],
        question: _TellTables | _Nudge | Cut[AnyTable] | Request[AnyTable],
    ) -> Answer[AnyTable] | WaxtapError | None:
        failures = 0
        while not self._stopped.wait(delay(failures) if failures else 0.0):
            try:
                return _answer(reader, question)
            except RetryableError as error:
                reader.disconnect()
                failures += 1
                if failures == 1:
                    _log.warning(
                        "a table cannot be read now, trying again",
                        source=self._source,
                        table=question.table.label if isinstance(question, Cut | Request) else "",
                        code=error.code,
                        error=error.message,
                    )
            except WaxtapError as error:
                return error
        return None


def _answer(
    reader: TableReader[AnyTable],
    question: _TellTables | _Nudge | Cut[AnyTable] | Request[AnyTable],
) -> Answer[AnyTable] | None:
    match question:
        case _TellTables():
            return reader.survey()
        case _Nudge():
            reader.nudge()
            return None
        case Cut():
            return Bound(question, reader.cut(question))
        case Request():
            return Answered(question, reader.read(question))
