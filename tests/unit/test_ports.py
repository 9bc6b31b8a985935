"""Ports that are given to one process only."""

from __future__ import annotations

import subprocess
import sys

TAKE = """
import sys
from control.servers import ports
if len(sys.argv) > 1:
    ports._RANGE = range(int(sys.argv[1]), int(sys.argv[1]) + 1)
print(ports.free_port(), flush=True)
sys.stdin.read()
"""


def take(port: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", TAKE, port]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_a_port_nobody_listens_on_is_its_owners_until_that_ends() -> None:
    command = [sys.executable, "-c", TAKE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        port = owner.stdout.readline().strip()
        assert "no free port" in take(port).stderr
        owner.communicate()
    assert take(port).stdout.strip() == port
