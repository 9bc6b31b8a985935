"""The control service as a process, to be killed and started again at the same ports."""

from __future__ import annotations

import signal
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Self

import grpc

from control.pb.cdc.v1 import cdc_pb2 as pb
from control.pb.cdc.v1 import cdc_pb2_grpc
from control.servers.ports import free_port
from control.servers.spawn import spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from tests.e2e.deployment import Deployment


class ControlService:
    """A control service with a state folder of its own.

    Args:
        deployment: Where it runs.
        name: Of its state folder and its log.
        module: What is run.
        embedded: Whether it runs NATS inside.
        environment: More variables, for references.
        config: A file whose section `nats` tells where NATS is.
    """

    def __init__(
        self,
        deployment: Deployment,
        name: str,
        module: str = "control.server",
        *,
        embedded: bool = False,
        environment: Mapping[str, str] | None = None,
        config: Path | None = None,
    ) -> None:
        self._config = config
        self._more = dict(environment or {})
        self._deployment, self._module, self._embedded = deployment, module, embedded
        self.state = deployment.folder / name
        self.log = deployment.folder / f"{name}.log"
        self.port, self._metrics_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        options = {
            "--state": str(self.state),
            "--listen": f"127.0.0.1:{self.port}",
            "--metrics": f"127.0.0.1:{self._metrics_port}",
        }
        environment = self._deployment.environment("") | self._more
        for name in ("WAXTAP_CONFIG", "WAXTAP_FLOW"):
            del environment[name]
        nats = ["--embedded"] if self._embedded else ["--nats-url", self._deployment.nats.url]
        if self._config is not None:
            nats = ["--config", str(self._config)]
        arguments = [*nats, *(word for pair in options.items() for word in pair)]
        self._process = spawn(
            [sys.executable, "-m", self._module, *arguments],
            log=self.log,
            death_signal=signal.SIGTERM,
            environment=environment,
        )
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self, seconds: float = 30) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(seconds)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.terminate()

    @property
    def id(self) -> str:
        return (self.state / "service-id").read_text().strip()

    def ready(self) -> bool:
        """Whether it says that flows can run."""
        try:
            return "waxtap_control_ready 1.0" in self.metrics()
        except (urllib.error.URLError, ConnectionError):
            return False

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.port}")

    def apply(self, yaml: str) -> pb.ApplyResponse:
        """Plan and apply a configuration."""
        with self.channel() as channel:
            stub = cdc_pb2_grpc.ConfigServiceStub(channel)
            plan = stub.Plan(pb.PlanRequest(yaml=yaml), timeout=20)
            return stub.Apply(pb.ApplyRequest(yaml=yaml, hash=plan.hash), timeout=20)
