"""The parts of the explorer that ask nobody: places, tokens, filters, fates, indexes of keys."""

from __future__ import annotations

import os
import subprocess
import sys
from bisect import bisect_left
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.claims import Entry, Offset, placed
from connectors.contracts.sink import Share
from connectors.jetstream.consumers import Progress, owner
from connectors.jetstream.direct import Raw
from connectors.letters import Head, Reason, State
from control.explorer import page_tokens
from control.explorer.cuts import Cut, narrowed
from control.explorer.deliveries import Fate, delivery
from control.explorer.key_index import KeyIndex
from control.explorer.page_tokens import Place as TokenPlace
from control.explorer.page_tokens import Token, question_digest
from control.explorer.progress import Place
from control.explorer.readers import Reader
from control.explorer.timestamps import from_nanoseconds, to_nanoseconds
from control.explorer.wanted import Look, Wanted, key_text
from control.letters.selection import Selection

LANES = st.lists(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=200, unique=True).map(sorted),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(lanes=LANES, slack=st.integers(0, 20), data=st.data())
def test_two_cuts_hold_what_is_wanted_and_little_more(
    lanes: list[list[int]], slack: int, data: st.DataObject
) -> None:
    total = sum(map(len, lanes))
    first = data.draw(st.integers(0, total - 1))
    last = data.draw(st.integers(first + 1, total))
    asked = 0

    def cut(value: int) -> Cut:
        ranks = tuple(bisect_left(lane, value) for lane in lanes)
        return Cut(value, ranks, ranks)

    def probe(value: int) -> Cut:
        nonlocal asked
        asked += 1
        return cut(value)

    begin, end = cut(min(lane[0] for lane in lanes)), cut(max(lane[-1] for lane in lanes) + 1)
    low, high = narrowed(begin, end, first, last, probe, slack)
    assert low.total <= first
    assert last <= high.total
    # Values that several lanes share cannot be cut in two.
    assert first - low.total <= slack + len(lanes)
    assert high.total - last <= slack + len(lanes)
    # Every third step halves what is left, on either side.
    assert asked <= 2 * 3 * 21


