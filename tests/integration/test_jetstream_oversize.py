"""Rows beyond the server's largest message."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from connectors.errors import GapError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.consumer import Consumer
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec
from connectors.jetstream.stored import parse_headers
from tests.integration.streams import claim, publish, read, stored, until

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.servers


def _headers(nats: NatsSpec) -> list[tuple[str, bool]]:
    found = (parse_headers(message.hdrs) for message in stored(nats))
    return [(headers.encoding, bool(headers.object)) for headers in found if headers]


@pytest.mark.parametrize(
    ("envelope", "how"),
    [
        (b'"' + b"x" * 900_000 + b'"', ("", False)),
        (b'"' + b"x" * 5_000_000 + b'"', ("zlib", False)),
        (b'"' + os.urandom(25_000_000).hex().encode() + b'"', ("zlib", True)),
    ],
    ids=["1 MB as it is", "5 MB compressed", "50 MB as an object"],
)
def test_a_large_row_arrives_whole(
    nats: NatsSpec, publisher: Publisher, envelope: bytes, how: tuple[str, bool]
) -> None:
    publish(publisher, 1, 1, envelope)
    publish(publisher, 2, 1)
    publisher.flush()
    consumer = Consumer(nats, claim(nats))
    received = read(consumer, 2)
    consumer.close()

    assert [
        change.envelope == expected
        for change, expected in zip(received, [envelope, b"{}"], strict=True)
    ] == [True, True]
    assert _headers(nats) == [how, ("", False)]


def test_an_object_that_is_gone_is_named(nats: NatsSpec, publisher: Publisher) -> None:
    publish(publisher, 1, 1, os.urandom(2_000_000).hex().encode())
    publisher.flush()
    with connect(nats) as connection:
        api.call(connection, "STREAM.PURGE.OBJ_CDC_LARGE_shop", None, api.Refusal)
    consumer = Consumer(nats, claim(nats))

    def fails() -> bool:
        consumer.read()
        return False

    with pytest.raises(GapError) as caught:
        until(fails)
    consumer.close()
    assert caught.value.code == "jetstream.object_gone"
