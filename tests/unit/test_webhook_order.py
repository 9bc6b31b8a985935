"""Which events of a webhook sink may be under way together, and what is sent of them."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contracts.changes import Column, Delivered, TableSchema
from connectors.contracts.sink import Share
from connectors.errors import PermanentError
from connectors.webhook.events import Event, events, identity, message
from connectors.webhook.ordering import Ordering
from connectors.webhook.progress import Progress
from connectors.wrapping import wrapped

if TYPE_CHECKING:
    from connectors.webhook.ordering import Unit

SHARE = Share("hook", "CDC_shop", "2026-01-02T03:04:05Z", ("CDC.shop.>",))
USERS = TableSchema("shop", "public", "users", (Column("id", "bigint", "number"),), ("id",))


def event(sequence: int, key: str, topic: str = "db.users", *, alone: bool = False) -> Event:
    return Event(f"msg_{sequence}", sequence, topic, f"{topic}.u", b"x" * 10, key, alone)


def delivered(
    sequence: int,
    op: str = "c",
    key: str | None = '{"id":7}',
    before: str = "null",
    after: str = '{"id":7}',
    **fields: Any,
) -> Delivered:
    envelope = (
        f'{{"before":{before},"after":{after},"source":{{"ts_ms":1700000000123,"lsn":5}},'
        f'"op":"{op}","ts_ms":1700000009999,"transaction":null}}'
    )
    made = Delivered(
        sequence, "CDC.shop.db.users.3", f"{sequence:08X}-01", key, USERS, "9", True,
        envelope.encode(),
    )  # fmt: skip
    return made._replace(**fields)


KEYS = st.sampled_from(["a", "b", "c", ""])
LOGS = st.lists(
    st.tuples(KEYS, st.sampled_from(["t1", "t2"]), st.sampled_from([False, False, False, True])),
    max_size=40,
)


def conflict(earlier: Event, later: Event) -> bool:
    """Whether the later one must wait for the earlier one."""
    if earlier.topic != later.topic:
        return False
    return earlier.alone or later.alone or earlier.key == later.key


@given(LOGS, st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32))
def test_nothing_overtakes_its_key_and_everything_is_sent(
    log: list[tuple[str, str, bool]], count: int, parallelism: int, seed: int
) -> None:
    random_ = random.Random(seed)
    ordering, progress = Ordering(), Progress()
    waiting = [
        event(number, key, topic, alone=alone)
        for number, (key, topic, alone) in enumerate(log, start=1)
    ]
    everything = list(waiting)
    under_way: list[list[Unit]] = []
    done: list[int] = []
    while waiting or ordering.ready or under_way:
        choice = random_.random()
        if waiting and choice < 0.4:
            added = waiting.pop(0)
            progress.begin(ordering.add(added))
            progress.end(added.sequence)
        elif ordering.ready and len(under_way) < parallelism and choice < 0.8:
            taken = ordering.take(count, 1000)
            assert 0 < len(taken) <= count
            flying = [unit.event for units in under_way for unit in units]
            for index, unit in enumerate(taken):
                for other in everything:
                    if other.sequence >= unit.event.sequence or not conflict(other, unit.event):
                        continue
                    before = [each.event for each in taken[:index]]
                    assert other.sequence in done or other in before
                    assert other not in flying
            under_way.append(taken)
        elif under_way:
            units = under_way.pop(random_.randrange(len(under_way)))
            ordering.finish(units)
            done += [unit.event.sequence for unit in units]
            reached = progress.advance()
            missing = [each.sequence for each in everything if each.sequence not in done]
            begun = len(everything) - len(waiting)
            assert reached == min([*(m - 1 for m in missing), begun])
    assert sorted(done) == list(range(1, len(everything) + 1))
    assert progress.idle


def test_a_request_takes_the_oldest_and_stays_within_its_size() -> None:
    ordering = Ordering()
    for sequence in range(1, 10):
        ordering.add(event(sequence, str(sequence % 2)))
    assert [unit.event.sequence for unit in ordering.take(100, 44)] == [1, 2, 3, 4]
    assert not ordering.ready  # both keys are under way
    assert ordering.take(100, 1000) == []


def test_a_single_event_larger_than_the_size_is_given_alone() -> None:
    ordering = Ordering()
    for sequence in (1, 2):
        ordering.add(event(sequence, str(sequence)))
    assert [unit.event.sequence for unit in ordering.take(100, 5)] == [1]
    assert [unit.event.sequence for unit in ordering.take(100, 5)] == [2]


def test_an_offset_does_not_pass_a_change_of_which_a_part_is_missing() -> None:
    ordering, progress = Ordering(), Progress()
    units = [ordering.add(event(sequence, key)) for sequence, key in ((4, "a"), (5, "b"), (5, "c"))]
    for unit in units:
        progress.begin(unit)
    progress.end(9)
    taken = [ordering.take(1, 1000) for _ in units]
    ordering.finish(taken[0])
    ordering.finish(taken[1])
    assert progress.advance() == 4
    ordering.finish(taken[2])
    assert progress.advance() == 9
    assert progress.idle


def test_an_event_has_the_form_of_standard_webhooks() -> None:
    (made,) = events([delivered(17, unavailable=("bio",), json_nulls=("doc",))], identity(SHARE))
    sent = message([made], "event")
    assert json.loads(sent.body) == {
        "id": sent.id,
        "type": "db.users.c",
        "timestamp": "2023-11-14T22:13:20.123Z",
        "key": {"id": 7},
        "position": "00000011-01",
        "unavailable": ["bio"],
        "json_nulls": ["doc"],
        "data": json.loads(delivered(17).envelope),
    }
    assert sent.content_type == b"application/json"


def test_ids_are_stable_and_tell_streams_and_sinks_apart() -> None:
    first, again = (identity(SHARE) for _ in range(2))
    others = [
        identity(msgspec.structs.replace(SHARE, **{name: "x"}))
        for name in ("sink", "stream", "created")
    ]
    assert first == again
    assert len({first, *others}) == 4
    log = [delivered(1), delivered(2), delivered(2), delivered(2), delivered(3)]
    made = [each.id.removeprefix(first) for each in events(log, first)]
    assert made == ["_1", "_2", "_2_2", "_2_3", "_3"]
    assert all("." not in each.id for each in events(log, first))  # it parts what is signed


def test_batches_of_other_changes_have_other_ids() -> None:
    made = list(events([delivered(n) for n in range(1, 5)], identity(SHARE)))
    whole = message(made, "list")
    assert whole.id == message(made, "list").id
    assert whole.id.startswith(f"{made[0].id}-4-")
    assert message([made[0], made[1], made[3]], "list").id != whole.id
    assert message(made[:1], "list").id == made[0].id


def test_lists_and_lines_hold_the_same_events() -> None:
    made = list(events([delivered(1), delivered(2)], identity(SHARE)))
    listed, lined = message(made, "list"), message(made, "ndjson")
    assert json.loads(listed.body) == [json.loads(line) for line in lined.body.splitlines()]
    assert lined.body.endswith(b"}\n")
    assert (listed.content_type, lined.content_type) == (
        b"application/json",
        b"application/x-ndjson",
    )


@pytest.mark.parametrize(
    ("change", "alone"),
    [
        (delivered(1, "c"), False),
        (delivered(1, "u"), False),
        (delivered(1, "u", before='{"id":7}'), False),
        (delivered(1, "u", before='{"id": 7,"name":"x"}'), False),
        (delivered(1, "u", before='{"id":8}'), True),
        (delivered(1, "u", before='{"name":"x"}'), True),
        (delivered(1, "u", '{"id":"\\u00e9"}', before='{"id":"é"}'), False),
        (delivered(1, "u", '{"id":1.10}', before='{"id":1.1}'), False),
        (delivered(1, "d", before='{"id":8}', after="null"), False),
        (delivered(1, "t", None, after="null"), True),
        (delivered(1, "m", None, after="null"), False),
        (delivered(1, envelope=b'{"before":null,"after":{"id":7},"op":"u"}'), False),
    ],
)
def test_truncates_and_changes_of_key_stand_alone(change: Delivered, alone: bool) -> None:
    (made,) = events([change], "msg")
    assert made.alone is alone


@pytest.mark.parametrize(("op", "row"), [("u", b'{"id":7,"n":1.10}'), ("d", b"null")])
def test_of_an_unwrapped_change_the_row_alone_is_sent(op: str, row: bytes) -> None:
    (made,) = events([delivered(1, envelope=wrapped(op, '{"id":7}', row))], "msg")
    assert made.body.endswith(b',"data":' + row + b"}")
    assert json.loads(made.body)["type"] == f"db.users.{op}"
    assert json.loads(made.body)["key"] == {"id": 7}


@pytest.mark.parametrize("envelope", [b'{"id":7}', b'{"op":1,"ts_ms":"x"}', b"[1]", b"null", b"{"])
def test_what_is_no_envelope_is_refused(envelope: bytes) -> None:
    with pytest.raises(PermanentError) as caught:
        list(events([delivered(1), delivered(2, envelope=envelope)], "msg"))
    assert caught.value.sequence == 2
