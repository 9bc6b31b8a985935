from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.spec import NatsSpec
from control.server.embedded_nats import EmbeddedNats
from control.servers.nats import find_nats_server
from tests.integration.control_flows import until
from tests.servers.require import obtain

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.servers


def test_an_embedded_server_keeps_its_port_and_its_data(tmp_path: Path) -> None:
    obtain("nats", find_nats_server)
    first = EmbeddedNats(tmp_path).start()
    settings = first.settings
    with connect(NatsSpec.model_validate(settings)) as connection:
        api.create_stream(connection, {"name": "kept", "subjects": ["kept"], "storage": "file"})
    first.stop()
    second = EmbeddedNats(tmp_path).start()
    try:
        assert second.settings == settings
        with connect(NatsSpec.model_validate(settings)) as connection:
            assert api.stream_info(connection, "kept") is not None
        assert "sync_interval: always" in (tmp_path / "nats" / "nats.conf").read_text()
    finally:
        second.stop()


def test_an_embedded_server_that_ends_by_itself_is_started_again(tmp_path: Path) -> None:
    obtain("nats", find_nats_server)
    inside = EmbeddedNats(tmp_path).start()
    try:
        with connect(NatsSpec.model_validate(inside.settings)) as connection:
            api.create_stream(connection, {"name": "kept", "subjects": ["k"], "storage": "file"})
            os.kill(inside.pid, signal.SIGKILL)
            until(lambda: not connection.connected, "the loss")
            until(lambda: connection.connected, "the server again")
            assert api.stream_info(connection, "kept") is not None
    finally:
        inside.stop()
