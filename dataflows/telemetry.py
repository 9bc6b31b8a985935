"""Sends spans to a collector of OpenTelemetry, if the environment names one.

The variables are those of OpenTelemetry's own SDK (opentelemetry.io, "Environment Variable
Specification" and "OpenTelemetry Protocol Exporter"). Nothing of OpenTelemetry is imported unless
one of them names a collector.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

import structlog
from typing_extensions import override

from connectors.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

log = structlog.get_logger()

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
# How long the end of a process waits for a collector.
_LAST_WAIT_S = 1.0
_COMPLAIN_EVERY_S = 60.0
# Vendors have tokens in paths and queries.
_URL = re.compile(r"url: \S+")


class Telemetry:
    """Sends spans from a thread of its own.

    At most `OTEL_BSP_MAX_QUEUE_SIZE` spans (2048 unless set) wait to be sent; those that find no
    room push out the oldest, and nobody waits.

    Args:
        exporter: Where spans go.
        name: Of what runs here: a flow such as `capture/shop`, or `control`.
    """

    def __init__(self, exporter: SpanExporter, name: str) -> None:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        own = {
            "service.name": "waxtap",
            "service.instance.id": f"{name}@{socket.gethostname()}:{os.getpid()}",
            "waxtap.flow": name,
        }
        # What the environment says of the process counts more than what we say.
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer: Tracer = self._provider.get_tracer("waxtap")

    def close(self) -> None:
        """Send what is left, within a second; what a collector does not take by then is lost."""
        last = threading.Thread(target=self._provider.shutdown, name="waxtap-spans", daemon=True)
        last.start()
        last.join(_LAST_WAIT_S)


def start(environment: Mapping[str, str], name: str) -> Tracer | None:
    """Begin to send spans where the environment says, until the process ends.

    Args:
        environment: The process's own, which the SDK reads too.
        name: As in `Telemetry`.

    Returns:
        What makes spans; None if no collector is named, or `OTEL_SDK_DISABLED` or
        `OTEL_TRACES_EXPORTER=none` forbids it.

    Raises:
        ConfigError: The extra `traces` is not installed, or what is asked for is not supported.
    """
    where = _first(environment, _ENDPOINTS)
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporters = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    if not where or disabled or exporters == "none":
        return None
    if exporters != "otlp":
        raise _unsupported("OTEL_TRACES_EXPORTER", exporters, "otlp")
    asked = _first(environment, _PROTOCOLS)
    if asked and environment[asked] != _PROTOCOL:
        raise _unsupported(asked, environment[asked], _PROTOCOL)
    if not environment[where].startswith(("http://", "https://")):
        raise ConfigError(
            "traces.endpoint",
            "the collector's address is no URL",
            where=where,
            cure="write http://host:4318, or https://",
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            "traces.missing_extra",
            "a collector of traces is named, but what sends traces is not installed",
            where=where,
            cure="pip install 'waxtap[traces]', or unset it",
        ) from error
    _hear()
    try:
        telemetry = Telemetry(OTLPSpanExporter(), name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            "traces.settings",
            "the settings of OpenTelemetry cannot be used",
            where=where,
            cure="check the variables OTEL_EXPORTER_OTLP_… and OTEL_BSP_…",
        ) from error
    atexit.register(telemetry.close)
    return telemetry.tracer


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The first of the variables that is set to something; empty if none is."""
    return next((name for name in names if environment.get(name)), "")


def _unsupported(where: str, value: str, only: str) -> ConfigError:
    return ConfigError(
        "traces.unsupported",
        f"{value!r} is not supported for traces",
        where=where,
        cure=f"{only} is: set it to that, or unset it",
    )


def _hear() -> None:
    """Write what the SDK complains of into our log, which may be of JSON lines."""
    theirs = logging.getLogger("opentelemetry")
    theirs.addHandler(_Complaints())
    theirs.propagate = False


class _Complaints(logging.Handler):
    """Tells of the first complaint in a minute: a collector that is away causes many."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + _COMPLAIN_EVERY_S
            log.warning("trouble with traces", reason=_URL.sub("url: …", record.getMessage()))
