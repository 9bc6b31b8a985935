"""The suite that every sink must pass: offsets that are looked at, and set."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.sink import Batch
from connectors.errors import FencedError
from tests.contract.sink_log import SHARE, SUBJECTS, batches, change, deliver, history, model

if TYPE_CHECKING:
    from tests.contract.sink_adapter import SinkAdapter

pytestmark = pytest.mark.servers


def test_what_follows_a_truncation_that_was_accepted_is_stored(sink_adapter: SinkAdapter) -> None:
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), [change(20, "c", 2, "a")])
    claim = sink_adapter.sink().claim(msgspec.structs.replace(SHARE, end=11))
    assert claim.offsets == dict.fromkeys(SUBJECTS, 11)
    deliver(sink_adapter, claim, [change(12, "u", 2, "b")])
    assert sink_adapter.rows() == {2: "b"}
    assert sink_adapter.sink().claim(SHARE).offsets == dict.fromkeys(SUBJECTS, 12)


def test_offsets_are_read_without_a_claim(sink_adapter: SinkAdapter) -> None:
    assert sink_adapter.sink().offsets(SHARE) == dict.fromkeys(SUBJECTS, 0)
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        log = history(9, 60)
        for batch in batches(claim, log[:30], 10):
            writer.write(batch)
        writer.flush()
        assert sink_adapter.sink().offsets(SHARE) == dict.fromkeys(SUBJECTS, log[29].sequence)
        for batch in batches(claim, log[30:], 10):  # nobody has taken the share away
            writer.write(batch)
        writer.flush()
    assert sink_adapter.sink().offsets(SHARE) == dict.fromkeys(SUBJECTS, log[-1].sequence)
    assert sink_adapter.rows() == model(log)
    again = msgspec.structs.replace(SHARE, created="2027-01-02T03:04:05.678901234Z")
    assert sink_adapter.sink().offsets(again) == dict.fromkeys(SUBJECTS, 0)


def test_a_reset_backwards_gives_changes_again(sink_adapter: SinkAdapter) -> None:
    log = history(10, 120)
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), log)
    upto = log[50].sequence
    sink_adapter.sink().reset(SHARE, upto)
    assert sink_adapter.sink().offsets(SHARE) == dict.fromkeys(SUBJECTS, upto)
    claim = sink_adapter.sink().claim(SHARE)
    assert claim.offsets == dict.fromkeys(SUBJECTS, upto)
    deliver(sink_adapter, claim, log[51:])
    assert sink_adapter.rows() == model(log)
    assert sink_adapter.sink().offsets(SHARE) == dict.fromkeys(SUBJECTS, log[-1].sequence)


def test_a_reset_forwards_leaves_changes_out(sink_adapter: SinkAdapter) -> None:
    log = [change(number, "c", number, "a") for number in range(1, 9)]
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), log[:2])
    sink_adapter.sink().reset(SHARE, 5)
    claim = sink_adapter.sink().claim(SHARE)
    assert claim.offsets == dict.fromkeys(SUBJECTS, 5)
    deliver(sink_adapter, claim, log[5:])
    assert sink_adapter.rows() == model(log[:2] + log[5:])


def test_a_share_that_was_never_claimed_can_be_reset(sink_adapter: SinkAdapter) -> None:
    sink_adapter.sink().reset(SHARE, 7)
    assert sink_adapter.sink().claim(SHARE).offsets == dict.fromkeys(SUBJECTS, 7)


def test_a_reset_sets_what_earlier_shares_have_left(sink_adapter: SinkAdapter) -> None:
    wide = msgspec.structs.replace(SHARE, subjects=("CDC.shop.db.>",))
    deliver(sink_adapter, sink_adapter.sink().claim(wide), [change(90, "c", 2, "a")])
    sink_adapter.sink().reset(SHARE, 3)
    assert sink_adapter.sink().claim(SHARE).offsets == dict.fromkeys(SUBJECTS, 3)


def test_a_reset_fences_the_writer(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as zombie:
        zombie.write(Batch(claim, [change(1, "c", 1, "a")], 1))
        zombie.flush()
        sink_adapter.sink().reset(SHARE, 0)

        def go_on() -> None:
            # A writer may find out some requests later.
            for sequence in range(2, 2000):
                zombie.write(Batch(claim, [change(sequence, "u", 1, "zombie")], sequence))
                zombie.flush()

        with pytest.raises(FencedError):
            go_on()
    assert sink_adapter.sink().offsets(SHARE) == dict.fromkeys(SUBJECTS, 0)
