from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from connectors.errors import ConfigError
from dataflows import recovery

_PARTS = {"waxtap.capture": ["shop"], "waxtap.publish": ["CDC_shop"]}


def _rows(folder: Path) -> list[tuple[str, str, int]]:
    with closing(sqlite3.connect(folder / "part-0.sqlite3")) as store:
        return store.execute(
            "SELECT step_id, state_key, snap_epoch FROM snaps ORDER BY 1, 2, 3"
        ).fetchall()


def _fill(
    folder: Path,
    executions: list[tuple[int, int, int]],
    frontiers: list[tuple[int, int, int]],
    snapshots: list[tuple[str, str, int]],
) -> None:
    with closing(sqlite3.connect(folder / "part-0.sqlite3")) as store, store:
        store.executemany(
            "INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (?, ?, ?)", executions
        )
        store.executemany(
            "INSERT INTO fronts (ex_num, worker_index, worker_frontier) VALUES (?, ?, ?)", frontiers
        )
        store.executemany(
            "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES (?, ?, ?, ?)",
            [(*snapshot, pickle.dumps(None)) for snapshot in snapshots],
        )


def test_a_missing_folder_is_made_and_initialised(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    recovery.prepare(folder, "all", _PARTS)
    assert (folder / "part-0.sqlite3").exists()
    assert _rows(folder) == []
    recovery.prepare(folder, "all", _PARTS)


def test_snapshots_at_and_past_the_resume_epoch_are_purged(tmp_path: Path) -> None:
    recovery.prepare(tmp_path, "all", _PARTS)
    _fill(
        tmp_path,
        executions=[(0, 1, 1), (1, 2, 5)],
        frontiers=[(0, 0, 9), (1, 0, 8), (1, 1, 7)],
        snapshots=[("waxtap.capture", "shop", epoch) for epoch in (4, 6, 7, 8)],
    )
    assert recovery.purge_stale_snapshots(tmp_path) == 2
    assert [epoch for _, _, epoch in _rows(tmp_path)] == [4, 6]


def test_a_worker_without_a_frontier_counts_with_the_executions_start(tmp_path: Path) -> None:
    recovery.prepare(tmp_path, "all", _PARTS)
    _fill(
        tmp_path,
        executions=[(3, 2, 5)],
        frontiers=[(3, 0, 9)],
        snapshots=[("waxtap.capture", "shop", epoch) for epoch in (4, 5, 8)],
    )
    assert recovery.purge_stale_snapshots(tmp_path) == 2
    assert [epoch for _, _, epoch in _rows(tmp_path)] == [4]


def test_partitions_that_are_gone_are_dropped_and_other_steps_are_left(tmp_path: Path) -> None:
    recovery.prepare(tmp_path, "all", _PARTS)
    _fill(
        tmp_path,
        executions=[(0, 1, 1)],
        frontiers=[(0, 0, 9)],
        snapshots=[
            ("waxtap.capture", "gone", 2),
            ("waxtap.capture", "shop", 2),
            ("waxtap.dedupe", "gone", 2),
        ],
    )
    recovery.prepare(tmp_path, "all", _PARTS)
    assert _rows(tmp_path) == [("waxtap.capture", "shop", 2), ("waxtap.dedupe", "gone", 2)]


def test_a_folder_of_another_flow_is_refused(tmp_path: Path) -> None:
    recovery.prepare(tmp_path, "capture/shop", _PARTS)
    with pytest.raises(ConfigError) as caught:
        recovery.prepare(tmp_path, "deliver/warehouse", _PARTS)
    assert caught.value.code == "recovery.other_flow"
    assert "capture/shop" in caught.value.message


@pytest.mark.parametrize("content", [b"", b"not a database at all, but longer than a header" * 9])
def test_a_store_that_a_crash_left_unusable_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "part-0.sqlite3").write_bytes(content)
    recovery.prepare(tmp_path, "all", _PARTS)
    assert _rows(tmp_path) == []


def test_the_later_processes_of_a_cluster_wait_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_FIRST_PROCESS_WAIT", 0.0)
    with pytest.raises(ConfigError) as caught:
        recovery.await_prepared(tmp_path)
    assert caught.value.code == "recovery.missing"
    recovery.prepare(tmp_path, "all", _PARTS)
    recovery.await_prepared(tmp_path)
