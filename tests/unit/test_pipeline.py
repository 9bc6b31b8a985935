from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contracts.changes import DDL, Change, Delivered, Failure, TableSchema
from connectors.contracts.sink import Batch, Claim, Share
from connectors.contracts.source import Checkpoint, Chunk
from connectors.errors import ConfigError
from dataflows.deliver import transform
from dataflows.pipeline import (
    Captured,
    DefaultPipeline,
    Routed,
    pipelines_of,
    reprocess,
    sink_steps,
)
from dataflows.spec import Config, parse
from tests.unit.changes import ROW, USERS, change, delivered, row

if TYPE_CHECKING:
    from connectors.jetstream.stream import StreamClaim

_CLAIM = cast("StreamClaim", object())
ORDERS = TableSchema("shop", "sales", "orders", USERS.columns, ("id",))


def _at(topic: str, key: str, partitions: int) -> str:
    """A subject, its partition by the documented hash."""
    return f"{topic}{crc32(key.encode()) % partitions}"


def config(pipelines: dict[str, Any], *, sink: dict[str, Any] | None = None, **more: Any) -> Config:
    postgres = {"type": "postgres", "dsn": "host=nowhere"}
    return parse(
        {
            "nats": {},
            "sources": {"shop": postgres, "crm": postgres},
            "pipelines": pipelines,
            "sinks": {"out": postgres | {"topics": ["*"]} | (sink or {})},
            **more,
        },
        {"SALT": "pepper"},
    )


def routed(pipelines: dict[str, Any], *changes: Change, **more: Any) -> Routed:
    chunk = Chunk("shop", list(changes), Checkpoint("9", {"lsn": "9"}), {"lsn": "1"})
    return pipelines_of(config(pipelines, **more), "shop").apply(Captured(_CLAIM, chunk))


def subjects(pipelines: dict[str, Any], *changes: Change, **more: Any) -> list[str]:
    return [subject for subject, _ in routed(pipelines, *changes, **more).messages]


def test_a_source_without_a_pipeline_keeps_its_default_routing() -> None:
    assert isinstance(pipelines_of(config({}), "shop"), DefaultPipeline)
    other = config({"users": {"from": ["shop"]}})
    assert isinstance(pipelines_of(other, "crm"), DefaultPipeline)
    assert not isinstance(pipelines_of(other, "shop"), DefaultPipeline)


def test_a_change_goes_through_all_pipelines_that_take_it_in_their_order() -> None:
    pipelines = {
        "first": {"tables": ["public.*"], "topic": "one.{schema}.{table}"},
        "other": {"tables": ["sales.*"], "topic": "two"},
        "third": {"from": ["shop"], "topic": "all.{source}"},
        "crm": {"from": ["crm"], "topic": "never"},
    }
    result = routed(pipelines, change(position="1"), change(table=ORDERS, position="2"))
    assert [(subject, one.position) for subject, one in result.messages] == [
        ("CDC.shop.one.public.users.0", "1"),
        ("CDC.shop.all.shop.0", "1"),
        ("CDC.shop.two.0", "2"),
        ("CDC.shop.all.shop.0", "2"),
    ]
    assert (result.checkpoint, result.resume) == (Checkpoint("9", {"lsn": "9"}), {"lsn": "1"})
    assert result.makers == []


def test_what_no_pipeline_takes_is_not_stored_and_a_pipeline_without_tables_takes_all() -> None:
    message = Change("m", None, "1", None, "", True, b'{"before":null,"after":null,"op":"m"}')
    assert subjects({"users": {"tables": ["public.users"]}}, change(table=ORDERS), message) == []
    assert subjects({"all": {}}, change(), change(table=ORDERS), message) == [
        "CDC.shop.db.users.0",
        "CDC.shop.db.sales.orders.0",
        "CDC.shop.messages.0",
    ]


def test_undecoded_changes_are_passed_on_as_they_are() -> None:
    blob = change()._replace(envelope=b"not even JSON")
    [(_, made)] = routed({"all": {"topic": "t", "filter": "op == 'c'"}}, blob).messages
    assert made is blob


