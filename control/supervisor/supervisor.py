"""Runs the flows that the configuration wants, as far as they are this service's to run.

One thread does everything: it keeps the service alive among the others, takes leases, steps the
state machine of each flow, and writes down how they are. Another one waits for new revisions of the
configuration. Nothing here waits for a flow.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog

from connectors.errors import RetryableError, WaxtapError
from control.supervisor.board import Board
from control.supervisor.bucket import FlowBucket
from control.supervisor.fleet import Fleet
from control.supervisor.host import host_identity
from control.supervisor.membership import Membership
from control.supervisor.records import Service
from control.supervisor.rendering import render
from control.supervisor.reports import Reports

if TYPE_CHECKING:
    from collections.abc import Callable

    from control.supervisor.group import Group
    from control.supervisor.records import Desired
    from control.supervisor.rendering import Rendered
    from control.supervisor.settings import Observer, Settings, Specs, SpecSource

log = structlog.get_logger()

_TICK = 0.2
# How often what others have written is looked for if nothing has told of it.
_REFRESH_EVERY = 1.0
# The word of a write may come before the write can be read.
_REFRESH_AGAIN = 0.1
_ROTATE_EVERY = 10.0
_SPECS_WAIT = 5.0
_RETRY_AFTER = 1.0
_ENDING_TICK = 0.05


@dataclass(frozen=True, slots=True)
class _Shared:
    """What needs NATS."""

    bucket: FlowBucket
    board: Board
    membership: Membership
    reports: Reports


class Supervisor:
    """Keeps the flows running. Its methods are usable from any thread.

    Args:
        settings: What it is made of.
        specs: Where the configuration comes from; each call may block.
        observer: Tells what holds of flows; None: nobody does.
    """

    def __init__(
        self, settings: Settings, specs: SpecSource, observer: Observer | None = None
    ) -> None:
        self._nats, self._specs, self._observer = settings.nats, specs, observer
        state = settings.state
        self._me = Service(state.service, host_identity(), str(state.path), 0)
        self._fleet = Fleet(settings.launcher, state.flows, settings.patience)
        self._wake, self._told, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._keep = False
        self._configured: tuple[Specs | None, dict[str, Rendered]] = (None, {})
        self._configuring = threading.Lock()
        self._read_since = 0
        self._shared: _Shared | None = None
        self._refreshed = self._rotated = float("-inf")
        self._threads = [
            threading.Thread(target=self._run, name="waxtap-supervisor", daemon=True),
            threading.Thread(target=self._follow, name="waxtap-specs", daemon=True),
        ]

    def start(self) -> None:
        """Begin; flows follow as soon as NATS answers."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, keep_flows: bool = False) -> None:
        """End, after the flows have been stopped in order; or leave them for the next service."""
        self._keep = keep_flows
        self._stop.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()

    @property
    def ready(self) -> bool:
        """Whether flows can run: NATS answers, and the configuration has been read."""
        shared, (specs, _) = self._shared, self._configured
        return (
            shared is not None and specs is not None and shared.membership.alive(time.monotonic())
        )

    @property
    def service(self) -> str:
        """The id of this service."""
        return self._me.id

    @property
    def board(self) -> Board:
        """What is known of all flows.

        Raises:
            RetryableError: NATS has not answered yet.
        """
        shared = self._shared
        if shared is None:
            raise RetryableError(
                "control.starting", "the service has not reached NATS yet", where="nats"
            )
        return shared.board

    @property
    def configured(self) -> tuple[int, dict[str, Rendered]]:
        """The revision of the configuration, 0: none yet; and the flows that it wants."""
        specs, rendered = self._configured
        return (specs.revision if specs else 0), rendered

    @property
    def running(self) -> dict[str, Group]:
        """The processes of the flows that run at this service."""
        return self._fleet.running

    def pause(self, flow: str) -> None:
        """Ask for a flow to be stopped in order, until it is resumed. Raises RetryableError."""
        self._ask(flow, lambda asked: msgspec.structs.replace(asked, paused=True))

    def resume(self, flow: str) -> None:
        """Ask for a paused flow to run again. Raises RetryableError."""
        self._ask(flow, lambda asked: msgspec.structs.replace(asked, paused=False))

    def restart(self, flow: str, request: str = "") -> bool:
        """Ask for a flow to be stopped in order and started again.

        Args:
            flow: Its name.
            request: An id; the same one again asks for nothing more.

        Returns:
            Whether that was asked; False: it is paused.

        Raises:
            RetryableError: NATS does not answer.
        """

        def once_more(asked: Desired) -> Desired:
            if asked.paused or (request and asked.request == request):
                return asked
            return msgspec.structs.replace(asked, restarts=asked.restarts + 1, request=request)

        return not self._ask(flow, once_more).paused

    async def stopped(self, flow: str, revision: int) -> None:
        """Return once no process of a deleted flow runs or may be started, at whichever service.

        Args:
            flow: Its name.
            revision: One of the configuration in which it has been deleted.

        Raises:
            RetryableError: NATS has not answered yet.
        """
        while not self.board.gone(flow, revision):
            await asyncio.sleep(_ENDING_TICK)

    def _ask(self, flow: str, change: Callable[[Desired], Desired]) -> Desired:
        wanted = self.board.ask(flow, change)
        self._wake.set()
        return wanted

    # ---- the threads

    def _follow(self) -> None:
        """Wait for revisions of the configuration."""
        while not self._stop.is_set():
            known, _ = self._configured
            try:
                found = (
                    self._specs.read()
                    if known is None
                    else self._specs.changed(known.revision, _SPECS_WAIT)
                )
                if found is not None:
                    self._configure(found)
            except WaxtapError as error:
                log.warning("the configuration cannot be read, trying again", reason=str(error))
                self._stop.wait(_RETRY_AFTER)
            except Exception:
                # A fault of ours must not leave later revisions unseen.
                log.exception("the configuration cannot be followed, trying again")
                self._stop.wait(_RETRY_AFTER)

    def _configure(self, found: Specs) -> None:
        """Go by a revision, unless a later one is known."""
        with self._configuring:
            known, _ = self._configured
            if known is None or found.revision > known.revision:
                self._configured = found, render(found.tree)
                self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._tick(time.monotonic())
            except WaxtapError as error:
                log.warning("flows cannot be looked after, trying again", reason=str(error))
                self._step(time.monotonic())
                self._stop.wait(_RETRY_AFTER)
            except Exception:
                # A fault of ours must not leave the flows without anyone to look after them.
                log.exception("the supervisor stumbled")
                self._stop.wait(_RETRY_AFTER)
            self._wake.wait(_TICK)
            self._wake.clear()
        self._end()

    def _tick(self, now: float) -> None:
        shared = self._shared = self._shared or self._join()
        if not self._present(shared, now):
            return
        if self._read_since != shared.membership.joined:
            # What was read before may be older than what somebody had seen who did not see us.
            self._configure(self._specs.read())
            self._read_since = shared.membership.joined
        shared.membership.look(now)
        specs, rendered = self._configured
        if specs is not None:
            wanted = rendered.keys() | {f for f in shared.board.flows() if shared.board.lease(f)}
            taken = shared.membership.take(wanted - shared.membership.held)
            for name, before in taken.items():
                self._fleet.take_over(name, before, self._me, now)
            shared.membership.tidy()
            self._fleet.want(rendered, shared.board.asked, specs.revision)
        # Looking and taking may have waited for NATS: who was silent for long may start nothing.
        self._step(time.monotonic())
        if self._observer is not None:
            running = self._fleet.running
            self._observer.watch({n: (rendered[n], running[n]) for n in running if n in rendered})
        self._report(shared, now)
        gone = self._fleet.finished()
        shared.membership.drop(gone)
        for name in gone:
            shared.reports.forget(name)
            if self._observer is not None:
                self._observer.forget(name)
            self._fleet.forget(name, wholly=name not in rendered)

    def _report(self, shared: _Shared, now: float) -> None:
        """Write down how those flows are that are ours to tell of."""
        held = shared.membership.held
        flows = {name: flow for name, flow in self._fleet.members.items() if name in held}
        shared.reports.write(flows, self._configured[1], now)

    def _join(self) -> _Shared:
        """Reach NATS for the first time."""
        bucket = FlowBucket(self._nats, self._notified)
        try:
            bucket.refresh()
        except BaseException:
            bucket.close()
            raise
        board, observer = Board(bucket), self._observer
        conditions = observer.conditions if observer else lambda _flow, _state, _rendered: ()
        membership = Membership(bucket, board, self._me)
        self._fleet.end_strays(self._me, membership.elsewhere)
        return _Shared(bucket, board, membership, Reports(bucket, self._me.id, conditions))

    def _notified(self) -> None:
        self._told.set()
        self._wake.set()

    def _present(self, shared: _Shared, now: float) -> bool:
        """See what others have written, and give a sign of life; False: we are dead for them."""
        since = now - self._refreshed
        if since >= _REFRESH_EVERY or (self._told.is_set() and since >= _REFRESH_AGAIN):
            self._told.clear()
            shared.bucket.refresh()
            self._refreshed = now
        specs, _ = self._configured
        current = specs is not None and self._read_since == shared.membership.joined
        if not shared.membership.beat(now, specs.revision if specs and current else 0):
            log.error("this service was declared dead, its flows are ended", service=self._me.id)
            self._fleet.abandon(list(self._fleet.members))
            return False
        self._fleet.abandon(shared.membership.lost())
        return True

    def _step(self, now: float) -> None:
        shared = self._shared
        current = shared is not None and shared.membership.alive(now)
        self._fleet.step(now, shared.membership.held if shared is not None and current else ())
        if now - self._rotated >= _ROTATE_EVERY:
            self._rotated = now
            self._fleet.rotate_logs()

    def _end(self) -> None:
        """Stop the flows in order, still alive for the others, and give the leases back."""
        shared = self._shared
        while not self._keep and self._fleet.running:
            now = time.monotonic()
            try:
                if shared is not None:
                    self._present(shared, now)
            except WaxtapError as error:
                log.warning("a sign of life could not be given", reason=str(error))
            self._fleet.end()
            self._step(now)
            time.sleep(_ENDING_TICK)
        for group in self._fleet.running.values():
            group.let_go()
        if shared is None:
            return
        try:
            if not self._keep:
                self._report(shared, time.monotonic())
                shared.membership.leave()
        except WaxtapError as error:
            log.warning("leases could not be given back", reason=str(error))
        shared.bucket.close()
