from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from connectors.contracts.changes import UNAVAILABLE, Failure, UnwrappedChange
from dataflows.memory.options import DedupeSpec, SampleSpec, StatefulSpec, ThrottleSpec
from dataflows.memory.steps import StatefulSteps
from tests.unit.rows import SUBJECT, apply, change, table

if TYPE_CHECKING:
    from connectors.contracts.changes import Change

DEDUPE = StatefulSpec(dedupe=DedupeSpec(fields=("name",)))
EVERYTHING = StatefulSpec(dedupe=DedupeSpec())


def row(number: int, name: str, seen: int = 0) -> dict[str, object]:
    return {"id": number, "name": name, "seen": seen}


class Asked:
    """Steps behind a pipeline that changes nothing."""

    def __init__(self, spec: StatefulSpec) -> None:
        self._steps = StatefulSteps("users", spec)

    def keeps(self, subject: str, each: Change, *, past: bool = False) -> bool:
        return self._steps.keeps(subject, each, each, past=past)


def kept(spec: StatefulSpec, changes: list[Change], *, subject: str = SUBJECT) -> list[int]:
    """The indexes of the changes that are kept."""
    steps = StatefulSteps("users", spec)
    return [index for index, each in enumerate(changes) if steps.keeps(subject, each, each)]


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    """What may happen to a table of four rows, committed in order, at times that do not fall."""
    rows: dict[int, dict[str, object]] = {}
    changes: list[Change] = []
    at = 0
    for number in range(draw(st.integers(1, 60))):
        at += draw(st.sampled_from([0, 0, 1, 300, 1000]))
        action = draw(st.sampled_from(["write", "write", "write", "write", "move", "end", "empty"]))
        target, name = draw(st.integers(1, 4)), draw(st.sampled_from("ab"))
        new, old = row(target, name, draw(st.integers(0, 1))), rows.get(target)
        if action == "empty" and draw(st.booleans()):
            rows.clear()
            changes.append(change("t", number, None, at=at))
        elif action == "end" and old:
            changes.append(change("d", number, None, rows.pop(target), at=at))
        elif action == "move" and not old and rows:
            gone = rows.pop(draw(st.sampled_from(sorted(rows))))
            rows[target] = new
            changes.append(change("u", number, new, {"id": gone["id"]}, at=at))
        elif action == "write":
            rows[target] = new
            before = old if draw(st.booleans()) else None
            changes.append(change("u" if old else "c", number, new, before, at=at))
    return changes


def restarted(
    spec: StatefulSpec, changes: list[Change], restarts: set[int], forgetful: set[int]
) -> list[Change]:
    """What is kept by steps that are packed and made anew before some changes, or made empty."""
    steps, stored = StatefulSteps("users", spec), []
    for index, each in enumerate(changes):
        if index in forgetful:
            steps = StatefulSteps("users", spec)
        elif index in restarts:
            steps = StatefulSteps("users", spec, steps.pack())
        if steps.keeps(SUBJECT, each, each):
            stored.append(each)
    return stored


_PLACES = st.sets(st.integers(0, 60), max_size=4)


@settings(max_examples=60, deadline=None)
@given(histories(), _PLACES, _PLACES, st.sampled_from([1, 2, 100]), st.booleans())
def test_a_target_behind_dedupe_has_the_rows_of_the_source(
    changes: list[Change], restarts: set[int], forgetful: set[int], keys: int, some: bool
) -> None:
    spec = StatefulSpec(dedupe=DedupeSpec(fields=("name",) if some else None, keys=keys))
    stored = restarted(spec, changes, restarts, forgetful)
    matters = ("id", "name") if some else ("id", "name", "seen")
    wanted, found = (
        {key: [each[name] for name in matters] for key, each in apply(history).items()}
        for history in (changes, stored)
    )
    assert found == wanted


@settings(max_examples=60, deadline=None)
@given(histories(), _PLACES)
def test_no_two_neighbouring_images_of_a_row_are_equal_behind_dedupe(
    changes: list[Change], restarts: set[int]
) -> None:
    images: dict[str, object] = {}
    for each in restarted(DEDUPE, changes, restarts, set()):
        if each.op == "t":
            images.clear()
            continue
        assert each.key is not None
        before, after = image_of(each)
        moved = before is not None and after is not None and before["id"] != after["id"]
        image = after["name"] if after else None
        if each.op == "u" and not moved:
            assert images.get(each.key) != image
        images[each.key] = image


