"""The processes of a flow: started together, watched, and ended as a whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.errors import RetryableError
from control.servers.pidfile import ProcessIdentity
from control.servers.ports import free_port
from control.supervisor import logs
from control.supervisor.folder import Run
from dataflows import ending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from control.supervisor.folder import FlowFolder
    from control.supervisor.rendering import Rendered

FLOW_COMMAND = (sys.executable, "-m", "bytewax.run", "dataflows.main")
# What the service itself was told in these is no affair of the flows.
_OWN = (
    "BYTEWAX_",
    "WAXTAP_CA",
    "WAXTAP_CONFIG",
    ending.VARIABLE,
    "WAXTAP_FLOW",
    "WAXTAP_LOG",
    "WAXTAP_METRICS",
    "WAXTAP_SERVER",
    "WAXTAP_TOKEN",
)
_LOG_LEVEL = "WAXTAP_LOG_LEVEL"


class Group:
    """The processes of one run.

    Args:
        folder: The flow's.
        run: Which processes.
        children: Those that are our own; none of an adopted group are.
    """

    def __init__(
        self, folder: FlowFolder, run: Run, children: Sequence[subprocess.Popen[bytes]] = ()
    ) -> None:
        self.run = run
        self._folder = folder
        self._children = {child.pid: child for child in children}
        self._status: int | None = None

    @property
    def mark(self) -> str:
        """What it was started with."""
        return self.run.mark

    @property
    def pids(self) -> tuple[int, ...]:
        """Its processes that live."""
        return tuple(member.pid for member in self.run.members if self._lives(member))

    @property
    def ended(self) -> bool:
        """Whether one of them has ended: the cluster cannot go on."""
        return len(self.pids) < len(self.run.members)

    @property
    def gone(self) -> bool:
        """Whether all of them have ended."""
        return not self.pids

    @property
    def status(self) -> int | None:
        """The exit status that was seen first; negative: the signal; None: nobody knows."""
        return self._status

    @property
    def done(self) -> bool:
        """Whether it has said that nothing is left to do."""
        return self._folder.ended.exists()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process that lives, and to what it may have started."""
        for member in self.run.members:
            if self._lives(member):
                with contextlib.suppress(ProcessLookupError):  # it went in this very moment
                    os.killpg(member.pid, number)

    def let_go(self) -> None:
        """They outlive this service: it waits for none of them."""
        for child in self._children.values():
            if child.poll() is None:
                child.returncode = 0

    def last_error(self) -> str:
        """The last words in its log of this run."""
        return logs.last_error(self._folder.log, self.run.started)

    def forget(self) -> None:
        """It is gone, and needs not be known any more."""
        self._folder.forget_run()

    def _lives(self, member: ProcessIdentity) -> bool:
        child = self._children.get(member.pid)
        if child is None:
            return member.alive()
        status = child.poll()
        if status is not None and self._status is None:
            self._status = status
        return status is None


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts the processes of flows.

    Attributes:
        nats: The section `nats` of their configurations, references unresolved.
        environment: What they inherit; it has what references name.
        command: What is run; Bytewax's options follow.
    """

    nats: Mapping[str, object]
    environment: Mapping[str, str]
    command: Sequence[str] = FLOW_COMMAND

    def launch(self, folder: FlowFolder, rendered: Rendered, mark: str) -> Group:
        """Start a flow.

        Raises:
            RetryableError: Processes of an earlier run still live; they have been killed.
            OSError: It could not be started.
        """
        folder.make()
        lock = folder.lock()
        if lock is None:
            # Their service was killed before it could write down what it had started.
            for leftover in folder.holders():
                leftover.signal(signal.SIGKILL)
            raise RetryableError(
                "control.leftover",
                "processes of an earlier run had to be ended first",
                where=rendered.name,
            )
        children: list[subprocess.Popen[bytes]] = []
        try:
            self.configure(folder, rendered)
            folder.ended.unlink(missing_ok=True)
            ports = tuple(free_port() for _ in range(rendered.processes))
            addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in ports)
            started = time.time()
            with folder.log.open("ab") as log:
                for number, port in enumerate(ports):
                    cluster = ["-i", str(number), "-a", addresses] if len(ports) > 1 else []
                    children.append(
                        subprocess.Popen(  # noqa: S603 - the command is our own
                            [*self.command, *self._options(folder, rendered), *cluster],
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            env=self._environment(folder, rendered, port),
                            cwd=folder.path,
                            start_new_session=True,
                            pass_fds=(lock,),
                        )
                    )
            # One that has ended already is known as our child.
            members = tuple(
                ProcessIdentity.of(child.pid) or ProcessIdentity(child.pid, 0, "")
                for child in children
            )
            run = Run(rendered.name, mark, members, ports, started)
            folder.write_run(run)
        except BaseException:
            for child in children:
                child.kill()
                child.wait()
            raise
        finally:
            os.close(lock)
        return Group(folder, run, children)

    def configure(self, folder: FlowFolder, rendered: Rendered) -> None:
        """Bring the flow's configuration file up to date."""
        folder.write_configuration({"nats": dict(self.nats), **rendered.tree})

    def _options(self, folder: FlowFolder, rendered: Rendered) -> list[str]:
        recovery = ["-r", str(folder.recovery), "-s", "1", "-b", "0"]
        return [*recovery, "-w", str(rendered.workers)]

    def _environment(self, folder: FlowFolder, rendered: Rendered, port: int) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in self.environment.items()
            if name == _LOG_LEVEL or not name.startswith(_OWN)
        }
        return {
            **inherited,
            # Their folder is another one, and they are to find the same modules.
            "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),  # noqa: PTH100
            "WAXTAP_CONFIG": str(folder.configuration),
            "WAXTAP_FLOW": rendered.name,
            ending.VARIABLE: str(folder.ended),
            "WAXTAP_LOG": "json",
            "WAXTAP_METRICS": f"127.0.0.1:{port}",
            # When each counter was made is of no use, and doubles what is told.
            "PROMETHEUS_DISABLE_CREATED_SERIES": "true",
        }
