"""Fixtures of NATS: one server a session, servers of one's own, and an empty JetStream."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from control.servers.nats import NatsServer, find_nats_server
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator


class NatsFactory(Protocol):
    """Starts a server of the test's own, stopped when the test ends."""

    def __call__(
        self,
        *,
        sync_interval: str = "always",
        max_payload: int | None = None,
        config: str = "",
    ) -> NatsServer: ...


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """A running server for the whole session; a test uses streams of names of its own."""
    with NatsServer(program=obtain("nats", find_nats_server)) as server:
        yield server


@pytest.fixture
def nats_factory() -> Iterator[NatsFactory]:
    """Servers of one's own, to be killed and restarted at will."""
    program = obtain("nats", find_nats_server)
    with ExitStack() as stack:

        def start(
            *, sync_interval: str = "always", max_payload: int | None = None, config: str = ""
        ) -> NatsServer:
            server = NatsServer(
                sync_interval=sync_interval,
                max_payload=max_payload,
                config=config,
                program=program,
            )
            return stack.enter_context(server)

        yield start
