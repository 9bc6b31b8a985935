"""A server as a child process: started until it is ready, stopped, killed, started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from control.servers.errors import ServerStartError
from control.servers.pidfile import ProcessIdentity, descendants
from control.servers.spawn import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from control.servers.account import Account

_POLL_SECONDS = 0.01
_KILL_SECONDS = 20.0
_TAIL_BYTES = 4000


class ServerProcess:
    """One run after another of the same server in the same folder.

    The server ends with this process, also when it is killed; one that a crashed machine or parent
    left behind all the same is ended at the next start in that folder, if its pid file proves that
    the pid still is that server.

    Args:
        name: For messages.
        folder: The server's own folder; holds `log` and `server.pid`.
        stop_signals: Sent one after the other by `stop`, each given its seconds.
        death_signal: What the kernel sends when this process ends.
        account: The user to run as; None for our own.
        environment: The server's whole environment; None for ours.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        stop_signals: Sequence[tuple[signal.Signals, float]],
        death_signal: signal.Signals = signal.SIGKILL,
        account: Account | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = folder / "log"
        self._pid_file = folder / "server.pid"
        self._stop_signals = stop_signals
        self._death_signal = death_signal
        self._account = account
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the running server. Raises RuntimeError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """True from `start` until the server ends, by itself or not."""
        return self._process is not None and self._process.poll() is None

    def start(
        self, command: Sequence[str | Path], ready: Callable[[int], bool], seconds: float = 60.0
    ) -> None:
        """Start the server and return once it is ready.

        Args:
            command: The program's absolute path and its arguments.
            ready: Told the pid, asked again and again until it says True.
            seconds: How long to wait for that.

        Raises:
            ServerStartError: It ended, or was not ready in time (it is killed then); tells the end
                of its log.
        """
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self.end_leftover()
        began = self.log.stat().st_size if self.log.exists() else 0
        process = spawn(
            command,
            log=self.log,
            death_signal=self._death_signal,
            account=self._account,
            environment=self._environment,
            folder=self.log.parent,
        )
        self._process = process
        if identity := ProcessIdentity.of(process.pid):
            identity.write(self._pid_file)
        deadline = time.monotonic() + seconds
        problem = ""
        try:
            while not problem and not ready(process.pid):
                if process.poll() is not None:
                    problem = f"ended with status {process.returncode}"
                elif time.monotonic() > deadline:
                    problem = f"was not ready within {seconds:.0f} s"
                else:
                    time.sleep(_POLL_SECONDS)
        except BaseException:
            self.kill()
            raise
        if problem:
            self.kill()
            raise ServerStartError(
                "server.not_ready",
                f"{self.name} {problem}; its log says:\n{self.tail(began) or '(nothing)'}",
                where=str(self.log),
            )

    def stop(self) -> None:
        """Ask the server to end and wait for it; insist when it does not.

        Harmless when it is down.
        """
        if self._process is not None:
            if self.running:
                self.resume()
            for number, seconds in self._stop_signals:
                if self._process.poll() is not None:
                    break
                self._process.send_signal(number)
                try:
                    self._process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue
        self.kill()

    def kill(self) -> None:
        """End the server and all its children with SIGKILL, and wait until they are gone."""
        if self._process is None:
            return
        family: list[ProcessIdentity] = []
        if self._process.poll() is None:
            # Frozen, it starts no further child between the look and the kill.
            self._process.send_signal(signal.SIGSTOP)
            family = descendants(self._process.pid)
            self._process.kill()
            self._process.wait()
        stubborn = [member.pid for member in family if not member.end(_KILL_SECONDS)]
        if stubborn:
            raise RuntimeError(f"{self.name}: processes {stubborn} outlived SIGKILL")
        self._process = None
        self._pid_file.unlink(missing_ok=True)

    def suspend(self) -> None:
        """Freeze the server and all its children (SIGSTOP)."""
        self._signal_family(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended server go on (SIGCONT)."""
        self._signal_family(signal.SIGCONT)

    def end_leftover(self) -> None:
        """End the server of an earlier run in this folder, if it still is that server."""
        known = ProcessIdentity.read(self._pid_file)
        if known is None:
            return
        if known.alive():
            family = descendants(known.pid)
            if not all(member.end(_KILL_SECONDS) for member in [known, *family]):
                raise ServerStartError(
                    "server.leftover",
                    f"a {self.name} of an earlier run (pid {known.pid}) cannot be ended",
                    where=str(self._pid_file),
                    cure="end that process by hand",
                )
        self._pid_file.unlink(missing_ok=True)

    def tail(self, since: int = 0) -> str:
        """The end of the log, from byte `since` on at most."""
        return tail(self.log, since)

    def _signal_family(self, number: signal.Signals) -> None:
        pid = self.pid
        os.kill(pid, number)
        for member in descendants(pid):
            member.signal(number)


def tail(log: Path, since: int = 0) -> str:
    """The last few thousand bytes of a log file, from byte `since` on at most; "" without one."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(since, size - _TAIL_BYTES))
        return file.read().decode(errors="replace").strip()
