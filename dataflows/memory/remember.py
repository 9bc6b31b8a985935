"""The capture dataflow's stateful step: what the pipelines' dedupe, sample and throttle let pass.

What flows stays a chunk, and the key is its stream: order and checkpoints are as they would be
without the step, which only takes messages out. One key means one worker for the steps of a source,
and one snapshot an epoch.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

from bytewax.operators import StatefulBatchLogic
from typing_extensions import override

from dataflows.memory.steps import EMPTY, PackedSteps, StatefulSteps
from dataflows.pipeline import Routed
from dataflows.reporting import remembering

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.contracts.changes import Change
    from dataflows.memory.options import StatefulSpec
    from dataflows.spec import Config

# Version, lineage, and what the steps of each pipeline remember.
State: TypeAlias = tuple[int, str, tuple[tuple[str, PackedSteps], ...]]

_VERSION = 1


def stateful_pipelines(config: Config, source: str) -> dict[str, StatefulSpec]:
    """The pipelines of a source that have stateful steps, by name."""
    return {
        name: spec
        for name, spec in config.pipelines.items()
        if spec.stateful and source in (spec.sources or config.sources)
    }


def name_of(specs: Mapping[str, StatefulSpec]) -> str:
    """A hash of the pipelines: a memory that was made by others is not gone on with."""
    text = "\n".join(f"{name} {spec.model_dump_json()}" for name, spec in specs.items())
    return blake2b(text.encode(), digest_size=8).hexdigest()


class Remembering(StatefulBatchLogic[Routed, Routed, "State | None"]):
    """Takes out of one source's chunks what its stateful steps drop.

    Args:
        specs: The stateful pipelines of each source.
        state: From an earlier run.
    """

    def __init__(
        self, specs: Mapping[str, Mapping[str, StatefulSpec]], state: State | None
    ) -> None:
        self._specs = specs
        self._state = state if state is not None and state[0] == _VERSION else None
        self._lineage = self._state[1] if self._state else ""
        self._steps: dict[str, StatefulSteps] | None = None

    @override
    @remembering
    def on_batch(self, values: list[Routed]) -> tuple[list[Routed], bool]:
        return [kept for routed in values if (kept := self._judged(routed))], self.RETAIN

    @override
    @remembering
    def snapshot(self) -> State | None:
        if self._steps is not None and self._state is None:
            packed = tuple((name, steps.pack()) for name, steps in self._steps.items())
            self._state = _VERSION, self._lineage, packed
        return self._state

    def _judged(self, routed: Routed) -> Routed | None:
        """What is to be stored of a chunk; None: the stream stands behind it already."""
        steps = self._of(routed)
        if routed.makers:
            self._state = None
            routed.messages = _kept(routed, steps)
        return None if routed.past else routed

    def _of(self, routed: Routed) -> dict[str, StatefulSteps]:
        """The steps of a source, with the memory that the chunk belongs to."""
        if self._steps is None or routed.lineage != self._lineage:
            if routed.lineage != self._lineage:
                self._lineage, self._state = routed.lineage, None
            known = dict(self._state[2]) if self._state else {}
            specs = self._specs.get(routed.claim.source, {})
            self._steps = {
                name: StatefulSteps(name, spec, known.get(name, EMPTY))
                for name, spec in specs.items()
            }
        return self._steps


def _kept(routed: Routed, steps: Mapping[str, StatefulSteps]) -> list[tuple[str, Change]]:
    """The messages that all steps keep; the last one of a transaction carries its mark."""
    kept: list[tuple[str, Change]] = []
    for message, maker, origin in zip(routed.messages, routed.makers, routed.origins, strict=True):
        subject, change = message
        its = steps.get(maker)
        if its is None or its.keeps(subject, change, origin, past=routed.past):
            kept.append(message)
        elif change.last and kept and change.transaction == kept[-1][1].transaction:
            before, last = kept[-1]
            kept[-1] = before, last._replace(last=True)
    return kept
