"""The suite that every source must pass: sessions that hang, and servers that are away."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.source import Checkpoint
from tests.contract.source_reading import PATIENCE, changes_of, ids_of, read_changes

if TYPE_CHECKING:
    from tests.contract.source_adapter import SourceAdapter

pytestmark = pytest.mark.servers


def test_a_killed_server_is_waited_for_and_nothing_is_lost_or_repeated(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    with closing(source_adapter.source().open(begun)) as reader:
        source_adapter.write([1, 2])
        chunks = read_changes(reader, 2)
        for round_ in range(2):
            first = 3 + 1202 * round_
            source_adapter.write(list(range(first, first + 1200)))
            chunks += read_changes(reader, 1) if round_ else []
            source_adapter.kill_server()
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                began = time.monotonic()
                if (chunk := reader.read()) is not None:
                    chunks.append(chunk)
                assert time.monotonic() - began < 5.0, "read() must not block while it is down"
            source_adapter.start_server()
            source_adapter.write([first + 1200, first + 1201])
            have = len(changes_of(chunks))
            chunks += read_changes(reader, first + 1201 - have)
    assert ids_of(source_adapter, chunks) == list(range(1, 2407))
    positions = [change.position for change in changes_of(chunks)]
    assert all(earlier < later for earlier, later in pairwise(positions))


def test_a_new_owner_takes_over_from_a_session_that_still_hangs(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    with closing(source_adapter.source().open(begun)) as hanging:
        source_adapter.write([1])
        assert ids_of(source_adapter, read_changes(hanging, 1)) == [1]
        source_adapter.write([2])
        with closing(source_adapter.source().open(begun)) as successor:
            assert ids_of(source_adapter, read_changes(successor, 2)) == [1, 2]


def test_many_sources_can_be_opened_and_closed_without_leaving_sessions(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    threads = threading.active_count()
    for _ in range(10):
        source_adapter.source().open(begun).close()
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > threads:
        assert time.monotonic() < deadline, "threads stay behind"
    source_adapter.write([1])
    with closing(source_adapter.source().open(begun)) as reader:
        assert ids_of(source_adapter, read_changes(reader, 1)) == [1]


def test_closing_twice_and_closing_while_the_server_is_down_is_harmless(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    reader = source_adapter.source().open(begun)
    source_adapter.kill_server()
    try:
        reader.close()
        reader.close()
    finally:
        source_adapter.start_server()
