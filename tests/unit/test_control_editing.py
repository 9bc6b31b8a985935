"""Changes of the configuration, on a store that loses races and answers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from connectors.errors import ConfigError, RetryableError
from connectors.jetstream.spec import NatsSpec
from control.pb.cdc.v1 import cdc_pb2, config_pb2
from control.server.statuses import ApiError
from control.specs.document import EMPTY
from control.specs.editing import Asked, Change, Editing, asked
from control.specs.kinds import TOPICS, replaced
from control.specs.store import OvertakenError, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from control.specs.document import Document


class FakeStore:
    """Keeps the document in memory. What `troubles` holds befalls the next writes."""

    def __init__(self) -> None:
        self.latest = Stored(0, EMPTY)
        self.writes = 0
        self.troubles: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def read(self) -> Stored:
        return self.latest

    def write(self, base: Stored, document: Document) -> Stored:
        self.gate.wait()
        trouble = self.troubles.pop(0) if self.troubles else ""
        if trouble == "overtaken" or base.revision != self.latest.revision:
            raise OvertakenError
        if trouble != "lost":
            self.latest = Stored(base.revision + 1, document)
            self.writes += 1
        if trouble:
            raise RetryableError("test.silence", "no answer")
        return self.latest


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def editing(store: FakeStore) -> Editing:
    return Editing(store, NatsSpec(), {})  # type: ignore[arg-type]


def _adding(name: str, partitions: int = 1) -> Callable[[Stored], Change]:
    def change(base: Stored) -> Change:
        tree = replaced(base.tree, "topics", name, {"partitions": partitions})
        return Change(tree, {("topics", name)}, lambda document: TOPICS.resource(document, name))

    return change


def _asked(identity: str = "", digest: str = "d") -> Asked:
    return Asked(identity, digest, "ann")


@pytest.mark.parametrize("trouble", ["overtaken", "silent", "lost"])
def test_a_change_is_made_once_whatever_befalls_the_write(
    store: FakeStore, editing: Editing, trouble: str
) -> None:
    store.troubles = [trouble, trouble] if trouble != "silent" else [trouble]
    done = editing.run(_asked(), _adding("db.a"))
    shown = config_pb2.Topic.FromString(done.answer)
    assert (shown.name, shown.metadata.generation) == ("topics/db.a", 1)
    assert store.writes == 1
    assert store.latest.tree == {"topics": {"db.a": {"partitions": 1}}}


def test_an_outage_is_told(store: FakeStore, editing: Editing) -> None:
    store.troubles = ["lost"] * 100
    with pytest.raises(RetryableError):
        editing.run(_asked(), _adding("db.a"))
    store.troubles = ["overtaken"] * 100
    with pytest.raises(ApiError) as caught:
        editing.run(_asked(), _adding("db.a"))
    assert caught.value.reason == "control.contended"


def test_a_request_id_is_good_for_one_request(store: FakeStore, editing: Editing) -> None:
    identity = str(uuid4())
    first = editing.run(_asked(identity), _adding("db.a"))
    assert editing.run(_asked(identity), _adding("db.a", 7)).answer == first.answer
    with pytest.raises(ApiError) as caught:
        editing.run(_asked(identity, "other"), _adding("db.b"))
    assert caught.value.where == "request_id"
    with pytest.raises(ApiError):
        asked("CreateTopic", cdc_pb2.CreateTopicRequest(), "no uuid", "ann")
    assert store.writes == 1


def test_changes_that_come_together_are_stored_together_but_for_those_that_are_wrong(
    store: FakeStore, editing: Editing
) -> None:
    store.gate.clear()
    outcomes: dict[str, object] = {}

    def run(name: str, partitions: int) -> None:
        try:
            outcomes[name] = editing.run(_asked(), _adding(name, partitions))
        except ConfigError as error:
            outcomes[name] = error.where

    threads = [threading.Thread(target=run, args=("db.first", 1))]
    threads[0].start()
    while not editing._leading.locked():
        threading.Event().wait(0.001)
    for name, partitions in (("db.a", 1), ("db.wrong", 0), ("db.b", 2)):
        threads.append(threading.Thread(target=run, args=(name, partitions)))
        threads[-1].start()
    while len(editing._waiting) < 3:
        threading.Event().wait(0.001)
    store.gate.set()
    for thread in threads:
        thread.join()
    assert outcomes["db.wrong"] == "topics.db.wrong.partitions"
    assert store.writes == 2
    assert set(store.latest.metadata) == {"topics/db.first", "topics/db.a", "topics/db.b"}
    assert {one.name for one in store.latest.changes} == {"topics/db.a", "topics/db.b"}


def test_nothing_is_stored_when_only_the_answer_is_wanted(
    store: FakeStore, editing: Editing
) -> None:
    only = Asked("", "d", "ann", validate_only=True)
    assert config_pb2.Topic.FromString(editing.run(only, _adding("db.a")).answer).partitions == 1
    assert store.writes == 0