@pytest.mark.parametrize(
    ("last", "kept", "expected"),
    [
        ("abc", "abc", "c"),
        ("abc", "ab", "b"),
        ("abc", "", ""),
        ("bc", "ac", "c"),
        ("bc", "a", "a"),
        ("ab", "bc", "b"),
    ],
)
def test_the_end_of_a_transaction_is_marked_on_the_last_change_that_is_kept(
    last: str, kept: str, expected: str
) -> None:
    """`last` names the transactions' ends, each alone or the last of 'abc' as one."""
    transactions = {"abc": "111", "bc": "122", "ab": "112"}[last]
    ends = {"abc": (False, False, True), "bc": (True, False, True), "ab": (False, True, True)}
    changes = [
        change(after=f'{{"id":1,"note":"{name}"}}', transaction=number, last=end)
        for name, number, end in zip("abc", transactions, ends[last], strict=True)
    ]
    wanted = ", ".join(f"'{name}'" for name in kept)
    result = routed({"p": {"filter": f"after.note in [{wanted}]"}}, *changes)
    marked = {row(one)["note"] for _, one in result.messages if one.last}
    assert set(expected) <= marked
    for transaction in set(transactions):
        ends_kept = [one.last for _, one in result.messages if one.transaction == transaction]
        assert ends_kept == [False] * (len(ends_kept) - 1) + [True] * bool(ends_kept)


def test_of_several_messages_the_last_one_ends_the_transaction() -> None:
    result = routed({"a": {"topic": "a"}, "b": {"topic": "b"}}, change(last=True))
    assert [one.last for _, one in result.messages] == [False, True]


def test_a_transaction_that_began_in_an_earlier_chunk_may_end_without_a_mark() -> None:
    before = change(transaction="1", last=True)
    result = routed({"p": {"filter": "op == 'c'"}}, before, change("u", transaction="2", last=True))
    assert [(one.transaction, one.last) for _, one in result.messages] == [("1", True)]


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.lists(st.booleans(), min_size=1, max_size=4)), max_size=5
    )
)
def test_every_transaction_with_a_kept_change_ends_once_and_at_its_end(
    transactions: list[tuple[int, list[bool]]],
) -> None:
    changes = [
        change(
            after=f'{{"id":1,"active":{json.dumps(kept)}}}',
            transaction=str(number),
            last=index == len(rows) - 1,
        )
        for number, (_, rows) in enumerate(transactions)
        for index, kept in enumerate(rows)
    ]
    pipelines = {"a": {"filter": "after.active", "topic": "a"}, "b": {"filter": "after.active"}}
    found = [(one.transaction, one.last) for _, one in routed(pipelines, *changes).messages]
    for number, (_, rows) in enumerate(transactions):
        marks = [last for transaction, last in found if transaction == str(number)]
        assert marks == [False] * (2 * sum(rows) - 1) + [True] * any(rows)


def test_partitions_follow_the_key_or_the_columns_that_are_chosen() -> None:
    topics = {"topics": {"db.users": {"partitions": 8}}}
    assert subjects({"p": {}}, change(), **topics) == [_at("CDC.shop.db.users.", '{"id":8}', 8)]
    note = r'{"note":"gr\u00f6\u00dfe","active":true}'
    assert subjects({"p": {"key": ["note", "active"]}}, change(), **topics) == [
        f"CDC.shop.db.users.{crc32(note.encode()) % 8}"
    ]
    gone = change("d", before='{"id":8,"note":"x"}')
    assert subjects({"p": {"key": ["note"]}}, gone, change("t", key=None), **topics) == [
        _at("CDC.shop.db.users.", '{"note":"x"}', 8),
        "CDC.shop.db.users.0",
    ]


def test_columns_that_choose_the_partition_are_those_behind_the_transforms() -> None:
    pipeline = {"key": ["mail"], "transform": [{"rename": {"fields": {"email": "mail"}}}, "unwrap"]}
    assert subjects({"p": pipeline}, change(), topics={"db.users": {"partitions": 9}}) == [
        _at("CDC.shop.db.users.", '{"mail":"ada@example.org"}', 9)
    ]


@pytest.mark.parametrize(
    ("on_error", "expected"),
    [
        ("dead_letter", [_at("CDC.shop.dead.db.users.", '{"id":8}', 8)]),
        ("drop", []),
        ("keep", [_at("CDC.shop.db.users.", '{"id":8}', 8)]),
    ],
)
def test_a_column_without_a_value_cannot_choose_the_partition(
    on_error: str, expected: list[str]
) -> None:
    topics = {"topics": {"db.users": {"partitions": 8}}}
    gone = change("d", before='{"id":8}')
    unknown = change("u", unavailable=("note",))
    for one in (gone, unknown):
        pipeline = {"key": ["note"], "on_error": on_error}
        assert subjects({"p": pipeline}, one, **topics) == expected


