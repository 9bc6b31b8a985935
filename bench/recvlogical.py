"""How fast the server itself hands the backlog out: `pg_recvlogical` to /dev/null."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from bench.backlog import PUBLICATION, Backlog
from bench.errors import FailedError, UnavailableError
from bench.fleet import Fleet
from bench.process import MeasuredProcess
from bench.settings import Settings


def run(fleet: Fleet, backlog: Backlog, settings: Settings, number: int) -> dict[str, float]:
    """Receive the whole backlog once.

    Raises:
        UnavailableError: The program is not on this machine.
        FailedError: It ended with an error, or did not end.
    """
    program = _program(fleet.source.programs)
    server = conninfo_to_dict(backlog.dsn)
    with backlog.slot(f"bench_recvlogical_{number}") as slot:
        command = [
            program,
            f"--host={server['host']}",
            f"--port={server['port']}",
            f"--username={server['user']}",
            f"--dbname={server['dbname']}",
            f"--slot={slot}",
            "--start",
            f"--endpos={backlog.end}",
            "--option=proto_version=1",
            f"--option=publication_names={PUBLICATION}",
            "--file=/dev/null",
            "--no-loop",
        ]
        log = fleet.folder / f"{slot}.log"
        started = time.monotonic()
        with MeasuredProcess("pg_recvlogical", command, log=log) as process:
            peak = 0.0
            while process.running():
                peak = max(peak, process.peak_rss_mb())
                time.sleep(0.01)
                if time.monotonic() - started > settings.timeout_seconds:
                    raise FailedError("pg_recvlogical did not reach the end of the backlog")
            seconds = time.monotonic() - started
            process.finish(1)
    return {"recvlogical_per_s": backlog.changes / seconds, "rss_recvlogical_mb": peak}


def _program(folder: Path) -> str:
    beside = folder / "pg_recvlogical"
    found = str(beside) if beside.exists() else shutil.which("pg_recvlogical")
    if found is None:
        raise UnavailableError("pg_recvlogical is neither beside the server's programs nor on PATH")
    return found
