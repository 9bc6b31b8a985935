"""Bytewax counts twice after a second crash, unless its recovery folder is prepared before."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.e2e.double_crash import CRASH_STATUS, KEYS

if TYPE_CHECKING:
    from pathlib import Path


def counts_after_two_crashes(folder: Path, *, prepare: bool) -> dict[str, int]:
    """The last count that each key has, three runs later."""
    statuses = []
    for run in (1, 2, 3):
        command = [sys.executable, "-m", "tests.e2e.double_crash", str(folder), str(run)]
        result = subprocess.run(
            [*command, "yes" if prepare else "no"],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        statuses.append(result.returncode)
        assert result.returncode in (0, CRASH_STATUS), result.stderr
    assert statuses == [CRASH_STATUS, CRASH_STATUS, 0]
    lines = (folder / "results").read_text(encoding="utf-8").splitlines()
    return {key: int(count) for key, count in (line.split() for line in lines)}


def test_bytewax_by_itself_applies_changes_twice_after_two_crashes(tmp_path: Path) -> None:
    # The day this fails, Bytewax has mended it, and our purge may go.
    counts = counts_after_two_crashes(tmp_path, prepare=False)
    assert counts.keys() == set(KEYS)
    assert max(counts.values()) == 2


def test_a_prepared_folder_applies_every_change_once_after_two_crashes(tmp_path: Path) -> None:
    assert counts_after_two_crashes(tmp_path, prepare=True) == dict.fromkeys(KEYS, 1)
