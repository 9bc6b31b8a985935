"""The configuration in its bucket, on a real server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from connectors.errors import ConfigError, GapError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.spec import NatsSpec
from control.specs.document import Tree
from control.specs.store import HISTORY, OvertakenError, SpecStore, Stored, succeeding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.servers.nats import NatsServer

pytestmark = pytest.mark.servers

_SHOP: Tree = {"sources": {"shop": {"type": "postgres", "dsn": "${SHOP_DSN}"}}}
_CRM: Tree = {"sources": {"crm": {"type": "postgres", "dsn": "${CRM_DSN}"}}}


@pytest.fixture
def nats(nats_server: NatsServer) -> NatsSpec:
    spec = NatsSpec(url=(nats_server.url,))
    with connect(spec) as connection:
        if api.stream_info(connection, "KV_CDC_CONTROL") is not None:
            api.call(connection, "STREAM.DELETE.KV_CDC_CONTROL", None, dict)
    return spec


@pytest.fixture
def store(nats: NatsSpec) -> Iterator[SpecStore]:
    with SpecStore(nats) as opened:
        yield opened


def _write(store: SpecStore, base: Stored, tree: Tree, author: str) -> Stored:
    return store.write(base, succeeding(base, tree, author))


def test_an_empty_bucket_is_an_empty_configuration(store: SpecStore) -> None:
    found = store.read()
    assert (found.revision, found.tree, found.metadata) == (0, {}, {})
    assert store.revisions() == []


def test_what_is_written_is_read_by_another_store(store: SpecStore, nats: NatsSpec) -> None:
    written = _write(store, store.read(), _SHOP | {"topics": None}, "ann")
    with SpecStore(nats) as other:
        found = other.read()
    assert found == written
    assert found.tree == _SHOP
    assert found.metadata["sources/shop"].generation == 1
    assert found.metadata["sources/shop"].author == "ann"


def test_of_two_writers_of_the_same_revision_one_is_refused(
    store: SpecStore, nats: NatsSpec
) -> None:
    base = store.read()
    with SpecStore(nats) as other:
        _write(other, base, _SHOP, "ann")
    with pytest.raises(OvertakenError):
        _write(store, base, _CRM, "bob")
    assert store.read().tree == _SHOP


def test_changes_are_counted_and_told_by_resource(store: SpecStore) -> None:
    first = _write(store, store.read(), _SHOP, "ann")
    changed: Tree = {
        "sources": {"shop": {"type": "postgres", "dsn": "${SHOP_DSN}", "tables": ["a.*"]}},
        "dead_letters": {"max_age": "7d"},
    }
    second = _write(store, first, changed, "bob")
    assert {one.name: one.action for one in second.changes} == {
        "settings/dead_letters": "create",
        "sources/shop": "update",
    }
    (diff,) = [one.diff for one in second.changes if one.name == "sources/shop"]
    assert "+tables:" in diff
    meta = second.metadata["sources/shop"]
    assert (meta.generation, meta.author) == (2, "bob")
    assert meta.created == first.metadata["sources/shop"].created
    assert meta.updated > first.metadata["sources/shop"].updated

    third = _write(store, second, {}, "bob")
    assert third.metadata == {}
    assert [(one.name, one.action) for one in third.changes] == [
        ("settings/dead_letters", "delete"),
        ("sources/shop", "delete"),
    ]


def test_history_is_kept_and_can_be_read(store: SpecStore) -> None:
    stored = store.read()
    for number in range(HISTORY + 3):
        stored = _write(store, stored, {"topics": {"db.a": {"partitions": number + 1}}}, "ann")
    kept = store.revisions()
    assert len(kept) == HISTORY
    assert kept[0] == stored
    assert [one.revision for one in kept] == sorted((one.revision for one in kept), reverse=True)
    assert store.at(kept[-1].revision) == kept[-1]
    assert store.at(1) is None
    assert store.at(10_000) is None


def test_a_watcher_is_told_of_a_change_at_once(store: SpecStore, nats: NatsSpec) -> None:
    base = store.read()
    with SpecStore(nats) as other:
        writer = threading.Timer(0.2, _write, (other, base, _SHOP, "ann"))
        writer.start()
        found = store.changed(base.revision, 10)
        writer.join()
    assert found is not None
    assert found.tree == _SHOP
    assert store.changed(found.revision, 0.1) is None


def test_a_large_configuration_is_compressed_and_one_too_large_refused(store: SpecStore) -> None:
    entry = {"type": "postgres", "dsn": "${DSN}", "tables": ["public.*"]}
    big: Tree = {"sources": {f"s{number}": entry for number in range(5000)}}
    stored = _write(store, store.read(), big, "ann")
    assert store.read().tree == stored.tree == big
    noise = {f"k{n}": f"{hash((n, 'x')):x}{hash((n, 'y')):x}{n}" for n in range(60_000)}
    with pytest.raises(ConfigError) as caught:
        _write(store, stored, {"topics": noise}, "ann")
    assert caught.value.code == "control.too_large"


def test_what_is_no_document_is_refused(store: SpecStore, nats: NatsSpec) -> None:
    store.read()
    with connect(nats) as connection:
        connection.request("$KV.CDC_CONTROL.config", b"nonsense")
    with pytest.raises(GapError) as caught:
        store.read()
    assert caught.value.code == "control.document_unreadable"


def test_a_bucket_that_is_deleted_is_not_an_empty_configuration(
    store: SpecStore, nats: NatsSpec
) -> None:
    _write(store, store.read(), _SHOP, "ann")
    with connect(nats) as connection:
        api.call(connection, "STREAM.DELETE.KV_CDC_CONTROL", None, dict)
    with pytest.raises(ConfigError) as caught:
        store.read()
    assert caught.value.code == "control.bucket_gone"