def test_an_even_lane_takes_few_questions() -> None:
    count, asked = 1_000_000, 0

    def probe(value: int) -> Cut:
        nonlocal asked
        asked += 1
        return Cut(value, (value,), (value * 10 // 11,))

    begin, end = Cut(0, (0,), (0,)), Cut(count * 11 // 10, (count,), (count,))
    low, _ = narrowed(begin, end, 499_900, count, probe, 64)
    assert 499_900 - 64 <= low.total <= 499_900
    assert asked <= 4


@settings(deadline=None)
@given(st.integers(0, 2**62))
def test_times_keep_their_nanoseconds(moment: int) -> None:
    assert to_nanoseconds(from_nanoseconds(moment)) == moment


def test_times_have_any_number_of_digits() -> None:
    second = 1_700_000_000 * 10**9
    assert to_nanoseconds("2023-11-14T22:13:20Z") == second
    assert to_nanoseconds("2023-11-14T22:13:20.5Z") == second + 500_000_000
    assert to_nanoseconds("2023-11-14T23:13:20.000000001+01:00") == second + 1
    with pytest.raises(ValueError, match="offset"):
        to_nanoseconds("2023-11-14T22:13:20.5")


def test_a_token_comes_back_and_belongs_to_its_question() -> None:
    token = Token("q", {"CDC_shop": TokenPlace(7, 4711)}, 3)
    text = page_tokens.encode(token)
    assert page_tokens.decode(text, "q") == token
    with pytest.raises(ValueError, match="another filter"):
        page_tokens.decode(text, "other")
    for wrong in ("x", "", text[:-4], "äöü", text + text):
        with pytest.raises(ValueError, match="page token"):
            page_tokens.decode(wrong, "other")


def test_a_question_is_the_same_in_every_service() -> None:
    code = (
        "from connectors.letters import State\n"
        "from control.explorer.page_tokens import question_digest\n"
        "from control.explorer.wanted import Wanted\n"
        "from control.letters.selection import Selection\n"
        "print(question_digest('a', Wanted(ops=frozenset('cudrt'), key='k')),\n"
        "      question_digest(Selection(states=frozenset(State), ops=frozenset('cudr'))))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1
    assert question_digest(Wanted(ops=frozenset("c"))) != question_digest(Wanted(key="c"))


def raw(header: str, payload: bytes = b"{}", subject: str = "CDC.shop.db.users.2") -> Raw:
    own = f"\r\nNats-Subject: {subject}\r\nNats-Sequence: 5\r\n\r\n"
    return Raw(f"NATS/1.0\r\n{header}{own}".encode(), payload)


def test_a_look_at_keys_ops_texts_and_partitions() -> None:
    user = raw('Cdc-Position: 1\r\nCdc-Key: {"id":1}', '{"after":{"n":"Zoë"},"op":"u"}'.encode())
    assert Look(Wanted(key='{"id":1}')).takes(user)[0]
    assert not Look(Wanted(key='{"id":11}')).takes(user)[0]
    assert not Look(Wanted(key='"id":1')).takes(user)[0]
    assert Look(Wanted(ops=frozenset("du"))).takes(user)[0]
    assert not Look(Wanted(ops=frozenset("c"))).takes(user)[0]
    # The op is that of the envelope, not whatever a row says.
    other = raw("Cdc-Position: 1", b'{"after":{"x":{"op":"d"}},"op":"c"}')
    assert not Look(Wanted(ops=frozenset("d"))).takes(other)[0]
    alone = raw("Cdc-Position: 1\r\nCdc-Op: d", b"null")
    assert Look(Wanted(ops=frozenset("d"))).takes(alone)[0]
    assert Look(Wanted(text="Zoë")).takes(user)[0]
    assert Look(Wanted(text="Zoë")).takes(raw("A: b", rb'{"n":"Zo\u00eb"}'))[0]
    assert not Look(Wanted(text="zoë")).takes(user)[0]
    assert Look(Wanted(text='say "hi"')).takes(raw("A: b", rb'{"n":"say \"hi\""}'))[0]
    assert Look(Wanted(partition=2)).takes(user)[0]
    assert not Look(Wanted(partition=1)).takes(user)[0]
    # One topic's partition is chosen by its subject.
    assert Look(Wanted(partition=1, topic="db.users")).takes(user)[0]


def test_subjects_of_what_is_wanted() -> None:
    assert Wanted().subjects("shop") == ("CDC.shop.*.>",)
    assert Wanted(topic="db.users").subjects("shop") == (
        "CDC.shop.db.users.*",
        "CDC.shop.dead.db.users.*",
    )
    assert Wanted(topic="db.users", partition=3).subjects("shop") == (
        "CDC.shop.db.users.3",
        "CDC.shop.dead.db.users.3",
    )
    assert Wanted(topic="db.*", partition=3).subjects("shop") == (
        "CDC.shop.db.>",
        "CDC.shop.dead.db.>",
    )


def test_keys_as_they_are_stored() -> None:
    assert key_text('{ "id" : 7,"n":"ä" }') == r'{"id":7,"n":"\u00e4"}'
    for wrong in ("7", "[]", "{}", "{", '"id"', '{"id": NaN}', "[" * 100_000):
        with pytest.raises(ValueError, match="JSON object"):
            key_text(wrong)


def test_a_key_keeps_every_digit_of_its_numbers() -> None:
    exact = '{"a":12345678901234567890.123456789,"b":1.10,"c":1e5,"d":-0.0}'
    assert key_text(exact.replace(",", " ,\n\t").replace(":", " : ")) == exact
    digits = "9" * 5000  # more than Python turns into an int
    assert key_text(f'{{"id": {digits}}}') == f'{{"id":{digits}}}'
    texts = r'{"a b" : "x  \"{1.10}\" \\" , "n":[1, {"m": null}]}'
    assert key_text(texts) == r'{"a b":"x  \"{1.10}\" \\","n":[1,{"m":null}]}'
    near = '{"id":12345678901234567890.2}'
    other = head(State.FAILED, key='{"id":12345678901234567890.1}')
    assert not Selection(key=near).matches(other)
    assert Selection(key=near.replace(":", ": ")).matches(head(State.FAILED, key=near))
    assert Selection(key="1.10").matches(head(State.FAILED, key='{"id":1.10}'))
    assert Selection(key="a b").matches(head(State.FAILED, key='{"id":"a b"}'))


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=300))
def test_an_index_finds_every_change_of_a_row(keys: list[int]) -> None:
    index = KeyIndex()
    for number, key in enumerate(keys, 1):
        index.add(number * 3, f'NATS/1.0\r\nA: b\r\nCdc-Key: {{"id":{key}}}\r\n\r\n'.encode())
    index.add(10_000, b"NATS/1.0\r\nA: b\r\n\r\n")  # a change without a key
    for key in range(31):
        expected = [number * 3 for number, each in enumerate(keys, 1) if each == key]
        assert index.find(f'{{"id":{key}}}') == expected
    assert index.upto == 10_000
    assert index.size == 16 * len(keys)


def head(state: State, error: str = "", sequence: int = 5, key: str = '{"id":17}') -> Head:
    reason = Reason("PermanentError", error, "it is bad" if error else "")
    return Head(
        "warehouse", "CDC_shop", "2026", sequence, "CDC.shop.db.users.0", (), state, reason, 1,
        "2026-01-02T03:04:05.678Z", "1", key, False,
    )  # fmt: skip


def test_what_became_of_a_message() -> None:
    subject = "CDC.shop.db.users.0"
    known = Place({"CDC.shop.db.users.*": 7}, Progress(3, 0, 0, 0))

    def fate(place: Place, sequence: int, letter: Head | None = None) -> Fate:
        return delivery("warehouse", subject, sequence, place, letter).fate

    assert (fate(known, 7), fate(known, 8)) == (Fate.SENT, Fate.UNSENT)
    away = Place(None, Progress(3, 0, 0, 0))
    assert (fate(away, 3), fate(away, 4)) == (Fate.SENT, Fate.UNKNOWN)
    assert fate(Place(None, None), 1) is Fate.UNKNOWN
    assert fate(Place({"CDC.shop.app.>": 9}, None), 1) is Fate.UNSENT
    for state, expected in (
        (State.FAILED, Fate.FAILED), (State.SKIPPED, Fate.FAILED), (State.PARKED, Fate.PARKED)
    ):  # fmt: skip
        assert fate(known, 5, head(state)) is expected
    told = delivery("warehouse", subject, 5, known, head(State.FAILED, "postgres.constraint"))
    assert told.error == "[postgres.constraint] it is bad"


def test_whose_a_consumer_is() -> None:
    assert owner("ware-house-12") == ("ware-house", 12, 1)
    assert owner("ware-house-12_3") == ("ware-house", 12, 3)
    assert owner("headers-0af") is None


def test_what_a_sink_reads() -> None:
    reader = Reader("warehouse", "postgres", ("db.users", "app.*"), ("shop",))
    assert reader.reads("shop", "CDC.shop.db.users.3")
    assert reader.reads("shop", "CDC.shop.dead.db.users.3")
    assert reader.reads("shop", "CDC.shop.app.a.b.0")
    assert not reader.reads("shop", "CDC.shop.db.orders.0")
    assert not reader.reads("store", "CDC.store.db.users.3")
    # Its flow tells what is wrong with its topics.
    assert not Reader("odd", "postgres", ("a.*.b",), ("shop",)).reads("shop", "CDC.shop.a.x.b.0")


def test_letters_are_chosen_by_all_conditions_together() -> None:
    heads = [
        head(State.FAILED, "postgres.constraint"),
        head(State.PARKED, sequence=6),
    ]

    def chosen(selection: Selection) -> list[int]:
        return [each.sequence for each in heads if selection.matches(each)]

    assert Selection().is_all
    assert not Selection(topic="db.*").is_all
    assert chosen(Selection()) == [5, 6]
    assert chosen(Selection(source="shop", topic="db.*", key="17")) == [5, 6]
    assert chosen(Selection(source="store")) == []
    assert chosen(Selection(states=frozenset({State.PARKED}))) == [6]
    assert chosen(Selection(error="constraint")) == [5]
    assert chosen(Selection(error_code="postgres")) == []
    assert chosen(Selection(sequences=frozenset({6, 7}))) == [6]
    assert chosen(Selection(partition=0)) == [5, 6]
    assert chosen(Selection(partition=1)) == []
    assert not Selection(partition=0).is_all
    assert not Selection(text="x").is_all
    assert Selection(ops=frozenset("c")).needs_content
    assert chosen(Selection(first=6)) == [6]
    assert chosen(Selection(last=5)) == [5]
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    assert chosen(Selection(start=moment)) == [5, 6]
    assert chosen(Selection(end=moment)) == []


def test_a_share_that_is_set_to_a_place_forgets_what_it_had() -> None:
    share = Share("warehouse", "CDC_shop", "now", ("CDC.shop.db.>",))
    entry = Entry(4, {"CDC.shop.db.users.*": Offset("now", 90), "CDC.shop.>": Offset("now", 80)})
    assert placed(entry, share, 7) == Entry(5, {"CDC.shop.db.>": Offset("now", 7)})
