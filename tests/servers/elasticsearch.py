"""Fixtures of Elasticsearch: one node a session, and nodes of one's own."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from control.servers.elasticsearch import ElasticsearchServer, request
from control.servers.elasticsearch_programs import find_elasticsearch
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class ElasticsearchNode(Protocol):
    """A node that tests may use, not stop."""

    @property
    def url(self) -> str: ...

    def request(
        self, method: str, path: str, body: object = None, *, timeout: float = 60.0
    ) -> tuple[int, dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class ForeignNode:
    """The one that `WAXTAP_TEST_ELASTICSEARCH_URL` names."""

    url: str

    def request(
        self, method: str, path: str, body: object = None, *, timeout: float = 60.0
    ) -> tuple[int, dict[str, Any]]:
        return request(self.url, method, path, body, timeout=timeout)


class ElasticsearchFactory(Protocol):
    """Starts a node of the test's own, stopped when the test ends."""

    def __call__(
        self,
        *,
        password: str | None = None,
        users: Mapping[str, list[dict[str, object]]] | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> ElasticsearchServer: ...


@pytest.fixture(scope="session")
def mortal_elasticsearch() -> Iterator[ElasticsearchServer]:
    """A node for the whole session that tests kill and start again: a start takes seconds."""
    with ElasticsearchServer(programs=obtain("elasticsearch", find_elasticsearch)) as server:
        yield server


@pytest.fixture(scope="session")
def elasticsearch_node(request: pytest.FixtureRequest) -> ElasticsearchNode:
    """A running node; a test uses indices of names of its own."""
    if url := os.environ.get("WAXTAP_TEST_ELASTICSEARCH_URL"):
        return ForeignNode(url.rstrip("/"))
    server: ElasticsearchServer = request.getfixturevalue("mortal_elasticsearch")
    return server


@pytest.fixture
def elasticsearch_factory() -> Iterator[ElasticsearchFactory]:
    """Nodes of one's own."""
    programs = obtain("elasticsearch", find_elasticsearch)
    with ExitStack() as stack:

        def start(
            *,
            password: str | None = None,
            users: Mapping[str, list[dict[str, object]]] | None = None,
            certificate: tuple[Path, Path] | None = None,
        ) -> ElasticsearchServer:
            server = ElasticsearchServer(
                password=password, users=users, certificate=certificate, programs=programs
            )
            return stack.enter_context(server)

        yield start
