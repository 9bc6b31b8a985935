"""`waxtap plan, apply, list, get, delete, check, serve`, as a shell would run them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from connectors.jetstream.spec import NatsSpec
from control.cli.app import FAILED, NO_ENVIRONMENT, OK, WRONG_INPUT, run
from control.servers.ports import free_port
from tests.integration.control_server import RunningControl, empty_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from control.servers.nats import NatsServer

pytestmark = pytest.mark.servers

YAML = """
sources:
  shop: {type: postgres, dsn: "host=127.0.0.1 port=1 password=${PW}"}
topics: {db.users: {partitions: 2}}
sinks:
  warehouse: {type: postgres, dsn: "host=127.0.0.1 port=1 password=${PW}", topics: ["db.*"]}
"""


@pytest.fixture
def control(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningControl]:
    nats = NatsSpec(url=(nats_server.url,))
    empty_bucket(nats)
    with RunningControl(nats, {"PW": "tops3cret"}) as running:
        monkeypatch.setenv("WAXTAP_SERVER", f"127.0.0.1:{running.port}")
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "waxtap.yaml"
    path.write_text(YAML)
    return path


def test_a_file_is_planned_applied_and_looked_at(
    control: RunningControl, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "-f", str(file)]) == OK
    text = capsys.readouterr().out
    for line in ("create sources/shop", "starts flows/deliver/warehouse", "+partitions: 2"):
        assert line in text
    assert run(["plan", "-f", str(file), "-o", "json"]) == OK
    digest = json.loads(capsys.readouterr().out)["hash"]
    assert run(["apply", "-f", str(file), "--hash", digest]) == OK
    assert "applied as revision" in capsys.readouterr().out
    assert run(["apply", "-f", str(file), "--hash", digest]) == FAILED

    assert run(["list", "sources"]) == OK
    assert "sources/shop  postgres" in capsys.readouterr().out
    assert run(["list", "sinks", "-o", "yaml"]) == OK
    (sink,) = yaml.safe_load(capsys.readouterr().out)
    assert sink["postgres"]["dsn"] == "host=127.0.0.1 port=1 password=${PW}"
    assert run(["get", "topics/db.users", "-o", "json"]) == OK
    assert json.loads(capsys.readouterr().out)["partitions"] == 2
    assert run(["list", "revisions"]) == OK
    assert "sinks/warehouse" in capsys.readouterr().out

    first = control.store.read().revision
    file.write_text(YAML.replace("partitions: 2", "partitions: 3"))
    assert run(["apply", "-f", str(file)]) == OK
    assert run(["rollback", str(first)]) == WRONG_INPUT
    assert run(["rollback", "9999", "--yes"]) == WRONG_INPUT
    capsys.readouterr()
    assert run(["rollback", str(first), "--yes"]) == OK
    assert "rolled back, as revision" in capsys.readouterr().out
    assert control.store.read().tree["topics"] == {"db.users": {"partitions": 2}}

    assert run(["check"]) == FAILED
    told = capsys.readouterr().out
    assert "sources/shop: cannot run" in told
    assert "[postgres.unreachable]" in told

    assert run(["delete", "sources/shop"]) == WRONG_INPUT
    empty = file.with_name("empty.yaml")
    empty.write_text("")
    assert run(["plan", "-f", str(empty)]) == OK
    assert (
        "leaves of sources/shop: slot waxtap_shop, publication waxtap_shop"
        in capsys.readouterr().out
    )
    drop = ["--server-objects", "keep", "--stream", "drop"]
    assert run(["delete", "sources/shop", *drop]) == OK
    assert run(["delete", "topics/db.users"]) == OK
    assert run(["delete", "topics/db.users"]) == WRONG_INPUT
    assert list(control.store.read().tree) == ["sinks"]
    file.write_text("")
    assert run(["apply", "-f", str(file)]) == WRONG_INPUT
    assert run(["apply", "-f", str(file), "--yes"]) == OK
    assert control.store.read().tree == {}
    captured = capsys.readouterr()
    assert "tops3cret" not in captured.out + captured.err


def test_wrong_input_and_a_service_that_is_away_are_told_apart(
    control: RunningControl, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(YAML.replace("partitions: 2", "partitions: 0"))
    assert run(["plan", "-f", str(file)]) == WRONG_INPUT
    assert "topics.db.users.partitions" in capsys.readouterr().err
    assert run(["plan", "-f", "/no/such/file"]) == WRONG_INPUT
    assert run(["get", "shop"]) == WRONG_INPUT
    away = ["--server", f"127.0.0.1:{free_port()}"]
    assert run(["list", "sinks", *away]) == NO_ENVIRONMENT
    assert "waxtap serve" in capsys.readouterr().err


def test_a_token_is_not_sent_unencrypted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WAXTAP_TOKEN", "tops3cret")
    assert run(["list", "sinks", "--server", "control.example.com:7443"]) == WRONG_INPUT
    assert "tops3cret" not in capsys.readouterr().err


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--nats-url", "nats://x:1", "--listen", "0.0.0.0:0"], "--cert and --key for TLS"),
        (["--nats-url", "nats://x:1", "--callers", "/no/such/file"], "/no/such/file"),
        (["--nats-url", "nats://x:1", "--config", "waxtap.yaml"], "either --config"),
        (["--nats-url", "nats://x:1", "--metrics", "0.0.0.0:0"], "--open-metrics"),
        (["--config", "/no/such/file"], "/no/such/file"),
        (["--nats-url", "http://x"], "nats://host:port"),
    ],
)
def test_a_service_that_cannot_be_started_as_told_says_so_in_one_line(
    options: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(["serve", "--state", str(tmp_path / "state"), *options])
    assert status == WRONG_INPUT
    assert word in capsys.readouterr().err


@pytest.mark.timeout(60)
def test_an_address_that_is_in_use_is_told(
    control: RunningControl,
    nats_server: NatsServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--nats-url", nats_server.url, "--listen", f"127.0.0.1:{control.port}"]
    assert run(["serve", "--state", str(tmp_path / "state"), *options]) == WRONG_INPUT
    assert "cannot be listened on" in capsys.readouterr().err


def test_a_service_ends_in_order(nats_server: NatsServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    port = free_port()
    command = [
        sys.executable, "-m", "control.server", "--nats-url", nats_server.url,
        "--state", str(tmp_path / "state"), "--listen", f"127.0.0.1:{port}",
    ]  # fmt: skip
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as service:
        try:
            while b"flows can run" not in log.read_bytes().replace(b"cannot run", b""):
                assert service.poll() is None, log.read_text()
                with pytest.raises(subprocess.TimeoutExpired):
                    service.wait(0.1)
            assert run(["list", "topics", "--server", f"127.0.0.1:{port}"]) == OK
            service.send_signal(signal.SIGTERM)
            assert service.wait(30) == 0
        finally:
            service.kill()
    assert "control service ends" in log.read_text()
