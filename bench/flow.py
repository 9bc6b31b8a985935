"""The product's flows, run as a user runs them: `python -m bytewax.run dataflows.main`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.backlog import PUBLICATION, TABLE
from bench.process import MeasuredProcess

SOURCE = "bench"
STREAM = f"CDC_{SOURCE}"
# The messages of changes: checkpoints and the like lie under other subjects.
CHANGES = f"CDC.{SOURCE}.db.>"
_ROOT = Path(__file__).parents[1]


def start(
    flow: str,
    folder: Path,
    configuration: Mapping[str, object],
    secrets: Mapping[str, str] | None = None,
) -> MeasuredProcess:
    """Start one flow in a process of its own.

    Args:
        flow: Such as `capture/bench`.
        folder: For the configuration and the log; made where it is missing.
        configuration: What `waxtap.yaml` says.
        secrets: Variables of the environment that it names.
    """
    folder.mkdir(exist_ok=True)
    file = folder / "waxtap.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(configuration, indent=2))
    return MeasuredProcess(
        flow,
        [sys.executable, "-m", "bytewax.run", "dataflows.main"],
        log=folder / f"{flow.replace('/', '-')}.log",
        environment={
            "PYTHONPATH": str(_ROOT),
            "WAXTAP_CONFIG": str(file),
            "WAXTAP_FLOW": flow,
            **(secrets or {}),
        },
        folder=folder,
    )


@dataclass(frozen=True, slots=True)
class Setup:
    """What a flow is connected to.

    Attributes:
        folder: For the configuration and the logs.
        nats_url: Of the NATS server.
        source_dsn: Of the source database.
        target_dsn: Of the target database.
        slot: The slot to capture from; it must exist.
        endpoint: The URL that webhooks go to; empty: there are none.
        elasticsearch: The URL of a node; empty: there is none.
        snapshot: As in the source's configuration.
    """

    folder: Path
    nats_url: str
    source_dsn: str
    target_dsn: str
    slot: str
    endpoint: str = ""
    elasticsearch: str = ""
    snapshot: str = "never"

    def start(self, flow: str) -> MeasuredProcess:
        """Start one flow, such as `capture/bench`, in a process of its own."""
        secrets = {"BENCH_DSN": self.source_dsn, "TARGET_DSN": self.target_dsn}
        return start(flow, self.folder, self._configuration(), secrets)

    def _configuration(self) -> dict[str, object]:
        return {
            "nats": {"url": self.nats_url},
            "sources": {
                SOURCE: {
                    "type": "postgres",
                    "dsn": "${BENCH_DSN}",
                    "tables": [f"public.{TABLE}"],
                    "publication": PUBLICATION,
                    "slot": self.slot,
                    "create": False,
                    "snapshot": self.snapshot,
                }
            },
            "sinks": {
                "target": {"type": "postgres", "dsn": "${TARGET_DSN}", "topics": ["db.*"]},
                **self._webhooks(),
                **self._search(),
            },
        }

    def _search(self) -> dict[str, object]:
        if not self.elasticsearch:
            return {}
        settings = {"number_of_replicas": 0}
        sink = {"type": "elasticsearch", "url": self.elasticsearch, "settings": settings}
        return {"search": {**sink, "topics": ["db.*"]}}

    def _webhooks(self) -> dict[str, object]:
        if not self.endpoint:
            return {}
        common = {
            "type": "webhook",
            "topics": ["db.*"],
            "url": self.endpoint,
            "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
            "allow_http": True,
            "allow_private": ["127.0.0.1/32"],
        }
        return {"hook": common, "hooks": common | {"body": "list"}}
