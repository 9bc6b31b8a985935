"""Looks after the logs of sources whose flows do not run: paused, refused, or in a crash loop.

A flow that runs does so itself. One that does not run reads nothing either, so that is when a slot
fills its server's disk.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from connectors.errors import WaxtapError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from connectors.contracts.source import LogHealth

    Guard: TypeAlias = "Callable[[str], LogHealth | None]"

log = structlog.get_logger()

_EVERY = 10.0


class IdleSources:
    """Asks servers in a thread of its own. Its methods are usable from any thread.

    Args:
        guard: Has a source, by its name, look at its server and act as its configuration says.
        interval: Seconds between two looks.
    """

    def __init__(self, guard: Guard, interval: float = _EVERY) -> None:
        self._guard, self._interval = guard, interval
        self._lock = threading.Lock()
        self._known: dict[str, LogHealth | None] = {}
        self._stop, self._new = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="waxtap-idle-sources", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; waits for a moment at most."""
        self._stop.set()
        self._new.set()
        self._thread.join(1.0)

    def of(self, source: str) -> LogHealth | None:
        """What was seen last of a source that does not run, and from now on is looked after.

        None: nothing yet.
        """
        with self._lock:
            if source not in self._known:
                self._known[source] = None
                self._new.set()
            return self._known[source]

    def forget(self, source: str) -> None:
        """It runs, or is no more, or is somebody else's."""
        with self._lock:
            self._known.pop(source, None)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._new.clear()
            with self._lock:
                names = list(self._known)
            for name in names:
                if self._stop.is_set():
                    return
                try:
                    self._look(name)
                except Exception:
                    # Else all other sources would be looked after no more.
                    log.exception("a source's log cannot be looked after", source=name)
            self._new.wait(self._interval)

    def _look(self, name: str) -> None:
        with self._lock:
            if name not in self._known:
                return
        try:
            health = self._guard(name)
        except WaxtapError as error:
            log.debug("a server cannot be asked", source=name, reason=str(error))
            return
        with self._lock:
            if name not in self._known:
                return
            before = self._known[name]
            if health is None and before is not None and before.dropped:
                return
            self._known[name] = health
        if health is None:
            return
        if health.dropped:
            log.warning(
                "given up to save the server",
                source=name,
                what=health.dropped,
                reason=health.message,
            )
        elif health.endangered and not (before and before.endangered):
            log.warning(
                "the log of a source that does not run is in danger",
                source=name,
                reason=health.message,
            )
