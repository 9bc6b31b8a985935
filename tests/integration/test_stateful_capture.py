"""The memory of the stateful steps and the stream, against a real NATS server.

The capture flow's steps are called as Bytewax calls them, so that a crash can be put between any
two of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from connectors import registry
from connectors.contracts.source import Checkpoint, Chunk
from connectors.errors import FencedError, GapError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.spec import NatsSpec
from connectors.jetstream.stream import open_stream
from connectors.postgres.spec import SourceSpec
from dataflows.capture import CaptureSource, StreamSink
from dataflows.memory import continuity
from dataflows.memory.remember import Remembering, name_of, stateful_pipelines
from dataflows.pipeline import pipelines_of
from dataflows.spec import SourceConfig, parse
from tests.e2e.verify_stream import read_stream
from tests.unit.rows import change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import Change
    from connectors.errors import WaxtapError
    from connectors.jetstream.stream import PublisherState
    from control.servers.nats import NatsServer
    from dataflows.memory.continuity import InputState
    from dataflows.memory.remember import State
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers
SPEC = SourceSpec.model_validate({"type": "postgres", "dsn": "host=127.0.0.1"})
SOURCES = {"shop": SourceConfig("shop", "postgres", SPEC, ())}


class Log:
    """A source whose log is a list of changes; what lies before the place it starts from goes.

    Attributes:
        changes: The log.
        kept: The position from which it is kept.
        size: Of a chunk.
    """

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.kept, self.size = "", 1

    def open(self, resume: Checkpoint | None) -> LogReader:
        checkpoint = resume or Checkpoint("", {"at": ""})
        if checkpoint.position < self.kept:
            raise GapError("log.gone", f"nothing before {self.kept}")
        self.kept = checkpoint.position
        return LogReader(self, checkpoint)

    def check(self) -> list[WaxtapError]:
        return []

    def owned(self) -> list[str]:
        return []

    def drop(self) -> list[str]:
        return []

    def write(self, *values: str) -> None:
        """Row 1 gets these values, one after the other."""
        for value in values:
            number = len(self.changes) + 1
            row = {"id": 1, "name": value, "seen": number}
            self.changes.append(change("u", number, row))


class LogReader:
    def __init__(self, log: Log, checkpoint: Checkpoint) -> None:
        self._log, self._checkpoint = log, checkpoint

    def read(self) -> Chunk | None:
        rest = [c for c in self._log.changes if c.position > self._checkpoint.position]
        if not rest:
            return None
        part = rest[: self._log.size]
        resume = self._checkpoint.state
        self._checkpoint = Checkpoint(part[-1].position, {"at": part[-1].position})
        return Chunk("shop", part, self._checkpoint, resume)

    def confirm(self, checkpoint: Checkpoint) -> None:
        self._log.kept = max(self._log.kept, checkpoint.position)

    def close(self) -> None:
        pass


class Recovery:
    """What Bytewax's recovery holds: the snapshots of the last complete epoch."""

    source: InputState | None = None
    steps: State | None = None
    stream: PublisherState | None = None


class Flow:
    """A running capture flow."""

    def __init__(self, nats: NatsSpec, recovery: Recovery, fields: Sequence[str]) -> None:
        tree = {
            "nats": {"url": nats.url[0]},
            "sources": {"shop": {"type": "postgres", "dsn": "host=127.0.0.1"}},
            "pipelines": {"users": {"dedupe": {"fields": list(fields)}}},
        }
        config = parse(tree, {})
        stateful = {"shop": stateful_pipelines(config, "shop")}
        names = {"shop": name_of(stateful["shop"])}
        self._recovery = recovery
        self._pipelines = pipelines_of(config, "shop")
        self._steps = Remembering(stateful, recovery.steps)
        capture = CaptureSource(nats, SOURCES, names)
        self._source = capture.build_part("capture", "shop", recovery.source)
        stream = StreamSink(nats, SOURCES)
        self._stream = stream.build_part("publish", "CDC_shop", recovery.stream)
        self.emitted = self.past = 0

    def run(self, batches: int = 12) -> None:
        """Go on for so many calls of the source."""
        for _ in range(batches):
            routed = [self._pipelines.apply(one) for one in self._source.next_batch()]
            for one in routed:
                self.past += len(one.messages) * one.past
                self.emitted += len(one.messages) * (not one.past)
            kept, _ = self._steps.on_batch(routed)
            self._stream.write_batch(list(kept))

    def end_epoch(self) -> None:
        """Take the snapshots, and let recovery hold them."""
        source, steps, stream = (
            self._source.snapshot(),
            self._steps.snapshot(),
            self._stream.snapshot(),
        )
        recovery = self._recovery
        recovery.source, recovery.steps, recovery.stream = source, steps, stream

    def crash(self) -> None:
        """End, with everything stored that was written."""
        self._stream.snapshot()
        self._stream.close()
        self._source.close()


@pytest.fixture
def server(nats_factory: NatsFactory) -> NatsServer:
    return nats_factory()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    monkeypatch.setattr(registry, "source", lambda *_: made)
    return made


