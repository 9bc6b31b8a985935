"""Starts child processes that end with this process, even when it is killed with SIGKILL."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence

    from control.servers.account import Account

_CHILD = Path(__file__).with_name("child.py")


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    death_signal: signal.Signals,
    account: Account | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command`, its output appended to `log`, no standard input, in a session of its own.

    Args:
        command: The program's absolute path and its arguments.
        log: Receives standard output and error.
        death_signal: Sent by the kernel when this process ends in whatever way.
        account: The user to run as; None for our own.
        environment: The whole environment; None for ours.
        folder: The working directory; None for ours.

    Returns:
        The process; its pid is the command's own.
    """
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    prefix = [sys.executable, "-IS", str(_CHILD), str(os.getpid()), str(int(death_signal))]
    arguments = [*prefix, str(uid), str(gid), *map(str, command)]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - the command is our own
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=folder,
                start_new_session=True,
            )

    return _spawner.run(start)


class _Spawner:
    """One thread that forks for all the others.

    The kernel ties a child to the *thread* that forked it: a child of a short-lived thread would
    be ended with that thread. This one lives as long as the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._work: SimpleQueue[
            tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]
        ] = SimpleQueue()

    def run(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._owner != os.getpid():  # the first call, or the first one after a fork
                self._owner = os.getpid()
                self._work = SimpleQueue()
                threading.Thread(target=self._loop, name="spawner", daemon=True).start()
        done: Future[subprocess.Popen[bytes]] = Future()
        self._work.put((start, done))
        return done.result()

    def _loop(self) -> None:
        work = self._work
        while True:
            start, done = work.get()
            try:
                done.set_result(start())
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                done.set_exception(error)


_spawner = _Spawner()
