"""Connecting to real servers: shared, secured, refused."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from connectors.errors import ConfigError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.consumer import Consumer
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec
from connectors.jetstream.stream import open_stream
from control.servers.ports import free_port
from tests.integration.streams import claim, publish, read, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.certificate import Certificate
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers

# What docs/jetstream.md gives to a user for capture and one for delivery.
CAPTURE = """
    publish: {allow: [
      "CDC.shop.>", "$KV.CDC_SCHEMAS.>", "$O.CDC_LARGE_shop.>",
      "$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.CREATE.*",
      "$JS.API.STREAM.UPDATE.CDC_shop", "$JS.API.STREAM.MSG.GET.*",
      "$JS.API.STREAM.PURGE.OBJ_CDC_LARGE_shop", "$JS.API.DIRECT.GET.OBJ_CDC_LARGE_shop.>"
    ]}
"""
DELIVER = """
    publish: {allow: [
      "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.MSG.GET.*",
      "$JS.API.CONSUMER.NAMES.CDC_shop", "$JS.API.CONSUMER.CREATE.CDC_shop.*",
      "$JS.API.CONSUMER.DELETE.CDC_shop.*", "$JS.API.CONSUMER.MSG.NEXT.CDC_shop.*",
      "$JS.ACK.CDC_shop.>",
      "$JS.API.DIRECT.GET.OBJ_CDC_LARGE_shop.>",
      "$JS.API.CONSUMER.CREATE.OBJ_CDC_LARGE_shop", "$JS.API.CONSUMER.CREATE.OBJ_CDC_LARGE_shop.>",
      "$JS.API.CONSUMER.DELETE.OBJ_CDC_LARGE_shop.*", "$JS.FC.>"
    ]}
