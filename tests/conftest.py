"""Fixtures that every test may ask for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings

from control.servers.elasticsearch_programs import find_elasticsearch
from control.servers.errors import ServerMissingError
from control.servers.mariadb import find_mariadb
from control.servers.mysql_programs import find_mysql
from control.servers.nats import find_nats_server
from control.servers.postgres_programs import find_programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = [
    "tests.workers",
    "tests.servers.postgres",
    "tests.servers.standby",
    "tests.servers.nats",
    "tests.servers.elasticsearch",
    "tests.servers.binlog",
    "tests.servers.mysql",
    "tests.servers.mariadb",
    "tests.servers.certificate",
    "tests.integration.explored",
]


# How long an example takes says nothing on a machine that has other work to do.
settings.register_profile(
    "unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _logging_ends_with_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that a test runs sets up logging to where this test's output goes.

    No logger may remember that: later tests have other outputs.
    """
    uncached = partial(_configure_uncached, structlog.configure)
    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    structlog.reset_defaults()


def _configure_uncached(configure: Callable[..., None], **settings: object) -> None:
    configure(**(settings | {"cache_logger_on_first_use": False}))


def pytest_report_header() -> list[str]:
    """Which servers the run uses, or why it skips what needs them."""
    lines = []
    servers: dict[str, Callable[[], object]] = {
        "postgres": find_programs,
        "nats": find_nats_server,
        "elasticsearch": find_elasticsearch,
        "mysql": lambda: find_mysql().version,
        "mariadb": lambda: find_mariadb().version,
    }
    for name, find in servers.items():
        try:
            lines.append(f"{name}: {find()}")
        except ServerMissingError as error:
            lines.append(f"{name}: MISSING, its tests are skipped: {error}")
    return lines