class Site:
    """A source's log, its stream, and the recovery of its flow."""

    def __init__(self, server: NatsServer, log: Log) -> None:
        self.nats, self.log, self.recovery = NatsSpec(url=(server.url,)), log, Recovery()

    def start(self, fields: Sequence[str] = ("name",)) -> Flow:
        return Flow(self.nats, self.recovery, fields)

    @property
    def lineage(self) -> str:
        assert self.recovery.source is not None
        assert self.recovery.steps is not None
        assert self.recovery.source["lineage"] == self.recovery.steps[1]
        return self.recovery.source["lineage"]

    def stored(self) -> list[int]:
        """Which changes of the log the stream holds, counted from 1."""
        found = [int(one.position[:16], 16) for one in read_stream(self.nats.url[0])]
        assert found == sorted(set(found))
        return found


@pytest.fixture
def site(server: NatsServer, log: Log) -> Site:
    return Site(server, log)


def behind(site: Site) -> Flow:
    """A flow whose stream has stored b, c, c while its memory says a; then a comes again."""
    site.log.write("a", "a")
    flow = site.start()
    flow.run()
    flow.end_epoch()
    site.log.write("b", "c", "c")
    flow.run()
    flow.crash()
    assert site.stored() == [1, 3, 4]
    site.log.write("a", "a")
    return site.start()


def finish(flow: Flow) -> None:
    """Run to the end of the log, epoch by epoch."""
    for _ in range(4):
        flow.run()
        flow.end_epoch()
    flow.crash()


def test_a_row_that_has_changed_there_and_back_behind_the_memory_is_stored(site: Site) -> None:
    flow, lineage = behind(site), site.lineage
    finish(flow)
    assert site.stored() == [1, 3, 4, 6]
    assert (flow.past, flow.emitted) == (3, 2)
    assert site.lineage == lineage


def test_a_chunk_that_goes_beyond_the_stream_is_cut_there(site: Site) -> None:
    flow = behind(site)
    site.log.size = 100
    finish(flow)
    assert site.stored() == [1, 3, 4, 6]
    assert (flow.past, flow.emitted) == (3, 2)


def test_a_memory_can_be_brought_up_again_after_another_crash_on_the_way(site: Site) -> None:
    flow, lineage = behind(site), site.lineage
    flow.run(2)
    flow.end_epoch()
    flow.crash()
    flow = site.start()
    flow.run()
    # Nothing was let go of that recovery does not hold, however far the flow has come.
    flow.crash()
    finish(site.start())
    assert site.stored() == [1, 3, 4, 6]
    assert site.lineage == lineage


def test_without_recovery_the_next_change_of_each_row_is_kept(site: Site) -> None:
    behind(site).crash()
    site.recovery = Recovery()
    site.log.write("c", "c")
    flow = site.start()
    finish(flow)
    assert site.stored() == [1, 3, 4, 6, 8]
    assert flow.past == 0


def test_a_memory_whose_log_is_gone_is_forgotten(site: Site) -> None:
    flow = behind(site)
    site.log.kept = site.log.changes[4].position
    site.log.write("a")
    finish(flow)
    assert site.stored() == [1, 3, 4, 6]
    assert flow.past == 0


def test_a_memory_is_forgotten_when_what_the_stream_holds_does_not_come_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuity, "_PATIENCE", 0.0)
    flow = behind(site)
    hidden = site.log.changes[2:]
    del site.log.changes[2:]
    flow.run()
    site.log.changes += hidden
    finish(flow)
    assert site.stored() == [1, 3, 4, 6]


def test_a_memory_of_other_steps_is_forgotten(site: Site) -> None:
    behind(site).crash()
    flow = site.start(fields=("name", "id"))
    finish(flow)
    assert site.stored() == [1, 3, 4, 6]
    assert flow.past == 0


def test_a_memory_of_a_stream_that_was_made_anew_is_forgotten(site: Site) -> None:
    site.log.write("a", "a")
    finish(site.start())
    site.recovery.stream = None
    with connect(site.nats) as connection:
        api.call(connection, "STREAM.DELETE.CDC_shop", None, api.Refusal)
    site.log.kept = ""
    finish(site.start())
    assert site.stored() == [1]


def test_a_flow_that_is_taken_over_while_it_catches_up_ends(site: Site) -> None:
    flow = behind(site)
    flow.run(2)
    open_stream(site.nats, "shop")
    with pytest.raises(FencedError):
        finish(flow)
    assert site.stored() == [1, 3, 4]


def test_a_stretch_of_which_nothing_is_kept_stores_a_checkpoint_an_epoch(site: Site) -> None:
    site.log.write("a")
    flow = site.start()
    flow.run()
    flow.end_epoch()
    flow.crash()
    before = open_stream(site.nats, "shop")[0].base
    assert before == 2
    flow = site.start()
    site.log.write(*"aaaaaaaaaa")
    flow.run(20)
    flow.end_epoch()
    claim, checkpoint = open_stream(site.nats, "shop")
    assert checkpoint is not None
    assert checkpoint.position == site.log.changes[-1].position
    # A marker at the start, and one checkpoint.
    assert claim.base - before == 3
    flow.crash()