@settings(max_examples=60, deadline=None)
@given(
    histories(),
    _PLACES,
    _PLACES,
    st.sampled_from(
        [
            StatefulSpec(sample=SampleSpec(every=3, keys=2)),
            StatefulSpec(throttle=ThrottleSpec(changes=2, every=timedelta(seconds=1), keys=2)),
            StatefulSpec(
                dedupe=DedupeSpec(),
                sample=SampleSpec(every=2),
                throttle=ThrottleSpec(every=timedelta(seconds=10)),
            ),
        ]
    ),
)
def test_a_target_behind_sample_and_throttle_has_the_rows_of_the_source_if_not_their_latest_images(
    changes: list[Change], restarts: set[int], forgetful: set[int], spec: StatefulSpec
) -> None:
    assert apply(restarted(spec, changes, restarts, forgetful)).keys() == apply(changes).keys()


@settings(max_examples=60, deadline=None)
@given(histories(), _PLACES, st.floats(0.05, 0.95))
def test_a_share_is_a_share_of_the_rows_with_all_their_changes(
    changes: list[Change], restarts: set[int], share: float
) -> None:
    spec = StatefulSpec(sample=SampleSpec(share=share))
    source, target = apply(changes), apply(restarted(spec, changes, restarts, set()))
    assert all(source[key] == each for key, each in target.items())
    for key in source:
        digest = blake2b(f"db.users\n{key}".encode(), digest_size=8).digest()
        if int.from_bytes(digest, "big") < share * 2**64:
            assert key in target


def test_a_share_of_many_rows_is_about_as_large_as_asked_for() -> None:
    changes = [change("c", number, row(number, "a")) for number in range(5000)]
    assert 400 < len(kept(StatefulSpec(sample=SampleSpec(share=0.1)), changes)) < 600


def test_a_chosen_row_stays_when_its_key_changes_until_it_ends() -> None:
    spec = StatefulSpec(sample=SampleSpec(share=0.5))
    keys = range(1, 60)
    chosen = set(kept(spec, [change("c", 0, row(key, "a")) for key in keys]))
    old = next(key for index, key in enumerate(keys) if index in chosen)
    new = next(key for index, key in enumerate(keys) if index not in chosen)
    life = [
        change("c", 1, row(old, "a")),
        change("u", 2, row(new, "a"), {"id": old}),
        change("u", 3, row(new, "b")),
        change("d", 4, None, {"id": new}),
        change("c", 5, row(new, "b")),
    ]
    assert kept(spec, life) == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(histories(), _PLACES, st.integers(1, 3))
def test_throttle_keeps_at_most_so_many_images_of_a_row_in_an_interval(
    changes: list[Change], restarts: set[int], most: int
) -> None:
    spec = StatefulSpec(throttle=ThrottleSpec(changes=most, every=timedelta(seconds=1)))
    # An update of a row that was begun anew counts anew.
    counts: Counter[tuple[str | None, int, int]] = Counter()
    lives: Counter[str | None] = Counter()
    for each in restarted(spec, changes, restarts, set()):
        before, after = image_of(each)
        begins = each.op == "c" or (before and after and before["id"] != after["id"])
        if begins:
            lives[each.key] += 1
        if after:
            second = json.loads(each.envelope)["source"]["ts_ms"] // 1000
            counts[each.key, lives[each.key], second] += 1
    assert all(count <= most for count in counts.values())


def test_throttle_goes_by_the_sources_time_which_may_go_back_a_little() -> None:
    spec = StatefulSpec(throttle=ThrottleSpec(changes=2, every=timedelta(seconds=1)))
    times = [900, 950, 990, 1000, 999, 1100, 1999, 2000, 1500, 2100]
    changes = [change("u", at, row(1, "a"), at=at) for at in times]
    # 900, 950 | 1000, 999 | 2000, 1500
    assert kept(spec, changes) == [0, 1, 3, 4, 7, 8]


def test_sample_keeps_the_first_change_of_a_row_and_each_so_manieth_behind_it() -> None:
    changes = [change("u", number, row(number % 2, "a")) for number in range(16)]
    spec = StatefulSpec(sample=SampleSpec(every=3))
    assert kept(spec, changes) == [0, 1, 6, 7, 12, 13]


