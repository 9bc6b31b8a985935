"""Looks at the flows of this service every few seconds: what they count, and what holds of them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from control.metrics.scraping import Samples, scrape
from control.supervisor import conditions as holds
from control.supervisor.logs import last_trouble
from control.supervisor.orphans import flow_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prometheus_client import Metric

    from connectors.contracts.source import LogHealth
    from control.supervisor.conditions import Finding
    from control.supervisor.group import Group
    from control.supervisor.idle_sources import IdleSources
    from control.supervisor.records import Condition, State
    from control.supervisor.rendering import Rendered

log = structlog.get_logger()

_EVERY = 3.0
_CAPTURE = "capture/"


class FlowObserver:
    """Scrapes flows in a thread of its own. Its methods are usable from any thread.

    Args:
        flows: Where each flow has its folder.
        idle: Looks after the logs of sources that do not run; None: nobody does.
    """

    def __init__(self, flows: Path, idle: IdleSources | None = None) -> None:
        self._flows, self._idle = flows, idle
        self._lock = threading.Lock()
        self._running: Mapping[str, tuple[Rendered, Group]] = {}
        self._conditions: dict[str, tuple[Condition, ...]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waxtap-observer", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()
        if self._idle is not None:
            self._idle.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._idle is not None:
            self._idle.stop()
        self._thread.join()

    def watch(self, running: Mapping[str, tuple[Rendered, Group]]) -> None:
        """From now on these run."""
        with self._lock:
            self._running = running

    def forget(self, flow: str) -> None:
        """Nothing more is asked of a flow: it is no more, or somebody else's."""
        with self._lock:
            self._conditions.pop(flow, None)
        self._no_longer_idle(flow)

    def conditions(
        self, flow: str, state: State, rendered: Rendered | None
    ) -> tuple[Condition, ...]:
        """What holds of a flow of this service.

        Args:
            flow: Its name.
            state: Of its processes.
            rendered: As the configuration wants it; None: it is to go.
        """
        kind = rendered.type if rendered else ""
        with self._lock:
            if flow in self._running:
                self._no_longer_idle(flow)
                known = self._conditions.get(flow)
                if known is None:
                    known = self._note(flow, holds.not_answering(flow, kind))
                return known
            reason = "".join(word.capitalize() for word in state.value.split("_"))
            health = self._health(flow, kind)
            return self._note(
                flow, holds.not_running(flow, kind, reason, "it does not run", health)
            )

    def _health(self, flow: str, kind: str) -> LogHealth | None:
        if self._idle is None or not flow.startswith(_CAPTURE) or not holds.keeps_log(kind):
            return None
        return self._idle.of(flow.removeprefix(_CAPTURE))

    def _no_longer_idle(self, flow: str) -> None:
        if self._idle is not None:
            self._idle.forget(flow.removeprefix(_CAPTURE))

    def _note(self, flow: str, findings: list[Finding]) -> tuple[Condition, ...]:
        before = self._conditions.get(flow, ())
        now = self._conditions[flow] = holds.since(findings, before, time.time())
        return now

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            with self._lock:
                running = dict(self._running)
            for name, (rendered, group) in running.items():
                if self._stop.is_set():
                    return
                try:
                    findings = self._look(name, rendered.type, group)
                except Exception:
                    # Else what is told of every flow would stay as it is for ever.
                    log.exception("a flow cannot be looked at", flow=name)
                    findings = holds.not_answering(name, rendered.type)
                with self._lock:
                    if name in self._running:
                        self._note(name, findings)

    def _look(self, name: str, kind: str, group: Group) -> list[Finding]:
        answers: list[list[Metric]] = []
        for port in group.run.metrics:
            metrics = scrape(port)
            if metrics is None:
                return holds.not_answering(name, kind)
            answers.append(metrics)
        samples = Samples(answers)
        trouble = last_trouble(flow_folder(self._flows, name).log, group.run.started)
        return holds.found(name, kind, samples, trouble)
