"""`waxtap try` on samples out of a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from connectors.errors import ConfigError
from control.cli.samples import from_lines
from control.cli.try_pipeline import try_pipeline
from tests.unit.changes import USERS, envelope

if TYPE_CHECKING:
    from pathlib import Path

_CONFIG = """
nats: {}
sources: {shop: {type: postgres, dsn: "host=nowhere"}}
pipelines:
  users:
    tables: ["public.users"]
    filter: "op != 'd' || before.country == 'DE'"
    transform: [{mask: {fields: [email]}}, {drop: [password]}]
sinks:
  out: {type: postgres, dsn: "host=nowhere", topics: ["*"], filter: "op == 'd'"}
"""
_SAMPLES = [
    envelope("c", after='{"id":1,"email":"a@b.c","password":"x"}'),
    envelope("d", before='{"id":1,"country":"FR"}'),
    envelope("d", before='{"id":2}'),
    envelope("c", after='{"id":1}', table="orders"),
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "waxtap.yaml").write_text(_CONFIG, encoding="utf-8")
    (tmp_path / "samples.jsonl").write_bytes(b"\n".join(_SAMPLES) + b"\n\n")
    return tmp_path


def test_before_and_after_are_shown_and_why_a_change_is_dropped(files: Path) -> None:
    command = [sys.executable, "-c", "from control.cli.app import main; main()"]
    command += ["try", "-c", "waxtap.yaml", "--pipeline", "users", "--input", "samples.jsonl"]
    path = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        command, text=True, check=True, cwd=files, env={"PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert f"before   {_SAMPLES[0].decode()}" in lines
    masked = envelope("c", after='{"id":1,"email":"***"}')
    assert f"after    {masked.decode()}" in lines
    assert 'in CDC.shop.db.users.0, key {"id":1}' in lines
    assert "dropped  the filter is false" in lines
    assert any(
        line.startswith("failed   [filter.no_such_field]") and line.endswith("dead.db.users.0")
        for line in lines
    )
    assert "dropped  the pipeline does not take this table" in lines


def test_the_configuration_is_that_of_the_flows(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAXTAP_CONFIG", str(files / "waxtap.yaml"))
    try_pipeline(pipeline="users", samples=files / "samples.jsonl")
    assert "in CDC.shop.db.users.0" in capsys.readouterr().out


def test_steps_that_remember_say_which_changes_they_drop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = """
  seen: {tables: ["public.users"], dedupe: {fields: [name]}}
  some: {tables: ["public.users"], sample: {every: 3}}
  slow: {tables: ["public.users"], throttle: {changes: 2, every: 1h}}
"""
    (tmp_path / "waxtap.yaml").write_text(_CONFIG.replace("pipelines:\n", f"pipelines:{steps}"))
    rows = [f'{{"id":1,"name":"{name}","n":{n}}}' for n, name in enumerate("aabb")]
    samples = [envelope("c", after=rows[0]), *(envelope("u", after=row) for row in rows[1:])]
    timed = [sample.replace(b'"lsn":7', b'"lsn":7,"ts_ms":7') for sample in samples]
    (tmp_path / "samples.jsonl").write_bytes(b"\n".join(timed))

    def kept(pipeline: str) -> list[bool]:
        try_pipeline(
            config=tmp_path / "waxtap.yaml", pipeline=pipeline, samples=tmp_path / "samples.jsonl"
        )
        told = capsys.readouterr().out.splitlines()
        return [
            "after" in line for line in told if line.strip().startswith(("after", "dropped  by"))
        ]

    assert kept("seen") == [True, False, True, False]
    assert kept("some") == [True, False, False, True]
    assert kept("slow") == [True, True, False, False]


def test_the_steps_of_a_sink_can_be_tried(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try_pipeline(config=files / "waxtap.yaml", sink="out", samples=files / "samples.jsonl")
    assert capsys.readouterr().out.count("dropped  the filter is false") == 2


@pytest.mark.parametrize(
    ("pipeline", "samples", "said"),
    [
        ("nobody", "samples.jsonl", "known: users"),
        ("users", None, "--live N"),
        ("", "samples.jsonl", "--pipeline users"),
        ("users", "nothing.jsonl", "cannot be read"),
        ("users", "waxtap.yaml", "line 2 is no change"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    files: Path, pipeline: str, samples: str | None, said: str
) -> None:
    path = files / samples if samples else None
    with pytest.raises(ConfigError, match=said):
        try_pipeline(config=files / "waxtap.yaml", pipeline=pipeline, samples=path)


def test_a_sample_may_bring_its_shape_and_key() -> None:
    line = json.dumps(
        {
            "schema": json.loads(USERS.encoded),
            "key": {"id": "ö"},
            "unavailable": ["note"],
            "envelope": json.loads(envelope("u", after='{"id":1}')),
        }
    )
    [change] = from_lines([line.encode()], "shop", "file")
    assert change.table == USERS
    assert change.key == '{"id":"\\u00f6"}'
    assert change.unavailable == ("note",)


def test_a_shape_is_guessed_from_the_rows() -> None:
    rows = envelope("u", before='{"code":"x"}', after='{"code":"y","n":1,"o":{},"b":true}')
    [change] = from_lines([rows], "shop", "file")
    assert change.table is not None
    assert change.table.key == ("code",)
    assert change.key == '{"code":"y"}'
    assert [column.json for column in change.table.columns] == [
        "string",
        "number",
        "json",
        "boolean",
    ]
    with pytest.raises(ConfigError, match="line 1"):
        list(from_lines([b"[]"], "shop", "file"))