def test_what_makes_a_row_appear_or_disappear_is_never_dropped_and_begins_its_count_anew() -> None:
    life = [
        change("c", 0, row(1, "a")),
        change("u", 1, row(1, "a")),
        change("d", 2, None, row(1, "a")),
        change("c", 3, row(1, "a")),
        change("u", 4, row(1, "a")),
        change("r", 5, row(1, "a")),
        change("u", 6, row(2, "a"), {"id": 1}),
        change("u", 7, row(2, "a")),
        change("t", 8, None),
        change("u", 9, row(2, "a")),
    ]
    for spec in (
        EVERYTHING,
        StatefulSpec(sample=SampleSpec(every=5)),
        StatefulSpec(throttle=ThrottleSpec(every=timedelta(days=1))),
    ):
        assert kept(spec, life) == [0, 2, 3, 5, 6, 8, 9]


def test_a_row_that_comes_back_to_a_key_is_not_taken_for_the_one_before() -> None:
    life = [
        change("c", 0, row(1, "a")),
        change("u", 1, row(2, "b"), {"id": 1}),
        change("c", 2, row(1, "a")),
        change("u", 3, row(1, "a")),
        change("u", 4, row(2, "b"), row(2, "b")),
    ]
    assert kept(EVERYTHING, life) == [0, 1, 2]


def test_an_update_that_hides_its_former_key_passes() -> None:
    same = change("u", 1, row(1, "a"), {"name": "a"})
    assert kept(EVERYTHING, [change("c", 0, row(1, "a")), same]) == [0, 1]


def test_keys_that_are_not_ascii_are_followed() -> None:
    people = table("näme", "x")
    life = [
        change("c", 0, {"näme": "ü€😀", "x": 1}, schema=people),
        change("u", 1, {"näme": "ü€😀", "x": 1}, {"näme": "ü€😀", "x": 1}, schema=people),
        change("u", 2, {"näme": "é", "x": 1}, {"näme": "ü€😀"}, schema=people),
    ]
    assert kept(EVERYTHING, life) == [0, 2]


def test_dedupe_tells_a_missing_value_and_a_json_null_from_what_looks_like_them() -> None:
    images = [
        change("u", 0, row(1, UNAVAILABLE)),
        change("u", 1, row(1, UNAVAILABLE), unavailable=("name",)),
        change("u", 2, row(1, UNAVAILABLE), unavailable=("name",)),
        change("u", 3, {"id": 1, "name": None, "seen": 0}),
        change("u", 4, {"id": 1, "name": None, "seen": 0}, json_nulls=("name",)),
        change("u", 5, {"id": 1, "name": None, "seen": 0}, json_nulls=("name", "seen")),
    ]
    assert kept(DEDUPE, images) == [0, 1, 3, 4]
    assert kept(EVERYTHING, images) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("value", [b'"\\ud800"', b"[" * 3000 + b"]" * 3000])
def test_a_row_that_cannot_be_read_passes(value: bytes) -> None:
    """Such values are JSON to PostgreSQL, and must not end a flow."""
    spec = StatefulSpec(dedupe=DedupeSpec(), throttle=ThrottleSpec(every=timedelta(seconds=1)))
    awkward = change("u", 1, row(1, "@"), row(1, "@"))
    awkward = awkward._replace(envelope=awkward.envelope.replace(b'"@"', value))
    others = [change("u", number, row(1, "a"), at=5000) for number in (2, 3)]
    assert kept(spec, [awkward, awkward, *others]) == [0, 1, 2]


def test_a_failed_change_passes_and_nothing_behind_it_is_compared_with_what_was_before() -> None:
    failed = Failure("users", "cast.not_a_number", "no number").encoded
    changes = [
        change("c", 0, row(1, "a")),
        change("u", 1, row(1, "b"), failed=failed),
        change("u", 2, row(1, "a")),
        change("u", 3, row(1, "a")),
    ]
    assert kept(DEDUPE, changes) == [0, 1, 2]


