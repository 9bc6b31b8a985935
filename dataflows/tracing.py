"""Spans of flows: one for each batch, and nothing at all unless traces are configured."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from connectors.errors import WaxtapError
from dataflows import telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opentelemetry.trace import Tracer

    from connectors.contracts.changes import Change
    from connectors.contracts.sink import Batch

_NOTHING = nullcontext()

# Of the process; None: nothing is traced.
_tracer: Tracer | None = None


def configure(environment: Mapping[str, str]) -> None:
    """Trace the flows of this process, if the environment names a collector.

    Raises:
        ConfigError: As `telemetry.start`.
    """
    use(telemetry.start(environment, environment.get("WAXTAP_FLOW") or "all"))


def use(tracer: Tracer | None) -> None:
    """Make spans by this from now on; None: make none."""
    global _tracer
    _tracer = tracer


def publish(
    source: str, stream: str, messages: Sequence[tuple[str, Change]]
) -> AbstractContextManager[None]:
    """The span in which a stream takes a batch of messages."""
    if _tracer is None:
        return _NOTHING
    return _span(
        _tracer,
        "publish",
        {
            "waxtap.source": source,
            "waxtap.stream": stream,
            "waxtap.changes": len(messages),
            "waxtap.bytes": sum(len(change.envelope) for _, change in messages),
        },
    )


def deliver(sink: str, batch: Batch) -> AbstractContextManager[None]:
    """The span in which a sink takes a batch; none for one that only moves the offset."""
    if _tracer is None or not batch.changes:
        return _NOTHING
    return _span(
        _tracer,
        "deliver",
        {
            "waxtap.sink": sink,
            "waxtap.stream": batch.claim.share.stream,
            "waxtap.changes": len(batch.changes),
            "waxtap.first_sequence": batch.changes[0].sequence,
            "waxtap.last_sequence": batch.changes[-1].sequence,
        },
    )


@contextmanager
def _span(tracer: Tracer, name: str, attributes: Mapping[str, str | int]) -> Iterator[None]:
    """A span around what is done inside. Of an error its code is told: its text may quote data."""
    from opentelemetry.trace import SpanKind, StatusCode

    kind = SpanKind.PRODUCER if name == "publish" else SpanKind.CONSUMER
    span = tracer.start_span(name, kind=kind, attributes=attributes)
    try:
        yield
    except Exception as error:
        code = error.code if isinstance(error, WaxtapError) else type(error).__name__
        span.set_attribute("error.type", code)
        span.set_status(StatusCode.ERROR)
        raise
    finally:
        span.end()
