"""Flows as processes, kept running as a process supervisor keeps them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import psycopg

from control.servers.ports import free_port
from control.servers.spawn import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from tests.e2e.deployment import Deployment

_GRACE = 20.0


@dataclass(frozen=True, slots=True)
class Layout:
    """How a flow is run.

    Attributes:
        workers: Worker threads in each process (`-w`).
        processes: Processes of the cluster.
        recovery: Whether it has a recovery folder (`-r`).
    """

    workers: int = 1
    processes: int = 1
    recovery: bool = True


@dataclass(frozen=True, slots=True)
class Exit:
    """An end of a flow that nobody had asked for.

    Attributes:
        at: Monotonic seconds.
        status: The exit status of the process that ended first; negative: the signal.
        last_words: The end of its log.
    """

    at: float
    status: int
    last_words: str


class Run:
    """One run of a flow: all processes of one cluster."""

    def __init__(
        self, deployment: Deployment, flow: str, layout: Layout, recovery: Path, log: Path
    ) -> None:
        self.log = log
        command = [sys.executable, "-m", "bytewax.run", "dataflows.main", "-w", str(layout.workers)]
        if layout.recovery:
            command += ["-r", str(recovery), "-s", "1", "-b", "0"]
        addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(layout.processes))
        self.processes = [
            spawn(
                [*command, "-i", str(number), "-a", addresses] if layout.processes > 1 else command,
                log=log,
                death_signal=signal.SIGKILL,
                environment=deployment.environment(flow),
                folder=deployment.folder,
            )
            for number in range(layout.processes)
        ]

    @property
    def ended(self) -> bool:
        """Whether any of its processes has ended."""
        return any(process.poll() is not None for process in self.processes)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes that still run."""
        for process in self.processes:
            process.send_signal(number)

    def wait(self, seconds: float) -> list[int]:
        """The exit statuses. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + seconds
        return [process.wait(max(0.0, deadline - time.monotonic())) for process in self.processes]

    def kill(self) -> None:
        """End all processes with SIGKILL."""
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def peak_memory(self) -> int:
        """The largest resident size of the first process so far, in bytes (VmHWM)."""
        with open(f"/proc/{self.processes[0].pid}/status", encoding="ascii") as status:  # noqa: PTH123
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmHWM"].split()[0]) * 1024

    def memory(self) -> int:
        """The resident size of the first process now, in bytes (VmRSS)."""
        with open(f"/proc/{self.processes[0].pid}/status", encoding="ascii") as status:  # noqa: PTH123
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmRSS"].split()[0]) * 1024


class SupervisedFlow:
    """A flow that is started again whenever it ends, as a process supervisor would.

    Args:
        deployment: Where it runs.
        flow: `capture/<source>` or `deliver/<sink>`.
        layout: How each run is started; may be set to another one at any time.
    """

    def __init__(
        self, deployment: Deployment, flow: str, layout: Layout | Callable[[], Layout] | None = None
    ) -> None:
        self.flow = flow
        self.unasked: list[Exit] = []
        self.zombies: list[Run] = []
        self._deployment = deployment
        self._layout = layout or Layout()
        self._name = flow.replace("/", "-")
        self._host = 0
        self._runs = 0
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._run: Run | None = None
        # A test that fails must not keep the whole run from its end.
        self._thread = threading.Thread(target=self._supervise, name=flow, daemon=True)

    @property
    def recovery(self) -> Path:
        """The recovery folder of the host that runs it at present."""
        return self._deployment.folder / f"recovery-{self._name}-{self._host}"

    @property
    def run(self) -> Run:
        """The present run; waits for it while one is being started."""
        deadline = time.monotonic() + 30
        while True:
            with self._lock:
                if self._run is not None and not self._run.ended:
                    return self._run
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.flow} is not started again: {self.last_words()}")
            time.sleep(0.01)

    def start(self) -> Self:
        """Start it, and keep it running."""
        self._thread.start()
        return self

    def stop(self) -> list[int]:
        """End it with SIGTERM, insist after some seconds; return the exit statuses."""
        with self._lock:
            self._stop.set()
            run = self._run
        for zombie in self.zombies:
            zombie.kill()
        self._thread.join()
        if run is None:
            return []
        run.signal(signal.SIGTERM)
        try:
            return run.wait(_GRACE)
        except subprocess.TimeoutExpired:
            run.kill()
            return run.wait(1)

    def kill(self, *, wipe: bool = False) -> None:
        """End it with SIGKILL; with `wipe`, delete the recovery folder before the next start."""
        run = self.run
        with self._lock:
            run.kill()
            if wipe:
                shutil.rmtree(self.recovery, ignore_errors=True)
            self._launch()

    def terminate(self) -> list[int]:
        """End it with SIGTERM and start it again; return the exit statuses."""
        run = self.run
        with self._lock:
            run.signal(signal.SIGTERM)
            try:
                statuses = run.wait(_GRACE)
            except subprocess.TimeoutExpired:
                run.kill()
                raise
            self._launch()
            return statuses

    def supplant(self) -> Run:
        """Freeze it, and start it on another host (with a recovery folder of its own)."""
        run = self.run
        with self._lock:
            run.signal(signal.SIGSTOP)
            self.zombies.append(run)
            self._host += 1
            self._launch()
            return run

    def last_words(self, run: Run | None = None) -> str:
        """The end of the log of its latest run, or of the one given."""
        with self._lock:
            run = run or self._run
        if run is None or not run.log.exists():
            return ""
        return run.log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        layout = self._layout if isinstance(self._layout, Layout) else self._layout()
        self._runs += 1
        log = self._deployment.folder / f"{self._name}-{self._runs:03}.log"
        self._run = Run(self._deployment, self.flow, layout, self.recovery, log)

    def _supervise(self) -> None:
        delay = 0.1
        with self._lock:
            self._launch()
            started = time.monotonic()
        while not self._stop.wait(0.02):
            with self._lock:
                run = self._run
                if self._stop.is_set() or run is None or not run.ended:
                    continue
                statuses = [process.poll() for process in run.processes]
                first = next(status for status in statuses if status is not None)
                # a peer of a cluster ends by itself; one that does not is ended here
                try:
                    run.wait(5)
                except subprocess.TimeoutExpired:
                    run.kill()
                self.unasked.append(Exit(time.monotonic(), first, self.last_words(run)))
            delay = 0.1 if time.monotonic() - started > 10 else min(delay * 2, 2.0)
            if self._stop.wait(delay):
                break
            with self._lock:
                if self._run is run and not self._stop.is_set():
                    self._launch()
                    started = time.monotonic()


def await_capture(deployment: Deployment, patience: float = 60.0, *, source: str = "shop") -> None:
    """Return once the source's slot is made: what is committed from now on is captured.

    A slot that is still being made is active, too; a commit then may lie before its start.
    """
    deadline = time.monotonic() + patience
    query = (
        "SELECT 1 FROM pg_replication_slots"
        " WHERE slot_name = %s AND active AND confirmed_flush_lsn IS NOT NULL"
    )
    while True:
        with psycopg.connect(deployment.source_dsn) as connection:
            if connection.execute(query, [f"waxtap_{source}"]).fetchone():
                return
        assert time.monotonic() < deadline, "the capture flow has not made its slot"
        time.sleep(0.1)


@contextmanager
def both(
    deployment: Deployment, sink: str = "warehouse"
) -> Iterator[tuple[SupervisedFlow, SupervisedFlow]]:
    """The flows that capture the shop and deliver to a sink, once changes are captured."""
    with (
        SupervisedFlow(deployment, "capture/shop") as capture,
        SupervisedFlow(deployment, f"deliver/{sink}") as deliver,
    ):
        await_capture(deployment)
        yield capture, deliver
