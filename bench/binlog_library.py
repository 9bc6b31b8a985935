"""The measured process: `mysql-replication` alone, reading rows and doing nothing with them.

python -m bench.binlog_library PORT FILE POSITION TABLE CHANGES RESULT.json
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import WriteRowsEvent


@dataclass(frozen=True, slots=True)
class Result:
    """What it took.

    Attributes:
        changes: Rows that were read.
        seconds: From the first row to the last.
        cpu: CPU time of the process in between.
    """

    changes: int
    seconds: float
    cpu: float


def main(arguments: list[str]) -> None:
    """Read, and write the result."""
    port, file, position, table, limit, result = arguments
    reader = BinLogStreamReader(
        connection_settings={"host": "127.0.0.1", "port": int(port), "user": "waxtap"},
        server_id=77,
        log_file=file,
        log_pos=int(position),
        resume_stream=True,
        only_events=[WriteRowsEvent],
        only_tables=[table],
        enable_logging=False,
    )
    changes = 0
    clock, cpu = time.monotonic(), _cpu_seconds()
    for event in reader:
        changes += len(event.rows)
        if changes >= int(limit):
            break
    found = Result(changes, time.monotonic() - clock, _cpu_seconds() - cpu)
    reader.close()
    Path(result).write_text(json.dumps(asdict(found)))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(sys.argv[1:])
