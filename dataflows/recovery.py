"""Bytewax's recovery folder, made ready before each start.

The streams and the targets are the truth about what was captured and delivered; the folder holds
what Bytewax needs besides. So losing it costs nothing, and preparing it may throw away whatever
could mislead the next run.

Bytewax 0.21.1 leaves two traps. Snapshots of an epoch that a crash cut short stay in the store, and
a second crash makes them count although their epoch was run again; and a partition that no longer
exists makes the worker panic. Both are cured by deleting those rows.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import structlog
from bytewax.recovery import init_db_dir

from connectors.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

log = structlog.get_logger()

_OWNER = "waxtap-flow"
_FIRST_PROCESS_WAIT = 60.0


def prepare(folder: Path, flow: str, parts: Mapping[str, Collection[str]]) -> None:
    """Make the folder ready for the next start: initialise, purge, drop what is gone.

    To be called by the first process of a cluster only, before Bytewax starts.

    Args:
        folder: Bytewax's `-r`; created with one partition when it holds no store yet.
        flow: The flow that runs on it, such as `capture/shop`.
        parts: The present partitions of each input and output step, by full step id.

    Raises:
        ConfigError: The folder belongs to another flow, or cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _own(folder, flow)
        try:
            _tidy(folder, parts)
        except sqlite3.DatabaseError as error:
            # A crash while it was made, or a damaged disk: the store is worth nothing by itself.
            log.warning("recovery store replaced", folder=str(folder), reason=str(error))
            for store in folder.glob("part-*"):
                store.unlink()
            _tidy(folder, parts)
    except OSError as error:
        raise ConfigError(
            "recovery.unusable",
            f"the recovery folder cannot be used: {error.strerror}",
            where=str(folder),
            cure="check the rights of the folder that -r names",
        ) from error


def await_prepared(folder: Path) -> None:
    """Return once the first process of the cluster has prepared the folder.

    Raises:
        ConfigError: It did not appear within a minute.
    """
    deadline = time.monotonic() + _FIRST_PROCESS_WAIT
    while not _stores(folder):
        if time.monotonic() > deadline:
            raise ConfigError(
                "recovery.missing",
                "the first process of the cluster has not initialised the recovery folder",
                where=str(folder),
                cure="start process 0 with the same -r, on a file system that all processes share",
            )
        time.sleep(0.05)


def purge_stale_snapshots(folder: Path) -> int:
    """Delete the snapshots of epochs that the next start will run again; return how many.

    The next start resumes at the smallest worker frontier of the latest execution (a worker that
    never wrote one counts with the execution's own resume epoch).
    """
    purged = 0
    executions: list[tuple[int, int, int]] = []
    frontiers: dict[tuple[int, int], int] = {}
    for store in _stores(folder):
        with closing(sqlite3.connect(store)) as rows:
            executions += rows.execute("SELECT ex_num, worker_count, resume_epoch FROM exs")
            for execution, worker, epoch in rows.execute(
                "SELECT ex_num, worker_index, worker_frontier FROM fronts"
            ):
                place = (execution, worker)
                frontiers[place] = max(epoch, frontiers.get(place, epoch))
    if not executions:
        return 0
    latest, workers, start = max(executions)
    resume = min(max(start, frontiers.get((latest, worker), start)) for worker in range(workers))
    for store in _stores(folder):
        with closing(sqlite3.connect(store)) as rows, rows:
            purged += rows.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (resume,)).rowcount
    return purged


def _tidy(folder: Path, parts: Mapping[str, Collection[str]]) -> None:
    if not _stores(folder):
        init_db_dir(folder, 1)
    purge_stale_snapshots(folder)
    _drop_partitions(folder, parts)


def _drop_partitions(folder: Path, parts: Mapping[str, Collection[str]]) -> None:
    for store in _stores(folder):
        with closing(sqlite3.connect(store)) as rows, rows:
            for step, present in parts.items():
                known = {
                    key
                    for (key,) in rows.execute(
                        "SELECT DISTINCT state_key FROM snaps WHERE step_id = ?", (step,)
                    )
                }
                rows.executemany(
                    "DELETE FROM snaps WHERE step_id = ? AND state_key = ?",
                    [(step, key) for key in known - set(present)],
                )


def _own(folder: Path, flow: str) -> None:
    owner = folder / _OWNER
    if not owner.exists():
        owner.write_text(flow + "\n", encoding="utf-8")
        return
    written = owner.read_text(encoding="utf-8").strip()
    if written != flow:
        raise ConfigError(
            "recovery.other_flow",
            f"the recovery folder belongs to the flow {written!r}, not to {flow!r}",
            where=str(folder),
            cure="give each flow a folder of its own with -r, or delete this one: nothing is lost",
        )


def _stores(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.sqlite3"))
