"""The suite that every sink must pass: connections that break, and servers that are away."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.sink import Batch
from connectors.errors import FencedError
from tests.contract.sink_log import SHARE, batches, change, history, model, outage, pending

if TYPE_CHECKING:
    from tests.contract.sink_adapter import SinkAdapter

pytestmark = pytest.mark.servers


def test_cut_connections_are_mended_inside(sink_adapter: SinkAdapter) -> None:
    log = history(6, 600)
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        for number, batch in enumerate(batches(claim, log, 20)):
            writer.write(batch)
            if number % 5 == 2:
                sink_adapter.cut_connections()
        writer.flush()
    assert sink_adapter.rows() == model(log)
    assert not pending(log, sink_adapter.sink().claim(SHARE).offsets)


def test_a_killed_server_is_waited_for(sink_adapter: SinkAdapter) -> None:
    log = history(7, 600)
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        todo = batches(claim, log, 20)
        for batch in todo[:10]:
            writer.write(batch)
        with outage(sink_adapter):
            for batch in todo[10:]:
                writer.write(batch)
            writer.flush()
    assert sink_adapter.rows() == model(log)


def test_what_was_flushed_survives_a_killed_server(sink_adapter: SinkAdapter) -> None:
    log = history(8, 200)
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        for batch in batches(claim, log, 50):
            writer.write(batch)
        writer.flush()
        sink_adapter.kill_server()
    sink_adapter.start_server()
    assert sink_adapter.rows() == model(log)
    assert not pending(log, sink_adapter.sink().claim(SHARE).offsets)


def test_a_fenced_writer_finds_out_after_an_outage(sink_adapter: SinkAdapter) -> None:
    old = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(old)) as zombie:
        zombie.write(Batch(old, [change(1, "c", 1, "a")], 1))
        zombie.flush()
        sink_adapter.kill_server()
        sink_adapter.start_server()
        sink_adapter.sink().claim(SHARE)
        with pytest.raises(FencedError):  # noqa: PT012 - either call may find out
            zombie.write(Batch(old, [change(2, "u", 1, "zombie")], 2))
            zombie.flush()
    assert sink_adapter.rows() == {1: "a"}


def test_closing_a_writer_twice_or_while_the_server_is_down_is_harmless(
    sink_adapter: SinkAdapter,
) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    writer = sink_adapter.sink().open(claim)
    writer.write(Batch(claim, [change(1, "c", 1, "a")], 1))
    writer.flush()
    sink_adapter.kill_server()
    try:
        writer.close()
        writer.close()
    finally:
        sink_adapter.start_server()
    assert sink_adapter.rows() == {1: "a"}