"""

# Made for this test.
SEED = "SUAMZ4674VDPXRJ6PWI6FEQAQNPZGBFY5E5II32F2OA4FNJ2BF5GSZUWEA"
PUBLIC_KEY = "UAI6RNZ3METO2HYOE22V7P5YBAOTMWBA6LKNP54PPJPCMSIZNJV7U535"


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "waxtap-nats"]


def test_equal_configurations_share_one_connection(nats_factory: NatsFactory) -> None:
    nats = NatsSpec(url=(nats_factory().url,))
    first, second = connect(nats), connect(nats.model_copy())
    assert first is second
    assert len(_threads()) == 1
    first.release()
    assert second.connected
    second.release()
    assert _threads() == []


def test_nobody_there_is_retryable_and_leaves_nothing_behind() -> None:
    with pytest.raises(RetryableError) as caught, capture_logs() as logs:
        connect(NatsSpec(url=(f"nats://127.0.0.1:{free_port()}",)))
    assert caught.value.code == "jetstream.unreachable"
    assert logs == []  # nothing was lost that never was
    assert _threads() == []


def test_a_server_without_jetstream_is_named(nats_factory: NatsFactory) -> None:
    server = nats_factory(config="accounts { A { users: [{user: a, password: b}] } }")
    with pytest.raises((ConfigError, RetryableError)) as caught:
        open_stream(NatsSpec.model_validate({"url": server.url, "user": "a", "password": "b"}), "s")
    assert "enable JetStream" in caught.value.cure


def test_a_wrong_password_is_named_without_the_password(nats_factory: NatsFactory) -> None:
    server = nats_factory(config='authorization { user: "u", password: "right" }')
    wrong = {"url": server.url, "user": "u", "password": "wrong-secret"}
    with pytest.raises(ConfigError) as caught:
        connect(NatsSpec.model_validate(wrong))
    assert caught.value.code == "jetstream.unauthorized"
    assert "wrong-secret" not in str(caught.value)
    connect(NatsSpec.model_validate(wrong | {"password": "right"})).release()


def test_a_token_and_an_nkey_open_the_door(nats_factory: NatsFactory, tmp_path: Path) -> None:
    server = nats_factory(config='authorization { token: "sesame" }')
    connect(NatsSpec.model_validate({"url": server.url, "token": "sesame"})).release()

    (tmp_path / "user.nk").write_text(SEED)
    server = nats_factory(config=f'authorization {{ users: [{{nkey: "{PUBLIC_KEY}"}}] }}')
    nats = NatsSpec(url=(server.url,), nkey=str(tmp_path / "user.nk"))
    connect(nats).release()
    with pytest.raises(ConfigError) as caught:
        connect(nats.model_copy(update={"nkey": str(tmp_path / "missing.nk")}))
    assert caught.value.code == "jetstream.credentials"


@pytest.mark.parametrize("large", [False, True], ids=["small rows", "rows in the object store"])
def test_the_documented_permissions_are_enough(nats_factory: NatsFactory, large: bool) -> None:
    server = nats_factory(
        config=f"""
        authorization {{ users: [
          {{user: capture, password: c, permissions: {{ {CAPTURE}
             subscribe: ["_INBOX_capture.>"] }} }}
          {{user: deliver, password: d, permissions: {{ {DELIVER}
             subscribe: ["_INBOX_deliver.>"] }} }}
        ] }}
        """
    )
    capture, deliver = (
        NatsSpec.model_validate(
            {
                "url": server.url,
                "user": user,
                "password": user[0],
                "inbox_prefix": f"_INBOX_{user}",
            }
        )
        for user in ("capture", "deliver")
    )
    payload = os.urandom(2_000_000 if large else 10).hex().encode()
    publisher = Publisher(capture, open_stream(capture, "shop")[0])
    publish(publisher, 1, 1, payload)
    publisher.flush()
    publisher.close()
    consumer = Consumer(deliver, claim(deliver))
    assert [change.envelope == payload for change in read(consumer, 1)] == [True]
    consumer.close()


def test_a_missing_permission_is_named(nats_factory: NatsFactory) -> None:
    server = nats_factory(
        config="""
        authorization { users: [
          {user: u, password: p, permissions: {
             publish: {deny: ["$JS.API.STREAM.CREATE.>"]} }}
        ] }
        """
    )
    nats = NatsSpec.model_validate({"url": server.url, "user": "u", "password": "p"})
    with pytest.raises(ConfigError) as caught:
        open_stream(nats, "shop")
    assert caught.value.code == "jetstream.denied"
    assert "STREAM.CREATE" in caught.value.where


def test_tls_verifies_both_sides(nats_factory: NatsFactory, certificate: Certificate) -> None:
    key, own = str(certificate.key), str(certificate.certificate)
    server = nats_factory(
        config=f'tls {{ cert_file: "{own}", key_file: "{key}", ca_file: "{own}", verify: true }}'
    )
    url = server.url.replace("nats://", "tls://")
    tls = {"ca": own, "cert": own, "key": key}
    nats = NatsSpec.model_validate({"url": url, "tls": tls})
    publisher = Publisher(nats, open_stream(nats, "shop")[0])
    publish(publisher, 1, 2000, b"x" * 300)
    publisher.flush()
    publisher.close()
    consumer = Consumer(nats, claim(nats))
    assert len(read(consumer, 2000)) == 2000
    consumer.close()

    with pytest.raises(ConfigError) as caught:
        connect(NatsSpec.model_validate({"url": url}))
    assert caught.value.code == "jetstream.tls"
    with pytest.raises(ConfigError) as caught:
        connect(NatsSpec.model_validate({"url": url, "tls": tls | {"ca": "/nowhere.pem"}}))
    assert caught.value.code == "jetstream.tls"


def test_a_frozen_server_is_noticed_and_survived(nats_factory: NatsFactory) -> None:
    server = nats_factory()
    nats = NatsSpec(url=(server.url,))
    publisher = Publisher(nats, open_stream(nats, "shop")[0])
    with capture_logs() as logs, connect(nats) as connection:
        server.suspend()
        publish_later = threading.Thread(
            target=lambda: publisher.publish([], publisher._checkpoint, {})
        )
        publish_later.start()
        until(lambda: connection.losses == 1, patience=40)
        server.resume()
        publish_later.join()
        publisher.flush()
    publisher.close()
    with connect(nats) as connection:
        info = api.stream_info(connection, "CDC_shop")
    assert info is not None
    assert info.state.last_seq == 2
    assert [entry["event"] for entry in logs][-1] == "connection to NATS is back"
