"""A Bytewax flow that counts each key, and crashes in its first two runs.

    python -m tests.e2e.double_crash FOLDER RUN PREPARE

Every key comes once, so every count must end at 1. Run 1 crashes while it closes an epoch of three
keys, run 2 while it closes its second epoch of one key, run 3 reads the rest. PREPARE is `yes` to
prepare the recovery folder before the start as our flows do, `no` to leave that to Bytewax.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main
from typing_extensions import override

from dataflows import recovery

KEYS = ("first", "a", "b", "c", "d", "e", "f")
CRASH_STATUS = 9
_CRASH_AT_EPOCH = {1: 2, 2: 2}


class _Keys(StatefulSourcePartition[tuple[str, str], int]):
    """One batch an epoch; the second epoch of run 1 holds three keys."""

    def __init__(self, run: int, at: int) -> None:
        self._run, self._at = run, at

    @override
    def next_batch(self) -> list[tuple[str, str]]:
        size = 3 if self._run == 1 and self._at else 1
        keys = KEYS[self._at : self._at + size]
        if not keys:
            raise StopIteration
        self._at += len(keys)
        return [(key, key) for key in keys]

    @override
    def snapshot(self) -> int:
        return self._at


class _KeysSource(FixedPartitionedSource[tuple[str, str], int]):
    def __init__(self, run: int) -> None:
        self._run = run

    @override
    def list_parts(self) -> list[str]:
        return ["keys"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Keys:
        return _Keys(self._run, resume_state or 0)


class _Results(StatefulSinkPartition[str, None]):
    def __init__(self, path: Path, run: int) -> None:
        self._path, self._run, self._epochs = path, run, 0

    @override
    def write_batch(self, values: list[str]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{value}\n" for value in values)

    @override
    def snapshot(self) -> None:
        self._epochs += 1
        if self._epochs == _CRASH_AT_EPOCH.get(self._run):
            # the counts of this epoch are in the store by then, the epoch's end is not
            time.sleep(0.1)
            os._exit(CRASH_STATUS)


class _ResultsSink(FixedPartitionedSink[str, None]):
    def __init__(self, path: Path, run: int) -> None:
        self._path, self._run = path, run

    @override
    def list_parts(self) -> list[str]:
        return ["results"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Results:
        return _Results(self._path, self._run)


def _count(state: int | None, _key: str) -> tuple[int, int]:
    return (state or 0) + 1, (state or 0) + 1


def main(folder: Path, run: int, prepare: bool) -> None:
    """Run once; exits with `CRASH_STATUS` in the runs that crash."""
    store = folder / "recovery"
    if prepare:
        recovery.prepare(store, "count", {})
    elif not store.exists():
        store.mkdir()
        init_db_dir(store, 1)
    flow = Dataflow("double_crash")
    keys = op.input("keys", flow, _KeysSource(run))
    counts = op.stateful_map("count", keys, _count)
    lines = op.map("line", counts, lambda pair: ("results", f"{pair[0]} {pair[1]}"))
    op.output("results", lines, _ResultsSink(folder / "results", run))
    run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(store))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "yes")