def test_a_change_that_fails_is_stored_as_it_came_under_a_subject_of_its_own() -> None:
    was = change("d", before='{"id":8}')
    pipeline = {"filter": "before.country == 'DE'", "topic": "x.{table}"}
    [(subject, made)] = routed({"users": pipeline}, was).messages
    assert subject == "CDC.shop.dead.x.users.0"
    found = Failure.decode(made.failed)
    assert (found.pipeline, found.code) == ("users", "filter.no_such_field")
    assert made._replace(failed="") == was
    assert subjects({"users": pipeline | {"on_error": "drop"}}, was) == []
    [(subject, made)] = routed({"users": pipeline | {"on_error": "keep"}}, was).messages
    assert (subject, made) == ("CDC.shop.x.users.0", was)


def test_events_go_to_the_topic_of_what_they_belong_to() -> None:
    columns = [
        {"name": name, "type": "text"}
        for name in ("id", "aggregatetype", "aggregateid", "type", "payload")
    ]
    shape = TableSchema.decode(
        json.dumps(
            {
                "source": "shop",
                "schema": "public",
                "name": "outbox",
                "columns": columns,
                "key": ["id"],
            }
        ).encode()
    )
    after = '{"id":"1","aggregatetype":"Big Order","aggregateid":"42","type":"x","payload":"{}"}'
    event = change(table=shape, after=after, key='{"id":"1"}')
    gone = change("d", table=shape, before='{"id":"1"}', key='{"id":"1"}')
    wrong = change("u", table=shape, after=after, key='{"id":"1"}')
    topics = {"topics": {"outbox.event.Big%20Order": {"partitions": 64}}}
    number = crc32(b'{"aggregateid":"42"}') % 64
    assert subjects({"events": {"transform": ["outbox"]}}, event, gone, wrong, **topics) == [
        f"CDC.shop.outbox.event.Big%20Order.{number}",
        "CDC.shop.dead.outbox.event.unknown.0",
    ]
    own = {"events": {"transform": ["outbox"], "topic": "events.{aggregatetype}.{source}"}}
    assert subjects(own, event) == ["CDC.shop.events.Big%20Order.shop.0"]


def test_a_table_cannot_take_the_word_of_the_dead_letters() -> None:
    shape = TableSchema("shop", "public", "dead", USERS.columns, ("id",))
    assert subjects({"p": {"topic": "{table}.x"}}, change(table=shape)) == ["CDC.shop.%64ead.x.0"]


