"""Two hundred sources and sinks, each registered by a call of its own, at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.jetstream.spec import NatsSpec
from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import config_pb2 as config
from tests.integration.control_server import RunningControl, empty_bucket

if TYPE_CHECKING:
    from control.servers.nats import NatsServer

pytestmark = pytest.mark.servers

EACH = 100


def _resident() -> int:
    """Resident memory of this process, service and clients alike, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def test_two_hundred_are_registered_at_once_while_others_are_answered(
    nats_server: NatsServer,
) -> None:
    nats = NatsSpec(url=(nats_server.url,))
    empty_bucket(nats)
    done = threading.Event()
    slowest = [0.0]
    before = _resident()
    with capture_logs(), RunningControl(nats, {"DSN": "host=h"}) as control:
        stub = control.config
        stub.ListSources(cdc.ListSourcesRequest())

        def look() -> None:
            while not done.is_set():
                asked = time.monotonic()
                stub.ListSources(cdc.ListSourcesRequest(page_size=1000))
                slowest[0] = max(slowest[0], time.monotonic() - asked)

        def register(number: int) -> None:
            name = f"n{number // 2}"
            if number % 2:
                source = config.Source(postgres=config.PostgresSource(dsn="${DSN}"))
                stub.CreateSource(cdc.CreateSourceRequest(source_id=name, source=source))
            else:
                target = config.PostgresSink(dsn="${DSN}")
                sink = config.Sink(postgres=target, topics=["db.*"])
                stub.CreateSink(cdc.CreateSinkRequest(sink_id=name, sink=sink))

        looking = threading.Thread(target=look)
        looking.start()
        with ThreadPoolExecutor(2 * EACH) as clients:
            list(clients.map(register, range(2 * EACH)))
        done.set()
        looking.join()
        sources = stub.ListSources(cdc.ListSourcesRequest(page_size=1000))
        sinks = stub.ListSinks(cdc.ListSinksRequest(page_size=1000))
        writes = control.store.read().revision
        grown = _resident() - before
    assert (sources.total_size, sinks.total_size) == (EACH, EACH)
    assert all(one.metadata.generation == 1 for one in sources.sources)
    # Those that came together were stored together.
    assert writes < 2 * EACH
    assert slowest[0] < 1.0
    assert grown < 200 * 1024 * 1024
