"""The flows that this service looks after, and their processes."""

from __future__ import annotations

import time
from importlib import metadata
from typing import TYPE_CHECKING

import structlog

from connectors.errors import RetryableError
from control.supervisor.flow import SupervisedFlow, Wanted
from control.supervisor.group import Group
from control.supervisor.logs import rotate
from control.supervisor.orphans import end_orphans, flow_folder
from control.supervisor.records import State
from control.supervisor.rendering import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from control.supervisor.flow import Patience
    from control.supervisor.folder import FlowFolder
    from control.supervisor.group import Launcher
    from control.supervisor.records import Desired, Service
    from control.supervisor.rendering import Rendered

log = structlog.get_logger()

# For so long flows are started before anything else is seen to.
_BUSY = 0.5
# When it is tried again to end what a dead service has left of a flow that is not to run.
_ORPHANS_AGAIN = 10.0
_BAD = (State.BACKING_OFF, State.CRASH_LOOP, State.REFUSED)


class Fleet:
    """Used by one thread.

    Args:
        launcher: Starts flows.
        flows: Where each flow has its folder.
        patience: With flows.

    Attributes:
        members: The state machines of the flows, by name.
    """

    def __init__(self, launcher: Launcher, flows: Path, patience: Patience) -> None:
        self.members: dict[str, SupervisedFlow] = {}
        self._launcher, self._flows, self._patience = launcher, flows, patience
        self._version = metadata.version("waxtap")
        self._orphaned: dict[str, Service] = {}
        self._tried: dict[str, float] = {}
        self._files: dict[str, Rendered] = {}

    @property
    def running(self) -> dict[str, Group]:
        """The processes of the flows that have some."""
        return {
            name: flow.group for name, flow in self.members.items() if isinstance(flow.group, Group)
        }

    def take_over(self, name: str, before: Service | None, me: Service, now: float) -> None:
        """Look after a flow from now on: go on with what runs here, end what runs elsewhere.

        Args:
            name: The flow's.
            before: The service that had it last, if it is known.
            me: This service.
            now: Seconds of a clock that never goes back.
        """
        ours = before is None or before.id == me.id
        if before is not None and not ours and before.host == me.host:
            self._orphaned[name] = before
        if name in self.members:
            return
        flow = self.members[name] = SupervisedFlow(name, self._launch, self._patience)
        folder = self._folder(name)
        try:
            run = folder.read_run()
        except OSError as error:
            # Its lock tells still whether something runs there.
            log.warning("what ran of a flow cannot be read", flow=name, reason=str(error))
            return
        if run is None or (group := Group(folder, run)).gone:
            if folder.held():
                # Started in the moment in which an earlier life of ours ended.
                self._orphaned[name] = me
            return
        flow.adopt(group, now)
        if ours:
            log.info("flow adopted", flow=name, pids=group.pids)
        else:
            # Somebody has run it since; what is left here has been fenced.
            flow.kill()

    def end_strays(self, me: Service, elsewhere: Callable[[str], bool]) -> None:
        """End what an earlier life of this service has left of flows that run elsewhere by now."""
        for folder in self._flows.glob("*.*"):
            name = folder.name.replace(".", "/", 1)
            if name not in self.members and elsewhere(name) and not end_orphans(me, name):
                log.warning("processes of a flow that runs elsewhere do not end", flow=name)

    def want(
        self,
        rendered: Mapping[str, Rendered],
        asked: Callable[[str], tuple[Desired, int]],
        revision: int,
    ) -> None:
        """Tell each flow what it should be.

        Args:
            rendered: What the configuration wants.
            asked: What is asked of a flow, and the revision of that.
            revision: Of the configuration.
        """
        for name, flow in self.members.items():
            wanted = rendered.get(name)
            if wanted is None:
                flow.want(None)
                continue
            desired, since = asked(name)
            mark = fingerprint(
                wanted.fingerprint, self._launcher.nats, self._version, desired.restarts
            )
            flow.want(Wanted(wanted, mark, desired.paused, revision, since))
            if flow.group is not None and self._files.get(name) is not wanted:
                # What a flow reads late may have changed, though nothing that restarts it.
                try:
                    self._launcher.configure(self._folder(name), wanted)
                except OSError as error:
                    log.warning("a flow's file cannot be written", flow=name, reason=str(error))
                    continue
                self._files[name] = wanted

    def step(self, now: float, may_start: Collection[str]) -> None:
        """Do for each flow what is to be done now; only these may be started.

        Starting many takes long, and more than that is to be done: some have to wait a moment.
        """
        busy_until = time.monotonic() + _BUSY
        for name, flow in self.members.items():
            before = flow.state
            ours = name in may_start and time.monotonic() < busy_until
            try:
                if name in self._orphaned and flow.rests and not (ours and self._alone(name, now)):
                    continue
                flow.step(now, may_start=ours)
            except OSError:
                # The others are seen to all the same.
                log.exception("a flow cannot be seen to, trying again", flow=name)
                continue
            if flow.state is not before:
                told = {"last_error": flow.last_error} if flow.state in _BAD else {}
                log.info("flow changed", flow=name, state=flow.state.value, **told)

    def abandon(self, flows: Iterable[str]) -> None:
        """End flows at once that are somebody else's by now."""
        for name in flows:
            flow = self.members.get(name)
            if flow is not None:
                log.warning("flow lost to another service, ended", flow=name)
                self._orphaned.pop(name, None)
                flow.want(None)
                flow.kill()

    def end(self) -> None:
        """Ask every flow to end."""
        for flow in self.members.values():
            flow.want(None)

    def finished(self) -> list[str]:
        """The flows that are not wanted any more, and have ended."""
        return [
            name
            for name, flow in self.members.items()
            if flow.finished and name not in self._orphaned
        ]

    def forget(self, name: str, *, wholly: bool) -> None:
        """Look after a flow no longer; wholly: it is no more, and neither is its folder."""
        del self.members[name]
        self._files.pop(name, None)
        self._tried.pop(name, None)
        if wholly:
            self._folder(name).remove()

    def rotate_logs(self) -> None:
        """Keep the logs small."""
        for name in self.members:
            try:
                rotate(self._folder(name).log)
            except OSError as error:
                log.warning("a flow's log cannot be rotated", flow=name, reason=error.strerror)

    def _launch(self, wanted: Wanted) -> Group:
        name = wanted.rendered.name
        dead = self._orphaned.get(name)
        if dead is not None and not end_orphans(dead, name):
            raise RetryableError(
                "control.orphans", "processes of a dead service do not end", where=name
            )
        self._orphaned.pop(name, None)
        group = self._launcher.launch(self._folder(name), wanted.rendered, wanted.mark)
        self._files[name] = wanted.rendered
        log.info("flow started", flow=name, pids=group.pids)
        return group

    def _alone(self, name: str, now: float) -> bool:
        """End what a dead service has left of a flow that is not to run; whether nothing is."""
        if now < self._tried.get(name, float("-inf")) + _ORPHANS_AGAIN:
            return False
        self._tried[name] = now
        if not end_orphans(self._orphaned[name], name):
            log.warning("processes of a dead control service do not end", flow=name)
            return False
        del self._orphaned[name]
        return True

    def _folder(self, name: str) -> FlowFolder:
        return flow_folder(self._flows, name)
