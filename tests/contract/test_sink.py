"""The suite that every sink must pass."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.contracts.changes import Column, Delivered, TableSchema
from connectors.contracts.sink import Batch, Claim, Share
from connectors.errors import ConfigError, FencedError, PermanentError, RetryableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.contract.sink_adapter import SinkAdapter

pytestmark = pytest.mark.servers

ITEMS = TableSchema(
    source="shop",
    schema="public",
    name="items",
    columns=(Column("id", "bigint", "number"), Column("value", "text")),
    key=("id",),
)
SUBJECTS = ("CDC.shop.db.items.0", "CDC.shop.db.items.1")
SHARE = Share("warehouse", "CDC_shop", "2026-01-02T03:04:05.678901234Z", SUBJECTS)


def change(sequence: int, op: str, number: int, value: str = "") -> Delivered:
    """A change of `items`; each row's changes stay in one subject, as routing by key does."""
    row = {"id": number, "value": value}
    envelope = {
        "before": {"id": number} if op == "d" else None,
        "after": None if op == "d" else row,
        "source": {"name": "shop", "schema": "public", "table": "items"},
        "op": op,
        "ts_ms": 1_700_000_000_000 + sequence,
        "transaction": {"id": str(sequence)},
    }
    return Delivered(
        sequence=sequence,
        subject=SUBJECTS[number % 2],
        position=f"{sequence:016X}",
        key=f'{{"id":{number}}}',
        table=ITEMS,
        transaction=str(sequence),
        last=True,
        envelope=msgspec.json.encode(envelope),
    )


def model(changes: Iterable[Delivered]) -> dict[int, str]:
    """What a target holds after these changes."""
    rows: dict[int, str] = {}
    for item in changes:
        envelope = msgspec.json.decode(item.envelope)
        if item.key is None:
            rows.clear()
        elif envelope["op"] == "d":
            rows.pop(msgspec.json.decode(item.key)["id"], None)
        else:
            rows[envelope["after"]["id"]] = envelope["after"]["value"]
    return rows


def history(seed: int, length: int, keys: int = 40) -> list[Delivered]:
    """A plausible log: create, update and delete of few keys, sequences with gaps."""
    random_ = random.Random(seed)
    alive: set[int] = set()
    log: list[Delivered] = []
    sequence = 0
    for _ in range(length):
        sequence += random_.choice([1, 1, 1, 2, 7])
        number = random_.randint(1, keys)
        if number not in alive:
            op = "c"
            alive.add(number)
        elif random_.random() < 0.3:
            op = "d"
            alive.discard(number)
        else:
            op = "u"
        log.append(change(sequence, op, number, f"v{sequence}"))
    return log


def prefix(log: Sequence[Delivered], offsets: dict[str, int]) -> list[Delivered]:
    return [item for item in log if item.sequence <= offsets[item.subject]]


def pending(log: Sequence[Delivered], offsets: dict[str, int]) -> list[Delivered]:
    return [item for item in log if item.sequence > offsets[item.subject]]


def expect_stored(adapter: SinkAdapter, log: Sequence[Delivered], offsets: dict[str, int]) -> None:
    """The rows are those of the offsets; without transactions they may be later ones of the log."""
    rows = adapter.rows()
    stored = model(prefix(log, offsets))
    if adapter.transactional:
        assert rows == stored
        return
    possible: dict[int, set[str | None]] = {}
    for item in log:
        number = msgspec.json.decode(item.key or "")["id"]
        states = possible.setdefault(number, {stored.get(number)})
        if item.sequence > offsets[item.subject]:
            states.add(model([item]).get(number))
    assert rows.keys() <= possible.keys()
    for number, states in possible.items():
        assert rows.get(number) in states, f"the state of {number} is older than the offset"


def batches(claim: Claim, log: Sequence[Delivered], size: int) -> list[Batch]:
    cuts = [list(log[start : start + size]) for start in range(0, len(log), size)]
    return [Batch(claim, cut, cut[-1].sequence) for cut in cuts]


