"""What becomes of changes that a target refuses: nothing is lost, and no row goes backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from connectors.errors import PermanentError
from connectors.letters import LetterAnswer, LetterRequest, State
from tests.unit.letters_model import Crash, World, change, request

if TYPE_CHECKING:
    from connectors.contracts import Delivered
    from tests.unit.letters_model import Kind, Names

KINDS: list[Kind] = ["transactions", "whole", "versions", "plain"]
NAMES: list[Names] = ["none", "first", "all"]


@st.composite
def streams(draw: st.DrawFn) -> list[Delivered]:
    """Changes of a few rows of two tables, some in transactions, some that a pipeline refused."""
    made: list[Delivered] = []
    while len(made) < draw(st.integers(1, 25)):
        size = draw(st.integers(1, 3))
        name = f"t{len(made)}"
        for at in range(size):
            op = draw(st.sampled_from("ccuuudkt"))
            key = draw(st.integers(1, 3))
            before = draw(st.integers(1, 3)) if op == "k" else None
            made.append(
                change(
                    len(made) + 1,
                    "u" if op == "k" else op,
                    key,
                    table=draw(st.sampled_from("ab")),
                    before=None if before == key else before,
                    transaction=name if size > 1 else "",
                    last=at == size - 1,
                    failed=op in "cu" and draw(st.integers(0, 9)) == 0,
                )
            )
    return made


actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 8)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("replay"), st.integers(0, 30)),
        st.tuples(st.just("mend"), st.integers(0, 30)),
        st.tuples(st.just("crash"), st.integers(0, 12)),
    ),
    max_size=25,
)


def run(world: World, steps: list[tuple[str, int]]) -> None:
    """A flow that dies now and then, and begins again where the target stands."""
    writer, read = world.writer(), world.offset
    for action, number in steps:
        try:
            if action == "crash":
                world.fuse = number
            elif action == "write":
                batch = world.batch(read, number)
                read = batch.upto
                writer.write(batch)
            elif action == "flush":
                writer.flush()
            elif action == "mend":
                world.refused.discard(number)
            else:
                chosen = [each for each in world.letters if number in (0, each)]
                asked = request(chosen)
                while writer.carry_out(asked) is None:
                    batch = world.batch(read, 3)
                    assert batch.upto > read
                    read = batch.upto
                    writer.write(batch)
        except Crash:
            writer, read = world.writer(), world.offset
        check(world)
    world.fuse = None
    while read < len(world.stream):
        batch = world.batch(read, 7)
        read = batch.upto
        writer.write(batch)
    writer.flush()
    check(world)
    world.refused.clear()
    writer.carry_out(request(world.letters))
    check(world)


def check(world: World) -> None:
    """Every change up to the offset was applied once, in its order, or is a letter."""
    if world.kind not in ("transactions", "whole"):
        return
    taken = [sequence for order in world.applied.values() for sequence in order]
    assert len(taken) == len(set(taken))
    for order in world.applied.values():
        assert order == sorted(order)
    for each in world.stream:
        if each.sequence <= world.offset:
            assert each.sequence in taken or each.sequence in world.letters


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_the_target_ends_as_the_source_has_ended(
    kind: Kind, names: Names, data: st.DataObject
) -> None:
    stream = data.draw(streams())
    refused = {each.sequence for each in stream if each.failed}
    world = World(kind, names, stream, refused | data.draw(st.sets(st.integers(1, len(stream)))))
    with capture_logs():
        run(world, data.draw(actions))
    assert not world.letters
    assert world.visible() == world.expected()


def world(*refused: int, names: Names = "first", kind: Kind = "transactions") -> World:
    stream = [change(number, key=number % 7 + 1) for number in range(1, 22)]
    return World(kind, names, stream, set(refused))


def test_a_sink_that_is_to_stop_stops() -> None:
    for names in NAMES:
        made = world(5, names=names)
        writer = made.writer("stop")
        writer.write(made.batch(0, 10))
        with pytest.raises(PermanentError):
            writer.flush()
        assert not made.letters
    broken = World(stream=[change(1, failed=True)])
    with pytest.raises(PermanentError, match=r"filter\.broken"):
        broken.writer("stop").write(broken.batch(0, 1))


def test_a_sink_that_skips_goes_on_with_the_row() -> None:
    made = world(1)
    writer = made.writer("skip")
    with capture_logs() as logs:
        writer.write(made.batch(0, 21))
        writer.flush()
    assert [letter.state for letter in made.letters.values()] == [State.SKIPPED]
    assert made.offset == 21
    assert len(made.visible()) == 7
    assert [each["sequence"] for each in logs] == [1]


def test_rows_without_trouble_are_written_once_and_as_they_came() -> None:
    made = world()
    writer = made.writer()
    batch = made.batch(0, 21)
    writer.write(batch)
    writer.flush()
    assert made.attempts == 1
    assert writer.stored == 21


@pytest.mark.parametrize(("names", "most"), [("none", 2100), ("first", 1100), ("all", 3)])
def test_many_refused_rows_cost_no_more_than_one_try_each(names: Names, most: int) -> None:
    made = World("transactions", names, [change(n, key=n) for n in range(1, 1001)])
    made.refused = set(range(1, 1001))
    writer = made.writer()
    with capture_logs() as logs:
        writer.write(made.batch(0, 1000))
        writer.flush()
    assert len(made.letters) == 1000
    assert made.attempts <= most
    assert len(logs) == 1


def test_one_refused_row_among_a_thousand_is_found_soon() -> None:
    made = World("transactions", "none", [change(n, key=n) for n in range(1, 1001)], {617})
    writer = made.writer()
    with capture_logs():
        writer.write(made.batch(0, 1000))
        writer.flush()
    assert list(made.letters) == [617]
    assert made.attempts < 40


def test_a_letter_that_fails_again_stays_and_what_is_behind_it() -> None:
    made = world(1)
    writer = made.writer()
    with capture_logs():
        writer.write(made.batch(0, 21))
        writer.flush()
    assert sorted(made.letters) == [1, 8, 15]
    answer = writer.carry_out(request([8]))
    assert answer == LetterAnswer(failed=1, waiting=2, error="[model.refused] a: no")
    assert made.again == [(1, "model.refused")]
    made.refused.clear()
    assert writer.carry_out(request([15])) == LetterAnswer(replayed=3)
    assert writer.carry_out(request([15])) == LetterAnswer(gone=1)


def test_a_discarded_letter_lets_what_is_behind_it_wait() -> None:
    made = world(1)
    writer = made.writer()
    with capture_logs():
        writer.write(made.batch(0, 14))
        writer.flush()
        answer = writer.carry_out(request([1, 99], "discard"))
        assert answer == LetterAnswer(discarded=1, gone=1)
        writer.write(made.batch(14, 7))
        writer.flush()
    assert sorted(made.letters) == [8, 15]


def test_letters_of_another_stream_are_left_alone() -> None:
    made = world(1)
    writer = made.writer()
    with capture_logs():
        writer.write(made.batch(0, 14))
        writer.flush()
    other = request([1], "discard")
    other = LetterRequest(other.action, "2030-01-01T00:00:00Z", other.sequences)
    assert writer.carry_out(other) == LetterAnswer(gone=1)
    assert 1 in made.letters


def test_after_a_crash_a_letter_waits_for_what_was_before_it() -> None:
    made = World(stream=[change(1), change(2)], refused={2})
    writer = made.writer()
    with capture_logs():
        writer.write(made.batch(0, 2))
        made.fuse = 1  # the letter is stored, and nothing else
        with pytest.raises(Crash):
            writer.flush()
        assert list(made.letters) == [2]
        assert made.offset == 0
        made.refused.clear()
        writer = made.writer()
        assert writer.carry_out(request([2])) is None
        writer.write(made.batch(0, 2))
        assert list(made.letters) == [2]
        assert writer.carry_out(request([2])) == LetterAnswer(replayed=1)
    assert list(made.applied.values()) == [[1, 2]]