@pytest.mark.parametrize(
    ("pipeline", "where", "said"),
    [
        ({"filter": "op !! 'd'"}, "filter", "line 1, column 4: Syntax error"),
        ({"filter": "op == 1"}, "filter", "no matching overload"),
        ({"tables": ["users"]}, "tables.0", "schema.table"),
        ({"tables": []}, "tables", "at least 1"),
        ({"from": ["shoop"]}, "from", "there is no source 'shoop'"),
        ({"topic": "db.{tabel}"}, "", "{tabel} is unknown"),
        ({"topic": "db.{aggregatetype}"}, "", "only the transform `outbox`"),
        ({"topic": "dead.{table}"}, "", "the word dead is taken"),
        ({"topic": "db. x"}, "", "words of letters"),
        ({"transform": ["unwrap", {"drop": ["a"]}]}, "", "unwrap stands last"),
        ({"transform": [{"mask": {"fields": ["a"], "width": 1}}]}, "transform.0.mask.width",
         "unknown key"),
        ({"transform": [{"set": {"cel": {"a": "b"}}}]}, "transform.0.set.cel.a", "undeclared"),
        ({"on_error": "ignore"}, "on_error", "'drop', 'keep' or 'dead_letter'"),
        ({"key": []}, "key", "at least 1"),
    ],
)  # fmt: skip
def test_a_wrong_pipeline_is_refused_with_its_place(
    pipeline: dict[str, Any], where: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config({"users": pipeline})
    assert caught.value.where == ".".join(["pipelines.users", *([where] if where else [])])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("sink", "where"),
    [
        ({"filter": "opp == 'd'"}, "sinks.out.filter"),
        ({"transform": ["unwrap"]}, "sinks.out.transform"),
        ({"transform": ["outbox"]}, "sinks.out.transform"),
        ({"transform": [{"drop": [""]}]}, "sinks.out.transform.0.drop.fields.0"),
    ],
)
def test_a_wrong_step_of_a_sink_is_refused_with_its_place(sink: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config({}, sink=sink)
    assert caught.value.where == where


def test_a_function_is_looked_for_before_anything_starts() -> None:
    with pytest.raises(ConfigError) as caught:
        pipelines_of(config({"users": {"transform": [{"python": "os.path:join"}]}}), "shop")
    assert caught.value.where == "pipelines.users.transform.0.python"


def test_a_salt_is_not_shown() -> None:
    mask = {"mask": {"fields": ["email"], "with": "sha256", "salt": "${SALT}"}}
    assert "pepper" not in repr(config({"users": {"transform": [mask]}}))


def _batch(*changes: Delivered) -> Batch:
    share = Share("out", "CDC_shop", "now", ("CDC.shop.>",))
    return Batch(Claim(share, 1, {}), list(changes), 9, 7)


def test_a_sink_filters_and_changes_what_it_is_given() -> None:
    sink = {
        "filter": "op != 'd'",
        "transform": [{"drop": ["note"]}, {"cast": {"fields": {"email": "integer"}}}],
    }
    whole = config({}, sink=sink)
    steps = sink_steps(whole, whole.sinks["out"])
    good = delivered(change(after='{"id":8,"email":"12","note":"x"}'), sequence=1)
    gone = delivered(change("d", before='{"id":8}'), sequence=2)
    bad = delivered(change(), sequence=3)
    dead = delivered(change("d")._replace(failed='["users","c","m"]'), sequence=4)
    batch = transform(steps, _batch(good, gone, bad, dead))
    assert isinstance(batch, Batch)
    first, second, third = batch.changes
    assert row(first) == {"id": 8, "email": 12}
    assert (first.sequence, first.subject) == (1, good.subject)
    assert second._replace(failed="") == bad
    assert Failure.decode(second.failed).pipeline == "sinks.out"
    assert third is dead
    assert (batch.upto, batch.complete) == (9, 7)


def test_a_sink_without_steps_is_given_the_batch_itself() -> None:
    whole = config({})
    batch = _batch(delivered(change()))
    assert transform(sink_steps(whole, whole.sinks["out"]), batch) is batch


def _letter(pipelines: dict[str, Any], was: Change) -> Delivered:
    [(subject, made)] = routed(pipelines, was).messages
    assert made.failed
    return delivered(made, subject)


def test_a_dead_letter_goes_through_its_pipeline_again_and_then_through_the_sinks_steps() -> None:
    rename = {"rename": {"fields": {"id": "user_id"}}}
    cast = {"cast": {"fields": {"note": "integer"}}}
    letter = _letter({"users": {"transform": [rename, cast], "topic": "x"}}, change())
    assert letter.key == '{"user_id":8}'
    mended = config(
        {"users": {"transform": [rename], "topic": "x"}}, sink={"transform": [{"keep": ["email"]}]}
    )
    [made] = reprocess(mended, mended.sinks["out"], letter)
    assert (made.subject, made.sequence, made.failed) == ("CDC.shop.x.0", letter.sequence, "")
    assert made.key == '{"user_id":8}'
    assert row(made) == {"user_id": 8, "email": "ada@example.org"}


def test_a_dead_letter_may_fail_again_or_be_filtered_out_now() -> None:
    broken = {"users": {"filter": "before.x == 1"}}
    letter = _letter(broken, change())
    same = config(broken)
    [again] = reprocess(same, same.sinks["out"], letter)
    assert again == letter
    without = config({"users": {"filter": "op == 'd'"}})
    assert reprocess(without, without.sinks["out"], letter) == []
    nobody = config({"others": {}})
    [gone] = reprocess(nobody, nobody.sinks["out"], letter)
    assert Failure.decode(gone.failed).code == "pipeline.unknown"
    assert gone._replace(failed="") == letter._replace(failed="")


def test_a_letter_of_a_sink_goes_through_its_steps_again() -> None:
    whole = config({}, sink={"transform": [{"cast": {"fields": {"note": "integer"}}}]})
    good = delivered(change(after=ROW.replace('"größe"', '"5"')))
    [made] = reprocess(whole, whole.sinks["out"], good)
    assert row(made)["note"] == 5
    [bad] = reprocess(whole, whole.sinks["out"], delivered(change()))
    assert Failure.decode(bad.failed).pipeline == "sinks.out"


@pytest.mark.parametrize("pipelines", [{}, {"all": {"filter": "true"}}])
def test_no_pipeline_is_given_a_ddl_statement(pipelines: dict[str, Any]) -> None:
    first, second = change(), change()
    ddl = Change(DDL, None, first.position, None, "9", True, b"{}")
    made = routed(pipelines, ddl, first, second)
    assert [each for _, each in made.messages] == [first, second]
    assert made.shapes == [ddl, first]
