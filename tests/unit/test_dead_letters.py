"""What becomes of changes that a target refuses: nothing is lost, and no row goes backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

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
