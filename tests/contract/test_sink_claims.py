"""The suite that every sink must pass: claims, and who writes no longer."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.sink import Batch, Claim
from connectors.errors import FencedError
from tests.contract.sink_log import (
    SHARE,
    SUBJECTS,
    batches,
    change,
    deliver,
    expect_stored,
    history,
    model,
    pending,
)

if TYPE_CHECKING:
    from tests.contract.sink_adapter import SinkAdapter

pytestmark = pytest.mark.servers


def test_a_first_claim_starts_at_nothing(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    assert claim.share == SHARE
    assert claim.offsets == dict.fromkeys(SUBJECTS, 0)
    assert claim.forgotten == ""


def test_each_claim_has_a_higher_epoch(sink_adapter: SinkAdapter) -> None:
    epochs = [sink_adapter.sink().claim(SHARE).epoch for _ in range(4)]
    assert epochs == sorted(set(epochs))


def test_a_claim_survives_the_way_to_another_process(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    carried = msgspec.json.decode(msgspec.json.encode(claim), type=Claim)
    deliver(sink_adapter, carried, [change(1, "c", 1, "a")])
    assert sink_adapter.rows() == {1: "a"}


def test_a_newer_claim_fences_a_writer_that_has_not_written(sink_adapter: SinkAdapter) -> None:
    old = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(old)) as writer:
        sink_adapter.sink().claim(SHARE)
        with pytest.raises(FencedError):  # noqa: PT012 - either call may find out
            writer.write(Batch(old, [change(1, "c", 1, "zombie")], 1))
            writer.flush()
    assert sink_adapter.rows() == {}


def test_a_newer_claim_fences_a_writer_in_full_flow(sink_adapter: SinkAdapter) -> None:
    log = history(3, 200)
    old = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(old)) as zombie:
        early = batches(old, log[:100], 10)
        for batch in early:
            zombie.write(batch)
        zombie.flush()
        new = sink_adapter.sink().claim(SHARE)
        with closing(sink_adapter.sink().open(new)) as writer:
            for batch in batches(new, log[100:], 10):
                writer.write(batch)
            writer.flush()
            with pytest.raises(FencedError):  # noqa: PT012 - either call may find out
                late = [change(log[-1].sequence, "c", 999, "z")]
                if not sink_adapter.transactional:
                    # What it may have had under way is what the new writer has written again.
                    late = log[100:150]
                zombie.write(Batch(old, late, 10**6))
                zombie.flush()
    assert sink_adapter.rows() == model(log)
    offsets = sink_adapter.sink().claim(SHARE).offsets
    assert set(offsets.values()) == {log[-1].sequence}


@pytest.mark.parametrize("seed", range(8))
def test_fencing_holds_while_the_old_writer_is_writing(
    sink_adapter: SinkAdapter, seed: int
) -> None:
    random_ = random.Random(seed)
    log = history(seed, 1500)
    old = sink_adapter.sink().claim(SHARE)
    ends: list[BaseException | None] = []

    def zombie() -> None:
        try:
            with closing(sink_adapter.sink().open(old)) as writer:
                for batch in batches(old, log, 5):
                    writer.write(batch)
                    writer.flush()  # many commits, so that the claim falls into one
            ends.append(None)
        except FencedError as error:
            ends.append(error)

    thread = threading.Thread(target=zombie)
    thread.start()
    while not sink_adapter.rows() and thread.is_alive():
        time.sleep(0.005)
    time.sleep(random_.uniform(0, 0.2))
    new = sink_adapter.sink().claim(SHARE)
    expect_stored(sink_adapter, log, new.offsets)
    thread.join(60)
    assert not thread.is_alive()
    assert isinstance(ends[0], FencedError) or not pending(log, new.offsets)
    again = sink_adapter.sink().claim(SHARE)
    assert again.offsets == new.offsets, "an offset was stored after the claim"
    expect_stored(sink_adapter, log, again.offsets)
    deliver(sink_adapter, again, pending(log, again.offsets))
    assert sink_adapter.rows() == model(log)


def test_a_stream_made_again_starts_anew_and_is_named(sink_adapter: SinkAdapter) -> None:
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), history(9, 50))
    reborn = msgspec.structs.replace(SHARE, created="2026-02-02T00:00:00Z")
    claim = sink_adapter.sink().claim(reborn)
    assert claim.offsets == dict.fromkeys(SUBJECTS, 0)
    assert SHARE.stream in claim.forgotten or SUBJECTS[0] in claim.forgotten
    again = sink_adapter.sink().claim(reborn)
    assert again.forgotten == ""
    deliver(sink_adapter, again, [change(1, "c", 500, "fresh")])
    assert sink_adapter.rows()[500] == "fresh"


def test_a_subject_that_is_new_begins_where_the_share_says(sink_adapter: SinkAdapter) -> None:
    begun = msgspec.structs.replace(SHARE, subjects=SUBJECTS[:1], begin=7)
    assert sink_adapter.sink().claim(begun).offsets == {SUBJECTS[0]: 7}
    later = msgspec.structs.replace(SHARE, begin=30)
    claim = sink_adapter.sink().claim(later)
    assert claim.offsets == {SUBJECTS[0]: 7, SUBJECTS[1]: 30}
    deliver(sink_adapter, claim, [change(8, "c", 2, "a"), change(30, "c", 1, "before")])
    assert sink_adapter.rows() == {2: "a"}
    reborn = msgspec.structs.replace(later, created="2026-02-02T00:00:00Z")
    assert sink_adapter.sink().claim(reborn).offsets == dict.fromkeys(SUBJECTS, 0)


def test_subjects_keep_offsets_of_their_own(sink_adapter: SinkAdapter) -> None:
    narrow = msgspec.structs.replace(SHARE, subjects=SUBJECTS[:1])
    claim = sink_adapter.sink().claim(narrow)
    deliver(sink_adapter, claim, [change(5, "c", 2, "a")])
    wide = sink_adapter.sink().claim(SHARE)
    assert wide.offsets == {SUBJECTS[0]: 5, SUBJECTS[1]: 0}
    deliver(sink_adapter, wide, [change(3, "c", 1, "b"), change(6, "c", 4, "c")])
    assert sink_adapter.rows() == {1: "b", 2: "a", 4: "c"}


def test_topics_that_are_widened_or_narrowed_repeat_nothing(sink_adapter: SinkAdapter) -> None:
    def claim(*subjects: str) -> Claim:
        return sink_adapter.sink().claim(msgspec.structs.replace(SHARE, subjects=subjects))

    narrow, wide, other = "CDC.shop.db.items.*", "CDC.shop.db.>", "CDC.shop.db.orders.*"
    deliver(sink_adapter, claim(narrow), [change(5, "c", 2, "a")])
    widened = claim(wide)
    assert widened.offsets == {wide: 0, narrow: 5}
    deliver(sink_adapter, widened, [change(4, "c", 2, "old"), change(9, "c", 4, "b")])
    assert sink_adapter.rows() == {2: "a", 4: "b"}
    assert claim(wide).offsets == {wide: 9}
    assert claim(narrow, other).offsets == {narrow: 9, other: 9}


def test_topics_that_are_widened_skip_nothing_that_a_narrower_one_lacks(
    sink_adapter: SinkAdapter,
) -> None:
    narrow, wide = "CDC.shop.db.items.*", "CDC.shop.db.>"
    first = msgspec.structs.replace(SHARE, subjects=(narrow,))
    deliver(sink_adapter, sink_adapter.sink().claim(first), [change(5, "c", 2, "a")])
    later = msgspec.structs.replace(SHARE, subjects=(wide,), begin=30)
    claim = sink_adapter.sink().claim(later)
    assert claim.offsets[wide] <= 5
    deliver(sink_adapter, claim, [change(9, "c", 4, "b"), change(31, "u", 2, "c")])
    assert sink_adapter.rows() == {2: "c", 4: "b"}
