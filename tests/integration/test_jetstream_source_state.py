"""What a source remembers beyond its checkpoint, on a real server."""

from __future__ import annotations

import io
import os

import pytest

from connectors.errors import GapError
from connectors.jetstream.source_state import ObjectState
from connectors.jetstream.spec import NatsSpec

pytestmark = pytest.mark.servers


def read(state: ObjectState, name: str) -> bytes:
    into = io.BytesIO()
    state.get(name, into)
    return into.getvalue()


def test_what_was_put_is_there_for_another_process_and_belongs_to_one_source(
    nats: NatsSpec,
) -> None:
    wide = os.urandom(3 * 1024 * 1024)
    ObjectState(nats, "api").put("poll-1", io.BytesIO(wide))
    ObjectState(nats, "api").put("poll-2", io.BytesIO(b"small"))
    assert read(ObjectState(nats, "api"), "poll-1") == wide
    assert sorted(ObjectState(nats, "api").names()) == ["poll-1", "poll-2"]
    assert ObjectState(nats, "other").names() == []


def test_a_name_that_is_put_again_or_removed_is_what_was_last_done_to_it(nats: NatsSpec) -> None:
    state = ObjectState(nats, "again")
    state.put("poll", io.BytesIO(b"first"))
    state.put("poll", io.BytesIO(b"second"))
    assert read(state, "poll") == b"second"
    state.remove("poll")
    state.remove("poll")
    assert state.names() == []
    with pytest.raises(GapError, match="poll"):
        read(state, "poll")


def test_an_empty_file_can_be_kept(nats: NatsSpec) -> None:
    state = ObjectState(nats, "empty")
    state.put("nothing", io.BytesIO())
    assert read(state, "nothing") == b""
