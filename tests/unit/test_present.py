"""What is looked up while a flow runs is looked up in the configuration as it is then."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from connectors.contracts.changes import Failure
from connectors.errors import ConfigError
from dataflows.pipeline import reprocess_as_of_now
from dataflows.present import Present
from tests.unit.changes import change, delivered

if TYPE_CHECKING:
    from pathlib import Path

_TREE: dict[str, Any] = {
    "nats": {},
    "sources": {"shop": {"type": "postgres"}},
    "sinks": {"out": {"type": "postgres", "dsn": "host=nowhere", "topics": ["*"]}},
    "pipelines": {"users": {"filter": "before.x == 1"}},
}


def _write(path: Path, tree: object) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(tree))
    fresh.replace(path)


def test_a_mended_pipeline_is_used_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "waxtap.yaml"
    _write(file, _TREE)
    present = Present(file, {}, "deliver/out")
    running = present()
    assert present() is running
    failed = Failure("users", "filter.no_such_field", "no x")
    letter = delivered(change()._replace(failed=failed.encoded))
    sink = running.sinks["out"]

    [again] = reprocess_as_of_now(running, present, sink, letter)
    assert Failure.decode(again.failed).pipeline == "users"

    _write(file, {**_TREE, "pipelines": {"users": {"filter": "op != 'd'"}}})
    [made] = reprocess_as_of_now(running, present, sink, letter)
    assert (made.failed, made.sequence) == ("", letter.sequence)

    # One that is being edited stops nothing: the letter stays, and tells why.
    _write(file, {**_TREE, "pipelines": {"users": {"filtre": "true"}}})
    [told] = reprocess_as_of_now(running, present, sink, letter)
    assert Failure.decode(told.failed).code == "config.invalid"
    with pytest.raises(ConfigError):
        present()
    whole = delivered(change())
    assert reprocess_as_of_now(running, present, sink, whole) == [whole]

    file.unlink()
    with pytest.raises(ConfigError) as caught:
        present()
    assert caught.value.code == "config.unreadable"


def test_a_file_that_did_not_change_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "waxtap.yaml"
    _write(file, _TREE)
    present = Present(file, {}, "deliver/out")
    first = present()
    os.utime(file, ns=(1, 1))
    second = present()
    assert second is not first
    assert present() is second
