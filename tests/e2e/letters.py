"""Dead letters as an operator sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from connectors.jetstream import letter_index
from connectors.jetstream.connection import connect
from connectors.jetstream.spec import NatsSpec

if TYPE_CHECKING:
    from tests.e2e.deployment import Deployment


def waxtap(deployment: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as an operator would."""
    return subprocess.run(
        [sys.executable, "-c", "from control.cli.app import main; main()", "dlq", *arguments],
        env=deployment.environment(""),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def letters(deployment: Deployment, *arguments: str) -> list[dict[str, object]]:
    done = waxtap(deployment, "list", "-o", "json", "--limit", "100000", *arguments)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def held(deployment: Deployment) -> int:
    """How many letters there are; quicker than to ask by the command line."""
    with connect(NatsSpec(url=(deployment.nats.url,))) as connection:
        return sum(1 for _ in letter_index.heads(connection))


def replayed(deployment: Deployment, *arguments: str) -> dict[str, object]:
    done = waxtap(deployment, "replay", "-o", "json", "--wait", "120", *arguments)
    assert done.returncode in (0, 1), done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told
