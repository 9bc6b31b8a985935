"""One flow that is looked after: what state it is in, and what is to be done next.

A state machine that never blocks: `step` is called again and again and told the time.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from connectors.backoff import jittered
from connectors.errors import WaxtapError
from control.supervisor.records import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from control.supervisor.rendering import Rendered

# The exit status of a flow whose configuration does not allow it to start (dataflows.main).
_REFUSED_STATUS = 2


# A flow in these is started again only if it is to run on something else, or is asked to.
_RESTING = (State.REFUSED, State.DONE)


class ProcessGroup(Protocol):
    """The processes of one run."""

    @property
    def mark(self) -> str:
        """What it was started with."""
        ...

    @property
    def ended(self) -> bool:
        """Whether one of them has ended."""
        ...

    @property
    def gone(self) -> bool:
        """Whether all of them have ended."""
        ...

    @property
    def status(self) -> int | None:
        """The exit status that was seen first; None: nobody knows."""
        ...

    @property
    def done(self) -> bool:
        """Whether they have said that nothing is left to do."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all that live."""
        ...

    def last_error(self) -> str:
        """The last words of its log."""
        ...

    def forget(self) -> None:
        """It is gone."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a flow should be.

    Attributes:
        rendered: What it runs on.
        mark: Of what runs: with another one it must be started anew.
        paused: It is not to run.
        revision: Of the configuration that wants this.
        asked: The revision of what is asked of it.
    """

    rendered: Rendered
    mark: str
    paused: bool
    revision: int
    asked: int = 0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for what, in seconds.

    Attributes:
        grace: For the end of a flow that was asked to end, before it is killed.
        peers: For the end of the other processes, once one of a cluster has ended.
        first: Before the second start.
        longest: Between two starts, however many have failed.
        healthy: How long a flow must run for its failures to be forgotten.
        loop: So many failures in a row are a crash loop.
    """

    grace: float = 20.0
    peers: float = 5.0
    first: float = 0.5
    longest: float = 60.0
    healthy: float = 60.0
    loop: int = 5


class SupervisedFlow:
    """A flow that is kept as it should be.

    Args:
        name: Its name.
        launch: Starts its processes; raises WaxtapError or OSError when it cannot.
        patience: How long is waited for what.

    Attributes:
        state: Of its processes.
        group: The processes that run, if some do.
        restarts: How often it was started again after it had ended unasked.
        last_error: The last words of its last run that ended badly.
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[Wanted], ProcessGroup],
        patience: Patience | None = None,
    ) -> None:
        self.name = name
        self.state = State.PENDING
        self.group: ProcessGroup | None = None
        self.restarts = 0
        self.last_error = ""
        self._launch, self._patience = launch, patience or Patience()
        self._wanted: Wanted | None = None
        self._failures = 0
        self._started = self._next_start = 0.0
        self._deadline: float | None = None
        self._tried = ""

    @property
    def finished(self) -> bool:
        """Whether it is not wanted any more, and has ended."""
        return self._wanted is None and self.group is None

    @property
    def rests(self) -> bool:
        """Whether nothing of it runs here, nor is to."""
        return self.group is None and (self._wanted is None or self._wanted.paused)

    @property
    def observed(self) -> int:
        """The revision of the configuration that it follows; 0: none yet."""
        wanted = self._wanted
        if wanted is None:
            return 0
        running = self.group.mark if self.group is not None else self._tried
        settled = wanted.paused and self.group is None
        return wanted.revision if settled or running == wanted.mark else 0

    @property
    def asked(self) -> int:
        """The revision of what is asked of it that it follows; 0: nothing was."""
        return self._wanted.asked if self._wanted is not None else 0

    def want(self, wanted: Wanted | None) -> None:
        """Say what it should be; None: it is to end for good."""
        self._wanted = wanted

    def adopt(self, group: ProcessGroup, now: float) -> None:
        """Take over processes that run already."""
        self.group, self.state = group, State.RUNNING
        self._tried, self._started = group.mark, now

    def kill(self) -> None:
        """End its processes at once: they are not ours to run."""
        if self.group is not None:
            self.group.signal(signal.SIGKILL)
            self.state = State.STOPPING
            self._deadline = 0.0

    def step(self, now: float, *, may_start: bool = True) -> None:
        """Do what is to be done now.

        Args:
            now: Seconds of a clock that never goes back.
            may_start: Whether processes may be started.
        """
        if self.group is not None and not self._settled(self.group, now):
            return
        wanted = self._wanted
        if wanted is None:
            self.state = State.PENDING
        elif wanted.paused:
            self.state, self._tried, self._failures = State.PAUSED, "", 0
        elif wanted.mark == self._tried and (self.state in _RESTING or now < self._next_start):
            return
        elif may_start:
            self._start(wanted, now)
        elif self.state not in (State.BACKING_OFF, State.CRASH_LOOP):
            self.state = State.PENDING

    def _settled(self, group: ProcessGroup, now: float) -> bool:
        """See to processes that run; returns whether they are gone."""
        wanted = self._wanted
        if self.state is State.STOPPING:
            if not group.gone:
                self._insist(group, now)
                return False
            self._forget(group)
            self.state = State.PENDING
            return True
        if group.ended:
            if not group.gone:
                if self._deadline is None:
                    self._deadline = now + self._patience.peers
                self._insist(group, now)
                return False
            if group.done:
                self.state, self._failures, self.last_error = State.DONE, 0, ""
            else:
                self._failed(now, group.status, group.last_error())
            self._forget(group)
            return True
        if wanted is None or wanted.paused or wanted.mark != group.mark:
            self.state = State.STOPPING
            self._deadline = now + self._patience.grace
            group.signal(signal.SIGTERM)
        elif now - self._started >= self._patience.healthy:
            self._failures = 0
        return False

    def _insist(self, group: ProcessGroup, now: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            group.signal(signal.SIGKILL)

    def _forget(self, group: ProcessGroup) -> None:
        group.forget()
        self.group, self._deadline = None, None

    def _start(self, wanted: Wanted, now: float) -> None:
        if wanted.mark != self._tried:
            self._failures = 0
        elif self._failures:
            self.restarts += 1
        self._tried = wanted.mark
        try:
            self.group = self._launch(wanted)
        except (WaxtapError, OSError) as error:
            self._failed(now, None, str(error))
            return
        self.state, self._started = State.RUNNING, now

    def _failed(self, now: float, status: int | None, last_words: str) -> None:
        self.last_error = ": ".join(filter(None, (_told(status), last_words)))
        if status == _REFUSED_STATUS:
            self.state = State.REFUSED
            return
        self._failures += 1
        patience = self._patience
        wait = min(patience.longest, patience.first * 2.0 ** min(self._failures - 1, 16))
        self._next_start = now + jittered(wait)
        looping = self._failures >= patience.loop
        self.state = State.CRASH_LOOP if looping else State.BACKING_OFF


def _told(status: int | None) -> str:
    if status is None:
        return ""
    if status < 0:
        return f"ended by signal {-status}"
    return f"ended with status {status}"
