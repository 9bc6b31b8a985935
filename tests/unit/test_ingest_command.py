"""`waxtap ingest`, as far as it gets without a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from connectors.errors import ConfigError, RetryableError
from control.cli.ingest import ingest
from control.servers.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from connectors.errors import WaxtapError


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "waxtap.yaml"
    sources = {
        "shop": {"type": "postgres", "dsn": "dbname=shop"},
        "hooks": {"type": "webhook", "verify": "none", "listen": "127.0.0.1:0"},
    }
    nats = {"url": f"nats://127.0.0.1:{free_port()}"}
    path.write_text(json.dumps({"nats": nats, "sources": sources}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("source", "kind", "told"),
    [
        ("other", ConfigError, "known: shop, hooks"),
        ("shop", ConfigError, "takes no requests"),
        ("hooks", RetryableError, "nats://127.0.0.1"),
    ],
)
def test_what_cannot_listen_is_told(
    configuration: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    kind: type[WaxtapError],
    told: str,
) -> None:
    # Signals are the business of the test run.
    monkeypatch.setattr("dataflows.stopping.install", lambda: None)
    with pytest.raises(kind) as caught:
        ingest(source=source, config=configuration)
    assert told in str(caught.value)
