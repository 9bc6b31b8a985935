"""The capture dataflow's partitions against a real NATS server, without a dataflow around them."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from connectors import registry
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec, StreamSpec
from connectors.jetstream.stream import open_stream
from connectors.postgres.spec import SourceSpec
from dataflows.capture import CaptureSource, StreamSink
from dataflows.pipeline import DefaultPipeline
from dataflows.routing import Router
from dataflows.spec import SourceConfig
from tests.integration.streams import publish

if TYPE_CHECKING:
    from connectors.contracts.source import Checkpoint, Chunk
    from connectors.errors import WaxtapError
    from control.servers.nats import NatsServer
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers
SPEC = SourceSpec.model_validate({"type": "postgres", "dsn": "host=127.0.0.1"})
SOURCES = {"shop": SourceConfig("shop", "postgres", SPEC, ())}


class SilentSource:
    """A source, and its reader, of a database in which nothing ever happens."""

    def open(self, resume: Checkpoint | None) -> SilentSource:
        return self

    def check(self) -> list[WaxtapError]:
        return []

    def owned(self) -> list[str]:
        return []

    def drop(self) -> list[str]:
        return []

    def read(self) -> Chunk | None:
        return None

    def confirm(self, checkpoint: Checkpoint) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def server(nats_factory: NatsFactory) -> NatsServer:
    return nats_factory()


def test_a_silent_source_does_not_let_the_last_checkpoint_expire(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    nats = NatsSpec(url=(server.url,), stream=StreamSpec(max_age=timedelta(seconds=2)))
    with closing(Publisher(nats, open_stream(nats, "shop")[0])) as publisher:
        publish(publisher, 1, 1)
        publisher.flush()
    _, before = open_stream(nats, "shop")
    monkeypatch.setattr(registry, "source", lambda *_: SilentSource())
    pipeline = DefaultPipeline(Router("shop", {}))
    with (
        closing(CaptureSource(nats, SOURCES).build_part("capture", "shop", None)) as source,
        closing(StreamSink(nats, SOURCES).build_part("publish", "CDC_shop", None)) as sink,
    ):
        end = time.monotonic() + 5
        while time.monotonic() < end:
            sink.write_batch([pipeline.apply(captured) for captured in source.next_batch()])
            time.sleep(0.01)
    assert open_stream(nats, "shop")[1] == before
