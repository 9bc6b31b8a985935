"""What the service is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from connectors.errors import ConfigError
from connectors.jetstream.spec import NatsSpec
from control.server.listening import Listening, is_loopback
from dataflows.configuration import references
from dataflows.configuration.document import read
from dataflows.spec import validated

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_STATE = Path("waxtap-state")


@Parameter(name="*")
@dataclass(frozen=True)
class ServeOptions:
    """What the service is started with.

    Attributes:
        listen: `host:port` of the API; other machines only with TLS and callers.
        config: A file whose section `nats` tells where NATS is; $WAXTAP_CONFIG unless given.
        nats_url: Where NATS is, if there is no such file.
        embedded: Run NATS inside; its data is kept in the state folder.
        state: The service's own folder.
        cert: The service's certificate (PEM), which makes it TLS.
        key: Its private key.
        client_ca: Certificates of the authorities whose clients are let in.
        callers: The file that tells who may ask, and what.
        metrics: `host:port` where Prometheus finds /metrics.
        open_metrics: Serve metrics to other machines as well; they are not secured.
        keep_flows: Leave the flows running at the end, for the next service to adopt.
    """

    listen: Annotated[str, Parameter(name="--listen")] = "127.0.0.1:7443"
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None
    nats_url: Annotated[str | None, Parameter(name="--nats-url")] = None
    embedded: Annotated[bool, Parameter(name="--embedded", negative=())] = False
    state: Annotated[Path, Parameter(name="--state")] = DEFAULT_STATE
    cert: Annotated[Path | None, Parameter(name="--cert")] = None
    key: Annotated[Path | None, Parameter(name="--key")] = None
    client_ca: Annotated[Path | None, Parameter(name="--client-ca")] = None
    callers: Annotated[Path | None, Parameter(name="--callers")] = None
    metrics: Annotated[str | None, Parameter(name="--metrics")] = None
    open_metrics: Annotated[bool, Parameter(name="--open-metrics", negative=())] = False
    keep_flows: Annotated[bool, Parameter(name="--keep-flows", negative=())] = False

    @property
    def listening(self) -> Listening:
        """Where the API is, and how it is secured."""
        return Listening(self.listen, self.cert, self.key, self.client_ca, self.callers)

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where metrics are served; None: nowhere.

        Raises:
            ConfigError: It is no address, or one that others can reach.
        """
        if self.metrics is None:
            return None
        host, colon, port = self.metrics.rpartition(":")
        if not colon or not port.isdecimal():
            raise ConfigError(
                "control.metrics_address",
                f"{self.metrics!r} is no address",
                where="--metrics",
                cure="write host:port, such as 127.0.0.1:9400",
            )
        if not is_loopback(self.metrics) and not self.open_metrics:
            raise ConfigError(
                "control.open_address",
                f"{self.metrics} can be reached from other machines, and metrics are not secured",
                where="--metrics",
                cure="listen on 127.0.0.1, or add --open-metrics if the network is trusted",
            )
        return host.strip("[]"), int(port)

    def nats(self, environment: Mapping[str, str]) -> dict[str, object]:
        """The section `nats` as flows are to have it, references unresolved.

        Raises:
            ConfigError: There is none, or there are two; or the file cannot be read.
        """
        file = self.config
        if file is not None and self.nats_url is not None:
            raise ConfigError(
                "control.options", "either --config or --nats-url", where="--nats-url"
            )
        if file is None and self.nats_url is None and (named := environment.get("WAXTAP_CONFIG")):
            file = Path(named)
        if self.nats_url is not None:
            return {"url": self.nats_url}
        tree = read(file) if file is not None else None
        section = tree.get("nats") if isinstance(tree, dict) else None
        if not isinstance(section, dict):
            raise ConfigError(
                "control.no_nats",
                "nothing tells where NATS is",
                where=f"{file}: nats" if file is not None else "--nats-url",
                cure="give --nats-url nats://host:4222, or --config FILE with a section `nats`, or"
                " --embedded",
            )
        return section


def nats_spec(section: Mapping[str, object], environment: Mapping[str, str]) -> NatsSpec:
    """The section `nats`, checked. Raises ConfigError."""
    return validated(NatsSpec, references.resolve(section, environment, "nats"), "nats")