def test_a_table_without_the_fields_passes_and_is_warned_of_once() -> None:
    orders = table("id", "total", name="orders")
    changes = [change("u", number, {"id": 1, "total": 2}, schema=orders) for number in range(3)]
    with capture_logs() as logs:
        assert kept(DEDUPE, changes) == [0, 1, 2]
    assert [(each["table"], each["lacking"]) for each in logs] == [("public.orders", ["name"])]


def test_the_same_key_in_another_table_or_topic_is_another_row() -> None:
    orders = table("id", "name", "seen", name="orders")
    steps = Asked(DEDUPE)
    assert steps.keeps(SUBJECT, change("u", 0, row(1, "a")))
    assert steps.keeps("CDC.shop.db.orders.0", change("u", 1, row(1, "a"), schema=orders))
    assert steps.keeps("CDC.shop.elsewhere.0", change("u", 2, row(1, "a")))
    # A partition is no other topic, and an emptied table leaves the other one alone.
    assert not steps.keeps("CDC.shop.db.users.3", change("u", 3, row(1, "a")))
    assert steps.keeps(SUBJECT, change("t", 4, None))
    assert not steps.keeps("CDC.shop.db.orders.0", change("u", 5, row(1, "a"), schema=orders))
    assert steps.keeps(SUBJECT, change("u", 6, row(1, "a")))


def unwrapped(each: Change) -> Change:
    row = json.dumps(image_of(each)[1], separators=(",", ":"))
    return UnwrappedChange(*each[:6], row.encode(), *each[7:])


@pytest.mark.parametrize("fields", [("name",), ()])
def test_rows_without_their_envelopes_are_compared_and_counted_too(fields: tuple[str, ...]) -> None:
    changes = [
        change("c", 0, row(1, "a"), at=0),
        change("u", 1, row(1, "a"), row(1, "a"), at=10),
        change("u", 2, row(1, "b"), at=500),
        change("u", 3, row(1, "c"), at=1000),
    ]
    spec = StatefulSpec(
        dedupe=DedupeSpec(fields=fields or None), throttle=ThrottleSpec(every=timedelta(seconds=1))
    )
    steps = StatefulSteps("users", spec)
    stored = [steps.keeps(SUBJECT, unwrapped(each), each) for each in changes]
    assert stored == [True, False, False, True]


def test_messages_and_rows_without_a_key_pass() -> None:
    keyless = [change("u", number, row(1, "a"))._replace(key=None) for number in range(2)]
    messages = [each._replace(table=None, op="m") for each in keyless]
    for spec in (EVERYTHING, StatefulSpec(sample=SampleSpec(share=0.001))):
        assert kept(spec, keyless + messages) == [0, 1, 2, 3]


def test_dedupe_compares_with_what_was_kept_by_the_steps_behind_it() -> None:
    spec = StatefulSpec(dedupe=DedupeSpec(), sample=SampleSpec(every=2))
    names = ["a", "b", "a", "b", "b"]
    # b is sampled out: a is then what the stream has, and the next b is no repetition
    assert kept(spec, [change("u", n, row(1, name)) for n, name in enumerate(names)]) == [0, 3]


def test_what_was_given_before_is_not_relied_upon_where_another_run_may_have_dropped_it() -> None:
    spec = StatefulSpec(dedupe=DedupeSpec(), sample=SampleSpec(every=2))
    steps = Asked(spec)
    for number, name in enumerate("ab"):
        steps.keeps(SUBJECT, change("u", number, row(1, name)), past=True)
    # The run before may have kept b, so a is a change.
    assert steps.keeps(SUBJECT, change("u", 2, row(1, "a")))


@pytest.mark.parametrize("tree", [{}, {"every": 3, "share": 0.5}, {"share": 1}, {"every": 1}])
def test_a_sample_is_one_of_each_kind_of_step(tree: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"share|every"):
        SampleSpec.model_validate(tree)


def test_an_interval_is_a_duration_and_not_nothing() -> None:
    assert ThrottleSpec.model_validate({"every": "1.5s"}).every == timedelta(seconds=1.5)
    for wrong in ("0s", "-1s"):
        with pytest.raises(ValueError, match="every"):
            ThrottleSpec.model_validate({"every": wrong})


def image_of(each: Change) -> tuple[dict[str, object] | None, dict[str, object] | None]:
    envelope = json.loads(each.envelope)
    return envelope["before"], envelope["after"]
