"""Debezium's engine with its connector for MySQL on the same backlog; it has none for MariaDB."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pymysql.cursors import Cursor

from bench import debezium
from bench.debezium import WarmHalf
from bench.debezium_engine import Job, Sample
from bench.errors import FailedError
from bench.fleet import Fleet
from bench.process import MeasuredProcess
from bench.settings import Settings
from bench.stream import StreamObserver
from control.servers.binlog_server import BinlogServer

_ROOT = Path(__file__).parents[1]
_STREAM, _SUBJECT = "DEBEZIUM", "debezium.items"
_ANCHOR_SECONDS = 120.0
_CONNECTOR = "io.debezium.connector.mysql.MySqlConnector"


@dataclass(frozen=True, slots=True)
class Anchored:
    """An engine that has stored, in files, where the backlog begins and what its table is."""

    fleet: Fleet
    server: BinlogServer
    kind: str

    @classmethod
    def of(cls, fleet: Fleet, server: BinlogServer, kind: str, cursor: Cursor) -> Anchored:
        """Run the engine until it has seen a row.

        Raises:
            UnavailableError: It cannot run here.
            FailedError: It did not see one.
        """
        debezium.available()
        anchored = cls(fleet, server, kind)
        cursor.execute("CREATE TABLE IF NOT EXISTS anchor (id int PRIMARY KEY AUTO_INCREMENT)")
        folder = anchored._folder
        folder.mkdir()
        with anchored._start(2, "", folder / "anchor.json") as process:
            deadline = time.monotonic() + _ANCHOR_SECONDS
            while process.running():
                cursor.execute("INSERT INTO anchor VALUES ()")
                if time.monotonic() > deadline:
                    raise FailedError("Debezium did not see a row")
                time.sleep(0.5)
            process.finish(1)
        return anchored

    def publish(self, number: int, changes: int, settings: Settings) -> dict[str, float]:
        """Publish the beginning of the backlog to a JetStream of its own.

        Args:
            number: Of the run, each of which begins where the anchor is.
            changes: How many.
            settings: When to give up.

        Raises:
            FailedError: The engine did not get through, or the stream does not hold what it
                published.
        """
        folder = self._folder.with_name(f"{self._folder.name}-{number}")
        shutil.copytree(self._folder, folder)
        result = folder / "result.json"
        with (
            self.fleet.nats(folder.name) as nats,
            StreamObserver(nats.url, _STREAM) as stream,
        ):
            stream.create([_SUBJECT])
            with self._start(changes, nats.url, result) as process:
                deadline = time.monotonic() + settings.timeout_seconds
                while process.running() and time.monotonic() < deadline:
                    time.sleep(0.1)
                process.finish(1)
            if stream.messages() < changes:
                raise FailedError(f"JetStream holds {stream.messages()} of {changes} changes")
        samples = [Sample(**sample) for sample in json.loads(result.read_text())]
        if len(samples) < 3:
            raise FailedError(f"Debezium stopped before {changes} changes; see its log")
        warm = WarmHalf(samples)
        return {
            f"{self.kind}_debezium_per_s": warm.per_second,
            f"{self.kind}_debezium_per_cpu_s": warm.per_cpu_second,
        }

    @property
    def _folder(self) -> Path:
        return self.fleet.folder / f"debezium-{self.kind}"

    def _start(self, changes: int, nats_url: str, result: Path) -> MeasuredProcess:
        job = Job(self._properties(result.parent), changes, nats_url, _SUBJECT, str(result))
        path = result.with_suffix(".job")
        path.write_text(json.dumps(asdict(job)))
        return MeasuredProcess(
            "Debezium",
            [sys.executable, "-m", "bench.debezium_engine", str(path)],
            log=result.with_suffix(".log"),
            environment={"PYTHONPATH": str(_ROOT)},
            folder=result.parent,
        )

    def _properties(self, folder: Path) -> dict[str, str]:
        """Debezium's defaults but for where to read, JSON without schemas, and no snapshot."""
        return {
            "name": f"bench_{self.kind}",
            "connector.class": _CONNECTOR,
            "topic.prefix": "bench",
            "database.hostname": "127.0.0.1",
            "database.port": str(self.server.port),
            "database.user": "waxtap",
            "database.password": "",
            "database.server.id": "88",
            "table.include.list": "bench.items,bench.anchor",
            "snapshot.mode": "no_data",
            "decimal.handling.mode": "string",
            "converter.schemas.enable": "false",
            "include.schema.changes": "false",
            "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
            "schema.history.internal.file.filename": str(folder / "history.dat"),
            "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "offset.storage.file.filename": str(folder / "offsets.dat"),
            # the run that makes the anchor ends sooner than Debezium would store where it is
            **({"offset.flush.interval.ms": "0"} if folder == self._folder else {}),
        }
