from __future__ import annotations

import pickle

from connectors.contracts.changes import Change, Failure
from connectors.contracts.source import Checkpoint
from connectors.jetstream.stream import StreamClaim
from dataflows.memory.options import DedupeSpec, SampleSpec, StatefulSpec
from dataflows.memory.remember import Remembering, name_of, stateful_pipelines
from dataflows.pipeline import Routed
from dataflows.spec import parse
from tests.unit.rows import SUBJECT, change

CLAIM = StreamClaim("CDC_shop", "shop", "2026-01-01T00:00:00Z", "w", 1, 0, 0.0, None)
SPECS = {
    "shop": {
        "some": StatefulSpec(dedupe=DedupeSpec(fields=("name",))),
        "all": StatefulSpec(dedupe=DedupeSpec()),
    }
}


def update(number: int, key: int, name: str, transaction: str, *, last: bool = False) -> Change:
    made = change("u", number, {"id": key, "name": name, "seen": number})
    return made._replace(transaction=transaction, last=last)


def chunk(*messages: tuple[str, Change], lineage: str = "one", past: bool = False) -> Routed:
    return Routed(
        CLAIM,
        [(SUBJECT, each) for _, each in messages],
        Checkpoint("9", {}),
        {},
        [maker for maker, _ in messages],
        [each for _, each in messages],
        lineage,
        past,
    )


def stored(steps: Remembering, routed: Routed) -> list[tuple[int, bool]]:
    """Number and mark of the changes that are kept."""
    (kept,), _ = steps.on_batch([routed])
    return [(int(each.position[:16], 16), each.last) for _, each in kept.messages]


def test_the_mark_of_a_transaction_goes_to_the_last_message_that_is_left_of_it() -> None:
    steps = Remembering(SPECS, None)
    chunked = chunk(
        ("some", update(1, 1, "a", "7")),
        ("some", update(2, 2, "a", "7")),
        ("some", update(3, 1, "a", "7", last=True)),
        ("some", update(4, 2, "a", "8", last=True)),
        ("some", update(5, 3, "a", "9", last=True)),
    )
    assert stored(steps, chunked) == [(1, False), (2, True), (5, True)]
    # Nothing is left that could carry it.
    assert stored(steps, chunk(("some", update(6, 1, "a", "10", last=True)))) == []


def test_each_pipeline_has_a_memory_of_its_own_and_the_others_pass() -> None:
    steps = Remembering(SPECS, None)
    for number, expected in ((1, ["some", "all", "none"]), (2, ["all", "none"])):
        each = update(number, 1, "a", "7")
        (kept,), _ = steps.on_batch([chunk(("some", each), ("all", each), ("none", each))])
        assert len(kept.messages) == len(expected)


def test_a_chunk_without_messages_passes_and_leaves_the_snapshot_as_it_is() -> None:
    steps = Remembering(SPECS, None)
    stored(steps, chunk(("some", update(1, 1, "a", "7"))))
    before = steps.snapshot()
    empty = chunk()
    assert steps.on_batch([empty]) == ([empty], Remembering.RETAIN)
    assert steps.snapshot() is before


def test_a_snapshot_is_plain_and_goes_on_where_it_was_taken() -> None:
    steps = Remembering(SPECS, None)
    stored(steps, chunk(("some", update(1, 1, "a", "7"))))
    state = pickle.loads(pickle.dumps(steps.snapshot()))  # noqa: S301 - our own
    assert b"dataflows" not in pickle.dumps(state)
    later = Remembering(SPECS, state)
    assert later.snapshot() == state
    assert stored(later, chunk(("some", update(2, 1, "a", "8")))) == []


def test_a_memory_of_another_lineage_or_version_is_forgotten() -> None:
    steps = Remembering(SPECS, None)
    stored(steps, chunk(("some", update(1, 1, "a", "7"))))
    state = steps.snapshot()
    assert state is not None
    again = chunk(("some", update(2, 1, "a", "8")), lineage="two")
    assert stored(steps, again) == [(2, False)]
    assert stored(Remembering(SPECS, state), again) == [(2, False)]
    newer = (state[0] + 1, *state[1:])
    assert stored(Remembering(SPECS, newer), chunk(("some", update(2, 1, "a", "8"))))


def test_what_is_past_is_remembered_and_goes_no_further() -> None:
    steps = Remembering(SPECS, None)
    assert steps.on_batch([chunk(("some", update(1, 1, "a", "7")), past=True)])[0] == []
    assert stored(steps, chunk(("some", update(2, 1, "a", "8")))) == []
    assert stored(steps, chunk(("some", update(3, 1, "b", "9")))) == [(3, False)]


def test_a_dead_letter_passes_with_the_mark_it_had() -> None:
    steps = Remembering(SPECS, None)
    failed = update(1, 1, "a", "7", last=True)._replace(
        failed=Failure("some", "filter.no_such_field", "no field").encoded
    )
    assert stored(steps, chunk(("some", failed))) == [(1, True)]


def test_pipelines_are_told_apart_by_everything_they_do() -> None:
    def named(**pipeline: object) -> str:
        tree = {
            "nats": {"url": "nats://127.0.0.1:4222"},
            "sources": {
                name: {"type": "postgres", "dsn": "host=127.0.0.1"} for name in ("shop", "crm")
            },
            "pipelines": {
                "users": {"dedupe": {"fields": ["name"]}, **pipeline},
                "plain": {"from": ["shop"]},
            },
        }
        found = stateful_pipelines(parse(tree, {}), "shop")
        assert "plain" not in found
        return name_of(found)

    names = [
        named(),
        named(filter="op != 'd'"),
        named(transform=[{"drop": {"fields": ["seen"]}}]),
        named(dedupe={"fields": ["id"]}),
        named(dedupe={"fields": ["name"], "keys": 7}),
        named(sample={"share": 0.5}),
        named(topic="x"),
        named(**{"from": ["crm"]}),
    ]
    assert len(set(names)) == len(names)
    assert names[0] == named()
    assert StatefulSpec(sample=SampleSpec(every=2)).stateful
