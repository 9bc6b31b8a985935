"""`make demo` as a user runs it, with a short run: it agrees, it is interrupted, a child dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from control.servers.mariadb import find_mariadb
from control.servers.nats import find_nats_server
from control.servers.pidfile import ProcessIdentity, descendants
from control.servers.postgres_programs import find_programs
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.servers, pytest.mark.slow]

_ROOT = Path(__file__).parents[2]
_READY = "both flows run"


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """The demo's folder for temporary files, which it must leave empty."""
    obtain("postgres", find_programs, "postgresql")
    obtain("nats", find_nats_server)
    # PostgreSQL's own user has to be able to enter it, which pytest's folders do not allow.
    folder = Path(f"/tmp/waxtap-test-{os.getpid()}-{tmp_path.name}")  # noqa: S108
    folder.mkdir(mode=0o711)
    yield folder
    left = list(folder.iterdir())
    shutil.rmtree(folder)
    assert left == []


def start(temporary: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "control.demo"],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(temporary), "DEMO_SECONDS": "3", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(demo: subprocess.Popen[str], words: str) -> str:
    """Everything up to the line that holds `words`."""
    assert demo.stdout
    seen = []
    for line in demo.stdout:
        seen.append(line)
        if words in line:
            return "".join(seen)
    pytest.fail(f"{words!r} was never said:\n{''.join(seen)}")


def runs(process: ProcessIdentity, flow: str) -> bool:
    try:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # one of PostgreSQL's short-lived processes
        return False
    return f"WAXTAP_FLOW={flow}".encode() in environment.split(b"\0")


def assert_gone(processes: list[ProcessIdentity]) -> None:
    deadline = time.monotonic() + 10
    while any(process.alive() for process in processes):
        assert time.monotonic() < deadline, "the demo left processes behind"
        time.sleep(0.01)


def test_source_and_target_agree(temporary: Path) -> None:
    with start(temporary) as demo:
        output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    assert "source and target agree: " in output
    assert " rows in 5 tables" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_everything(temporary: Path, number: signal.Signals) -> None:
    with start(temporary, DEMO_SECONDS="100") as demo:
        read_until(demo, _READY)
        family = descendants(demo.pid)
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 128 + number, output
    assert len(family) > 4
    assert_gone(family)


def test_keep_goes_on_until_it_is_interrupted(temporary: Path) -> None:
    with start(temporary, DEMO_SECONDS="1", KEEP="1") as demo:
        said = read_until(demo, "files")
        assert "nats://127.0.0.1:" in said
        assert "dbname=warehouse" in said
        family = descendants(demo.pid)
        assert len(family) > 4
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, said + output
    assert_gone(family)


def test_a_child_that_dies_is_told(temporary: Path) -> None:
    with start(temporary, DEMO_SECONDS="100") as demo:
        read_until(demo, _READY)
        family = descendants(demo.pid)
        (flow,) = [process for process in family if runs(process, "deliver/warehouse")]
        flow.signal(signal.SIGKILL)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1, output
    assert "deliver/warehouse ended by itself with status -9" in output
    assert_gone(family)


def test_mariadb_as_the_source(temporary: Path) -> None:
    obtain("mariadb", find_mariadb, "mariadb-server-core")
    with start(temporary, DEMO_SOURCE="mariadb") as demo:
        output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    assert "source: MariaDB" in output
    assert "source and target agree: " in output


def test_an_api_as_the_source(temporary: Path) -> None:
    with start(temporary, DEMO_SOURCE="rest") as demo:
        output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    assert "source: an API" in output
    assert "source and target agree: " in output