def deliver(adapter: SinkAdapter, claim: Claim, log: Sequence[Delivered], size: int = 50) -> None:
    with closing(adapter.sink().open(claim)) as writer:
        for batch in batches(claim, log, size):
            writer.write(batch)
        writer.flush()


def test_a_first_claim_starts_at_nothing(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    assert claim.share == SHARE
    assert claim.offsets == dict.fromkeys(SUBJECTS, 0)
    assert claim.forgotten == ""


def test_each_claim_has_a_higher_epoch(sink_adapter: SinkAdapter) -> None:
    epochs = [sink_adapter.sink().claim(SHARE).epoch for _ in range(4)]
    assert epochs == sorted(set(epochs))


def test_what_is_written_is_there_with_its_offset(sink_adapter: SinkAdapter) -> None:
    log = history(1, 400)
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), log)
    assert sink_adapter.rows() == model(log)
    offsets = sink_adapter.sink().claim(SHARE).offsets
    assert set(offsets) == set(SUBJECTS)
    for subject in SUBJECTS:
        last = max(item.sequence for item in log if item.subject == subject)
        assert last <= offsets[subject] <= log[-1].sequence


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_changes_of_a_key_apply_in_order_within_and_across_batches(
    sink_adapter: SinkAdapter, size: int
) -> None:
    log = history(2, 300, keys=3)
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), log, size)
    assert sink_adapter.rows() == model(log)


def test_a_row_deleted_and_created_again_in_one_batch_stays(sink_adapter: SinkAdapter) -> None:
    log = [
        change(1, "c", 1, "old"),
        change(2, "d", 1),
        change(3, "c", 1, "new"),
        change(4, "c", 2, "gone"),
        change(5, "d", 2),
        change(6, "d", 3),
    ]
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), log)
    assert sink_adapter.rows() == {1: "new"}


def test_a_truncate_removes_what_came_before_it_only(sink_adapter: SinkAdapter) -> None:
    empty = change(3, "t", 0)._replace(
        key=None,
        envelope=msgspec.json.encode(
            {
                "before": None,
                "after": None,
                "source": {"name": "shop", "schema": "public", "table": "items"},
                "op": "t",
                "ts_ms": 1_700_000_000_003,
                "transaction": {"id": "3"},
            }
        ),
    )
    log = [change(1, "c", 2, "a"), change(2, "c", 4, "b"), empty, change(4, "c", 4, "c")]
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), log)
    assert sink_adapter.rows() == {4: "c"}


