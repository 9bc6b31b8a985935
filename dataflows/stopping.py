"""SIGTERM and SIGINT: every flow of the process drains and ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

# Set once the process has been asked to stop. Sources then end, which makes Bytewax flush and
# snapshot what is under way and exit with 0; a second signal ends the process at once.
stopping = threading.Event()
_running = threading.Event()


def install() -> None:
    """Catch SIGTERM and SIGINT for the life of the process. Only from the main thread."""
    told, hears = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=[hears], name="waxtap-signals", daemon=True).start()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)


def running() -> None:
    """The flows have begun: from now on a signal lets them drain instead of ending the process."""
    _running.set()


def _listen(hears: socket.socket) -> None:
    """End a process that has not begun, whatever it waits for.

    While a cluster waits for its other processes, no Python code runs in the main thread, and so
    no handler.
    """
    while hears.recv(1):
        if not _running.is_set():
            os._exit(0)


def _stop(signum: int, _frame: FrameType | None) -> None:
    if stopping.is_set():
        signal.signal(signum, signal.SIG_DFL)
        signal.raise_signal(signum)
    stopping.set()
