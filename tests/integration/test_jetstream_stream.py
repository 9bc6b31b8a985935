"""Claiming a stream on a real server: made, recognised, refused."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from connectors.contracts.source import Checkpoint
from connectors.errors import ConfigError, GapError
from connectors.jetstream import api
from connectors.jetstream.connection import Connection, connect
from connectors.jetstream.examine import settled
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec, StreamSpec
from connectors.jetstream.stream import open_stream
from tests.integration.streams import position, publish

if TYPE_CHECKING:
    from control.servers.nats import NatsServer
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers


def _info(nats: NatsSpec) -> api.StreamInfo:
    with connect(nats) as connection:
        info = api.stream_info(connection, "CDC_shop")
    assert info is not None
    return info


def _fill(nats: NatsSpec, count: int) -> None:
    publisher = Publisher(nats, open_stream(nats, "shop")[0])
    publish(publisher, 1, count)
    publisher.flush()
    publisher.close()


def test_a_new_stream_begins_with_nothing(nats: NatsSpec) -> None:
    claim, checkpoint = open_stream(nats, "shop")

    assert checkpoint is None
    assert (claim.stream, claim.sequence, claim.base) == ("CDC_shop", 1, 0)
    info = _info(nats)
    assert info.created == claim.created
    assert info.config["subjects"] == ["CDC.shop.>"]
    assert info.config["discard"] == "new"
    assert info.config["allow_atomic"] is True


def test_a_stream_keeps_its_identity_through_restarts(
    mortal_nats: NatsServer, nats: NatsSpec
) -> None:
    _fill(nats, 3)
    before = _info(nats).created
    mortal_nats.kill()
    mortal_nats.start()
    claim, checkpoint = open_stream(nats, "shop")
    assert claim.created == before
    assert checkpoint == Checkpoint(position(3), {"lsn": "3"})


def test_each_claim_is_another_writer_with_the_same_checkpoint(nats: NatsSpec) -> None:
    _fill(nats, 3)
    first, one = open_stream(nats, "shop")
    second, two = open_stream(nats, "shop")
    assert one == two == Checkpoint(position(3), {"lsn": "3"})
    assert first.writer != second.writer
    assert (first.sequence, second.sequence) == (5, 6)
    assert first.base == second.base == 4


def test_changed_limits_are_applied(nats: NatsSpec) -> None:
    open_stream(nats, "shop")
    limits = StreamSpec(max_age=timedelta(days=7), max_bytes=10**9, compression="s2")
    claim, _ = open_stream(nats.model_copy(update={"stream": limits}), "shop")
    config = _info(nats).config
    assert config["max_age"] == 7 * 86_400 * 10**9
    assert config["max_bytes"] == 10**9
    assert config["compression"] == "s2"
    assert claim.checkpoint_every == 3.5 * 86_400


def test_another_storage_is_refused(nats: NatsSpec) -> None:
    open_stream(nats, "shop")
    memory = nats.model_copy(update={"stream": StreamSpec(storage="memory")})
    with pytest.raises(ConfigError) as caught:
        open_stream(memory, "shop")
    assert caught.value.code == "jetstream.storage"


def test_a_stream_of_somebody_else_is_refused(nats: NatsSpec) -> None:
    with connect(nats) as connection:
        api.create_stream(connection, {"name": "CDC_shop", "subjects": ["orders.>"]})
    with pytest.raises(ConfigError) as caught:
        open_stream(nats, "shop")
    assert caught.value.code == "jetstream.not_ours"


def test_a_purged_stream_is_refused_until_accepted(nats: NatsSpec) -> None:
    _fill(nats, 3)
    with connect(nats) as connection:
        api.call(connection, "STREAM.PURGE.CDC_shop", None, api.Refusal)
    for _ in range(2):
        with pytest.raises(GapError) as caught:
            open_stream(nats, "shop")
        assert caught.value.code == "jetstream.purged"
        assert "purged:CDC_shop@4" in caught.value.cure
    claim, checkpoint = open_stream(nats, "shop", ["purged:CDC_shop@4"])
    assert checkpoint is None
    assert claim.base == 4


def test_a_foreign_message_is_refused_until_accepted(nats: NatsSpec) -> None:
    _fill(nats, 3)
    with connect(nats) as connection:
        connection.request("CDC.shop.theirs.0", b"hello")
    with pytest.raises(GapError) as caught:
        open_stream(nats, "shop", ["foreign:CDC_shop@4"])
    assert caught.value.code == "jetstream.foreign_writer"
    _, checkpoint = open_stream(nats, "shop", ["foreign:CDC_shop@5"])
    assert checkpoint == Checkpoint(position(3), {"lsn": "3"})


def test_a_source_name_that_no_stream_can_have(nats: NatsSpec) -> None:
    with pytest.raises(ConfigError) as caught:
        open_stream(nats, "my.shop")
    assert caught.value.code == "jetstream.source_name"


def test_sync_interval_is_reported_where_it_can_be_seen(nats_factory: NatsFactory) -> None:
    lazy = nats_factory(sync_interval="2m")
    spec = NatsSpec(url=(lazy.url,), monitor=lazy.monitoring_url)
    with capture_logs() as logs:
        open_stream(spec, "shop")
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "the server acknowledges before the data is on disk: a power failure may lose it; "
        "set `sync_interval: always`"
    ]
    strict = nats_factory()
    spec = NatsSpec(url=(strict.url,), monitor=strict.monitoring_url)
    with capture_logs() as logs:
        open_stream(spec, "shop")
    assert not [entry for entry in logs if entry["log_level"] == "warning"]


def test_a_batch_that_is_just_being_stored_is_waited_for(
    nats: NatsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(nats, open_stream(nats, "shop")[0])
    publish(publisher, 1, 10)
    publisher.flush()
    look, early = api.stream_info, iter([6, 3])

    def looked(connection: Connection, stream: str) -> api.StreamInfo | None:
        info = look(connection, stream)
        missing = next(early, 0)
        if info is None or not missing:
            return info
        return replace(info, state=replace(info.state, last_seq=info.state.last_seq - missing))

    monkeypatch.setattr(api, "stream_info", looked)
    with connect(nats) as connection:
        info, last = settled(connection, "CDC_shop")
    assert info is not None
    assert last is not None
    assert (info.state.last_seq, last.seq) == (11, 11)
    publisher.close()
