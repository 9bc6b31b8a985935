"""The suite that every sink must pass: changes that are refused, and dead letters."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.sink import Batch
from connectors.errors import FencedError, PermanentError
from tests.contract.sink_log import SHARE, SUBJECTS, change, deliver, expect_stored, outage, prefix

if TYPE_CHECKING:
    from tests.contract.sink_adapter import SinkAdapter

pytestmark = pytest.mark.servers


def test_a_refused_change_is_permanent_and_the_offset_stays_before_it(
    sink_adapter: SinkAdapter,
) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    good = [change(1, "c", 1, "a"), change(2, "c", 2, "b")]
    bad = [change(3, "u", 1, "x"), change(4, "c", 4, "poison"), change(5, "c", 5, "y")]
    later = [change(6, "u", 2, "z")]
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.write(Batch(claim, good, 2))
        writer.flush()
        sink_adapter.refuse("poison")
        with pytest.raises(PermanentError) as caught:  # noqa: PT012 - any of them may find out
            writer.write(Batch(claim, bad, 5))
            writer.write(Batch(claim, later, 6))
            writer.flush()
    assert "items" in str(caught.value)
    again = sink_adapter.sink().claim(SHARE)
    if sink_adapter.transactional:
        assert sink_adapter.rows() == {1: "a", 2: "b"}
    else:
        assert caught.value.sequence in (0, 4)
        healthy = [item for item in [*good, *bad, *later] if item.sequence != 4]
        expect_stored(sink_adapter, healthy, again.offsets)
    stored = prefix([*bad, *later], again.offsets)
    # what lies before the culprit may be stored without it where no transaction joins them
    assert not stored if sink_adapter.transactional else all(c.sequence < 4 for c in stored)
    healed = [*(item for item in bad if item.sequence != 4), *later]
    deliver(sink_adapter, again, healed)
    assert sink_adapter.rows() == {1: "x", 2: "z", 5: "y"}


def test_after_a_refusal_another_writer_of_the_claim_goes_on(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    log = [change(2, "c", 1, "a"), change(3, "c", 2, "b")]
    log += [change(4, "c", 3, "poison"), change(5, "u", 1, "c")]
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.write(Batch(claim, [change(1, "c", 9, "z")], 1))
        writer.flush()
        sink_adapter.refuse("poison")
        with pytest.raises(PermanentError) as caught:  # noqa: PT012 - either call may find out
            writer.write(Batch(claim, log, 5))
            writer.flush()
        assert caught.value.sequence in (0, 4)
        assert 1 <= writer.stored < 4
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.write(Batch(claim, log[:2], 3))
        writer.write(Batch(claim, log[3:], 5))
        writer.flush()
        assert writer.stored == 5
    assert sink_adapter.rows() == {1: "c", 2: "b", 9: "z"}


def test_one_refused_change_alone_is_named(sink_adapter: SinkAdapter) -> None:
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), [change(1, "c", 1, "a")])
    sink_adapter.refuse("poison")
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        with pytest.raises(PermanentError) as caught:  # noqa: PT012 - either call may find out
            writer.write(Batch(claim, [change(7, "u", 1, "poison")], 9))
            writer.flush()
        assert caught.value.sequence == 7


def test_a_replay_is_stored_behind_what_was_written(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        # sequences 3, 5 and 6 are dead letters
        writer.write(Batch(claim, [change(1, "c", 1, "a"), change(2, "c", 2, "b")], 8))
        writer.replay([change(3, "u", 1, "c"), change(5, "u", 1, "d"), change(6, "d", 2)])
        assert sink_adapter.rows() == {1: "d"}
        writer.replay([])
        writer.write(Batch(claim, [change(9, "u", 1, "e")], 10))
        writer.flush()
        assert writer.stored == 10
    assert sink_adapter.rows() == {1: "e"}
    assert sink_adapter.sink().claim(SHARE).offsets == dict.fromkeys(SUBJECTS, 10)


def test_a_replay_does_not_move_the_offset(sink_adapter: SinkAdapter) -> None:
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), [change(8, "c", 2, "b")])
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.replay([change(4, "c", 1, "a")])
    assert sink_adapter.rows() == {1: "a", 2: "b"}
    assert sink_adapter.sink().claim(SHARE).offsets == claim.offsets


def test_a_letter_that_is_replayed_twice_does_not_overwrite_newer_changes(
    sink_adapter: SinkAdapter,
) -> None:
    letters = [change(3, "c", 1, "old"), change(4, "c", 4, "gone")]
    first = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(first)) as writer:
        writer.write(Batch(first, [change(1, "c", 2, "b")], 5))
        writer.replay(letters)
        writer.write(Batch(first, [change(6, "u", 1, "new"), change(7, "d", 4)], 7))
        writer.flush()
    # whoever asked did not live to hear that they are stored
    second = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(second)) as writer:
        writer.replay([*letters, change(5, "u", 2, "c")])
    assert sink_adapter.rows() == {1: "new", 2: "c"}


def test_a_letter_that_is_refused_again_can_be_left_out(sink_adapter: SinkAdapter) -> None:
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), [change(9, "c", 2, "b")])
    sink_adapter.refuse("poison")
    claim = sink_adapter.sink().claim(SHARE)
    letters = [change(3, "c", 1, "a"), change(4, "c", 4, "poison"), change(5, "c", 5, "e")]
    with closing(sink_adapter.sink().open(claim)) as writer:
        with pytest.raises(PermanentError) as caught:
            writer.replay(letters)
        assert caught.value.sequence in (0, 4)
    with closing(sink_adapter.sink().open(claim)) as writer:
        with pytest.raises(PermanentError) as caught:
            writer.replay(letters[1:2])
        assert caught.value.sequence == 4
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.replay([letters[0], letters[2]])
    assert sink_adapter.rows() == {1: "a", 2: "b", 5: "e"}


def test_a_replay_is_fenced(sink_adapter: SinkAdapter) -> None:
    old = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(old)) as zombie:
        zombie.write(Batch(old, [change(9, "c", 2, "b")], 9))
        zombie.flush()
        sink_adapter.sink().claim(SHARE)
        with pytest.raises(FencedError):
            zombie.replay([change(3, "c", 1, "zombie")])
    assert sink_adapter.rows() == {2: "b"}


def test_a_replay_waits_for_a_target_that_is_away(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.write(Batch(claim, [change(9, "c", 2, "b")], 9))
        writer.flush()
        with outage(sink_adapter):
            writer.replay([change(3, "c", 1, "a"), change(4, "u", 1, "c")])
        sink_adapter.cut_connections()
        writer.replay([change(5, "c", 4, "d")])
    assert sink_adapter.rows() == {1: "c", 2: "b", 4: "d"}
