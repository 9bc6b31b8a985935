"""Fixtures that every test may ask for."""

from __future__ import annotations

from control.servers.errors import ServerMissingError
from control.servers.nats import find_nats_server
from control.servers.postgres_programs import find_programs

pytest_plugins = ["tests.servers.postgres", "tests.servers.nats", "tests.servers.certificate"]


def pytest_report_header() -> list[str]:
    """Which servers the run uses, or why it skips what needs them."""
    lines = []
    for name, find in (("postgres", find_programs), ("nats", find_nats_server)):
        try:
            lines.append(f"{name}: {find()}")
        except ServerMissingError as error:
            lines.append(f"{name}: MISSING, its tests are skipped: {error}")
    return lines