def test_an_empty_batch_moves_the_offset(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.write(Batch(claim, [], 77))
        writer.flush()
    assert sink_adapter.sink().claim(SHARE).offsets == dict.fromkeys(SUBJECTS, 77)


def test_an_offset_never_goes_back(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.write(Batch(claim, [change(9, "c", 1, "x"), change(10, "c", 2, "x")], 20))
        writer.write(Batch(claim, [], 20))
        writer.flush()
    again = sink_adapter.sink().claim(SHARE)
    assert again.offsets == dict.fromkeys(SUBJECTS, 20)


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


@pytest.mark.parametrize("seed", range(4))
def test_restarts_at_any_point_add_up_to_the_log(sink_adapter: SinkAdapter, seed: int) -> None:
    random_ = random.Random(seed)
    # an offset that is stored behind the rows lags when a writer is cut off: it takes more restarts
    log = history(seed + 100, 1500 if sink_adapter.transactional else 1000)
    restarts = 0
    deadline = time.monotonic() + 200
    while True:
        assert time.monotonic() < deadline
        claim = sink_adapter.sink().claim(SHARE)
        expect_stored(sink_adapter, log, claim.offsets)
        if not (rest := pending(log, claim.offsets)):
            break
        with closing(sink_adapter.sink().open(claim)) as writer:
            todo = batches(claim, rest, random_.choice([1, 10, 60]))
            for batch in todo[: random_.randint(1, 12)]:
                writer.write(batch)
                if random_.random() < 0.1:
                    writer.flush()
        restarts += 1
    # a round writes 720 changes at most
    assert restarts > (3 if sink_adapter.transactional else 1)
    assert sink_adapter.rows() == model(log)


def test_a_batch_that_was_interrupted_can_be_written_again(sink_adapter: SinkAdapter) -> None:
    log = history(5, 120)
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        writer.write(Batch(claim, log[:60], log[59].sequence))
    again = sink_adapter.sink().claim(SHARE)
    deliver(sink_adapter, again, pending(log, again.offsets))
    assert sink_adapter.rows() == model(log)


def test_cut_connections_are_mended_inside(sink_adapter: SinkAdapter) -> None:
    log = history(6, 600)
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        for number, batch in enumerate(batches(claim, log, 20)):
            writer.write(batch)
            if number % 5 == 2:
                sink_adapter.cut_connections()
        writer.flush()
    assert sink_adapter.rows() == model(log)
    assert not pending(log, sink_adapter.sink().claim(SHARE).offsets)


def test_a_killed_server_is_waited_for(sink_adapter: SinkAdapter) -> None:
    log = history(7, 600)
    claim = sink_adapter.sink().claim(SHARE)
    down = threading.Event()

    def outage() -> None:
        sink_adapter.kill_server()
        down.set()
        time.sleep(0.5)
        sink_adapter.start_server()

    with closing(sink_adapter.sink().open(claim)) as writer:
        todo = batches(claim, log, 20)
        for batch in todo[:10]:
            writer.write(batch)
        thread = threading.Thread(target=outage)
        thread.start()
        down.wait(30)
        for batch in todo[10:]:
            writer.write(batch)
        writer.flush()
        thread.join(60)
    assert sink_adapter.rows() == model(log)


def test_what_was_flushed_survives_a_killed_server(sink_adapter: SinkAdapter) -> None:
    log = history(8, 200)
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        for batch in batches(claim, log, 50):
            writer.write(batch)
        writer.flush()
        sink_adapter.kill_server()
    sink_adapter.start_server()
    assert sink_adapter.rows() == model(log)
    assert not pending(log, sink_adapter.sink().claim(SHARE).offsets)


def test_a_fenced_writer_finds_out_after_an_outage(sink_adapter: SinkAdapter) -> None:
    old = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(old)) as zombie:
        zombie.write(Batch(old, [change(1, "c", 1, "a")], 1))
        zombie.flush()
        sink_adapter.kill_server()
        sink_adapter.start_server()
        sink_adapter.sink().claim(SHARE)
        with pytest.raises(FencedError):  # noqa: PT012 - either call may find out
            zombie.write(Batch(old, [change(2, "u", 1, "zombie")], 2))
            zombie.flush()
    assert sink_adapter.rows() == {1: "a"}


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


def test_stored_follows_what_is_written(sink_adapter: SinkAdapter) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    with closing(sink_adapter.sink().open(claim)) as writer:
        assert writer.stored == 0
        seen = [0]
        for batch in batches(claim, history(10, 200), 10):
            writer.write(batch)
            seen.append(writer.stored)
            assert writer.stored <= batch.upto
        writer.flush()
        assert writer.stored == batch.upto
        writer.write(Batch(claim, [], batch.upto + 5))
        writer.flush()
        assert writer.stored == batch.upto + 5
    assert seen == sorted(seen)
    assert writer.stored == batch.upto + 5


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
        sink_adapter.kill_server()
        restart = threading.Timer(0.5, sink_adapter.start_server)
        restart.start()
        try:
            writer.replay([change(3, "c", 1, "a"), change(4, "u", 1, "c")])
        finally:
            restart.join(60)
        sink_adapter.cut_connections()
        writer.replay([change(5, "c", 4, "d")])
    assert sink_adapter.rows() == {1: "c", 2: "b", 4: "d"}


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


def test_a_batch_of_which_a_part_is_stored_is_completed(sink_adapter: SinkAdapter) -> None:
    share = msgspec.structs.replace(SHARE, subjects=("CDC.shop.db.items.*",))
    deliver(sink_adapter, sink_adapter.sink().claim(share), [change(5, "c", 2, "a")])
    again = sink_adapter.sink().claim(share)
    deliver(sink_adapter, again, [change(5, "u", 2, "old"), change(6, "c", 1, "b")])
    assert sink_adapter.rows() == {1: "b", 2: "a"}


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


def test_streams_are_claimed_apart(sink_adapter: SinkAdapter) -> None:
    other = Share("warehouse", "CDC_other", SHARE.created, ("CDC.other.db.items.0",))
    here, there = sink_adapter.sink().claim(SHARE), sink_adapter.sink().claim(other)
    foreign = change(8, "c", 1000, "there")._replace(subject=other.subjects[0])
    deliver(sink_adapter, there, [foreign])
    deliver(sink_adapter, here, [change(3, "c", 1, "here")])
    assert sink_adapter.rows() == {1: "here", 1000: "there"}
    assert sink_adapter.sink().claim(other).offsets == {other.subjects[0]: 8}


def test_sinks_of_one_target_are_claimed_apart(sink_adapter: SinkAdapter) -> None:
    deliver(sink_adapter, sink_adapter.sink().claim(SHARE), [change(3, "c", 1, "here")])
    other = msgspec.structs.replace(SHARE, sink="archive")
    assert sink_adapter.sink().claim(other).offsets == dict.fromkeys(SUBJECTS, 0)


def test_closing_a_writer_twice_or_while_the_server_is_down_is_harmless(
    sink_adapter: SinkAdapter,
) -> None:
    claim = sink_adapter.sink().claim(SHARE)
    writer = sink_adapter.sink().open(claim)
    writer.write(Batch(claim, [change(1, "c", 1, "a")], 1))
    writer.flush()
    sink_adapter.kill_server()
    try:
        writer.close()
        writer.close()
    finally:
        sink_adapter.start_server()
    assert sink_adapter.rows() == {1: "a"}


def test_a_server_that_does_not_answer_is_a_retryable_error(sink_adapter: SinkAdapter) -> None:
    with pytest.raises(RetryableError) as caught:
        sink_adapter.unreachable().claim(SHARE)
    assert "s3cret-word" not in str(caught.value)
    assert "." in caught.value.code


def test_each_missing_setup_is_one_config_error_with_its_cure(sink_adapter: SinkAdapter) -> None:
    cases = sink_adapter.misconfigured()
    assert cases
    for word, make in cases.items():
        with pytest.raises(ConfigError) as caught:
            make().claim(SHARE)
        assert word in str(caught.value)
        assert caught.value.cure


def test_a_check_finds_nothing_where_a_sink_can_start_and_disturbs_none_that_runs(
    sink_adapter: SinkAdapter,
) -> None:
    assert sink_adapter.sink().check() == []
    claim = sink_adapter.sink().claim(SHARE)
    writer = sink_adapter.sink().open(claim)
    assert sink_adapter.sink().check() == []
    writer.write(Batch(claim, [change(1, "c", 1, "a")], 1))
    writer.flush()
    writer.close()
    assert sink_adapter.rows() == {1: "a"}


def test_a_check_tells_what_a_claim_would_fail_with(sink_adapter: SinkAdapter) -> None:
    (away,) = sink_adapter.unreachable().check()
    assert isinstance(away, RetryableError)
    assert "s3cret-word" not in str(away)
    for word, make in sink_adapter.misconfigured().items():
        try:
            (found,) = make().check()
        except ConfigError as error:  # wrong by itself, without a look at the server
            found = error
        assert isinstance(found, ConfigError)
        assert word in str(found)
        assert found.cure
