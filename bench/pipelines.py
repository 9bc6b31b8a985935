"""What pipelines cost: the backlog's changes, as the source reads them, through each kind."""

from __future__ import annotations

import time
from contextlib import closing

from bench.backlog import PUBLICATION, TABLE, Backlog
from bench.errors import FailedError
from bench.fleet import Fleet
from bench.settings import Settings
from connectors.contracts.source import Chunk
from connectors.jetstream.stream import StreamClaim
from connectors.postgres.source import PostgresSource
from connectors.postgres.spec import SourceSpec
from dataflows.memory.remember import Remembering, stateful_pipelines
from dataflows.pipeline import Captured, pipelines_of
from dataflows.spec import parse
from dataflows.transforms.change_view import ChangeView

_SOURCE = "bench"
_SALT = "a salt of thirty-two characters "
_CLAIM = StreamClaim(f"CDC_{_SOURCE}", _SOURCE, "", "", 0, 0, 0.0, None)
# A pipeline is timed over so many changes, a few times over.
_CHANGES = 20_000
_ROUNDS = 5

_PIPELINES: dict[str, dict[str, object]] = {
    "pipeline_none_us": {},
    "pipeline_filter_us": {"filter": "op != 'd' && after.title != ''"},
    "pipeline_mask_rename_us": {
        "transform": [
            {"mask": {"fields": ["title"], "with": "sha256", "salt": _SALT}},
            {"rename": {"fields": {"price": "amount"}}},
        ]
    },
    "pipeline_python_us": {"transform": [{"python": f"{__name__}:untouched"}]},
    "pipeline_dedupe_us": {"dedupe": {"fields": ["title", "price"]}},
}


def untouched(change: ChangeView) -> ChangeView:
    """The Python transform that is timed: what is measured is the way into it and back."""
    return change


def run(fleet: Fleet, backlog: Backlog, settings: Settings, number: int) -> dict[str, float]:
    """CPU time of each pipeline for a change, in microseconds; the best of some rounds.

    Raises:
        FailedError: A pipeline did not let every change through.
    """
    chunks = _chunks(backlog, settings, f"bench_pipelines_{number}")
    figures = {}
    for key, pipeline in _PIPELINES.items():
        config = parse(
            {
                "nats": {},
                "sources": {_SOURCE: {"type": "postgres", "dsn": "host=unused"}},
                # Every source has its default routing until it has a pipeline.
                "pipelines": {"timed": pipeline} if pipeline else {},
                "python_transforms": [f"{__name__}:*"],
            },
            {},
        )
        pipelines = pipelines_of(config, _SOURCE)
        stateful = {_SOURCE: stateful_pipelines(config, _SOURCE)}
        best = float("inf")
        for _ in range(_ROUNDS):
            remembering = Remembering(stateful, None)
            started = time.thread_time()
            made = [pipelines.apply(Captured(_CLAIM, chunk)) for chunk in chunks]
            if stateful[_SOURCE]:
                made, _ = remembering.on_batch(made)
            best = min(best, time.thread_time() - started)
        changes = sum(len(chunk.changes) for chunk in chunks)
        if any(one.failed for routed in made for _, one in routed.messages) or changes != sum(
            len(routed.messages) for routed in made
        ):
            raise FailedError(f"{key}: a change did not come through")
        figures[key] = best / changes * 1e6
    return figures


def _chunks(backlog: Backlog, settings: Settings, slot: str) -> list[Chunk]:
    """The beginning of the backlog, as the source reads it."""
    wanted = min(_CHANGES, backlog.changes)
    deadline = time.monotonic() + settings.timeout_seconds
    chunks: list[Chunk] = []
    with backlog.slot(slot):
        spec = SourceSpec.model_validate(
            {
                "type": "postgres",
                "dsn": backlog.dsn,
                "tables": [f"public.{TABLE}"],
                "publication": PUBLICATION,
                "slot": slot,
                "create": False,
            }
        )
        with closing(PostgresSource(_SOURCE, spec, ()).open(None)) as reader:
            while sum(len(chunk.changes) for chunk in chunks) < wanted:
                if time.monotonic() > deadline:
                    raise FailedError(f"the source did not read {wanted} changes")
                if (chunk := reader.read()) is not None and chunk.changes:
                    chunks.append(chunk)
    return chunks
