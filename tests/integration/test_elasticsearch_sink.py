"""What the Elasticsearch sink makes of changes, on a real node."""

from __future__ import annotations

from contextlib import closing
from hashlib import sha256
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import pytest

from connectors.contracts.changes import Column
from connectors.contracts.sink import Batch, Share
from connectors.errors import ConfigError, GapError, PermanentError
from tests.integration.elasticsearch_documents import ID, ITEMS, Place, batch, shape

if TYPE_CHECKING:
    from connectors.contracts.changes import Delivered
    from tests.servers.elasticsearch import ElasticsearchNode

pytestmark = pytest.mark.servers

LONG = "x" * 3000


@pytest.fixture
def place(elasticsearch_node: ElasticsearchNode) -> Place:
    return Place(elasticsearch_node)


def mapping(place: Place, table: str = "items") -> dict[str, Any]:
    index = f"{place.name}-{table}"
    status, answer = place.node.request("GET", f"/{index}/_mapping")
    assert status == 200, answer
    properties: dict[str, Any] = answer[index]["mappings"]["properties"]
    return properties


def raw(place: Place, id_: str, table: str = "items") -> bytes:
    """A document as it is stored."""
    parts = urlsplit(place.node.url)
    with closing(HTTPConnection(str(parts.hostname), parts.port, timeout=60)) as connection:
        connection.request("GET", f"/{place.name}-{table}/_source/{id_}")
        return connection.getresponse().read()


def test_a_document_is_the_row_byte_by_byte(place: Place) -> None:
    table = shape("items", ID, Column("n", "numeric"), Column("j", "jsonb", "json"))
    row = b'{"id":7,"n":"1.50","j":{"a": 1.10,\n"b":[1e400]}}'
    place.deliver(place.change("c", row, table=table, key={"id": 7}))
    assert raw(place, "7") == row.replace(b"\n", b" ")


def test_the_version_is_the_streams_sequence(place: Place) -> None:
    place.sequence = 41
    place.deliver(
        place.change("c", {"id": 1, "a": "x"}),
        place.change("u", {"id": 1, "a": "y"}),
        place.change("c", {"id": 2, "a": "z"}),
    )
    assert place.version("1") == 43
    assert place.version("2") == 44


def test_ids_are_made_of_the_key(place: Place) -> None:
    table = shape("items", ID, Column("s", "text"), key=("id", "s"))
    word = shape("items", Column("s", "text"), key=("s",))
    long = "ä" * 300
    place.deliver(
        place.change("c", {"id": 1, "s": 'ä"'}, table=table),
        *(place.change("c", {"s": text}, table=word) for text in ("plain/ä", "", '"', long)),
    )
    assert set(place.documents()) == {
        '[1,"\\u00e4\\""]',
        "plain/ä",
        '""',
        '"\\""',
        sha256(long.encode()).hexdigest(),
    }


def test_a_key_that_changes_moves_the_document(place: Place) -> None:
    place.deliver(
        place.change("c", {"id": 1, "a": "x"}),
        place.change("u", {"id": 2, "a": "y"}, before={"id": 1}),
    )
    assert place.documents() == {"2": {"id": 2, "a": "y"}}
    place.deliver(
        place.change("u", {"id": 1, "a": "z"}, before={"id": 2, "a": "y"}),
        place.change("c", {"id": 2, "a": "new"}),
    )
    assert place.documents() == {"1": {"id": 1, "a": "z"}, "2": {"id": 2, "a": "new"}}


def test_values_that_the_log_did_not_carry_stay(place: Place) -> None:
    place.deliver(
        place.change("c", {"id": 1, "a": LONG, "b": "1"}),
        place.change("c", {"id": 2, "a": LONG, "b": "1"}),
        place.change("u", {"id": 2, "b": "2"}, missing=("a",)),  # known from the same batch
    )
    place.deliver(
        place.change("u", {"id": 1, "b": "2"}, missing=("a",)),
        place.change("u", {"id": 1, "b": "3"}, missing=("a",)),
        place.change("u", {"id": 3, "b": "9"}, missing=("a",)),  # never seen before
    )
    assert place.documents() == {
        "1": {"id": 1, "a": LONG, "b": "3"},
        "2": {"id": 2, "a": LONG, "b": "2"},
        "3": {"id": 3, "b": "9"},
    }


def test_values_that_the_log_did_not_carry_keep_their_digits(place: Place) -> None:
    table = shape("items", ID, Column("j", "jsonb", "json"), Column("b", "text"))
    exact = b'{"n":1.10,"m":12345678901234567890.00}'
    place.deliver(place.change("c", b'{"id":1,"j":' + exact + b"}", table=table, key={"id": 1}))
    place.deliver(place.change("u", {"id": 1, "b": "2"}, table=table, missing=("j",)))
    assert raw(place, "1") == b'{"id":1,"b":"2","j":' + exact + b"}"


def test_values_that_the_log_did_not_carry_move_with_the_key(place: Place) -> None:
    place.deliver(place.change("c", {"id": 1, "a": LONG, "b": "1"}))
    place.deliver(
        place.change("u", {"id": 2, "b": "2"}, before={"id": 1}, missing=("a",)),
        place.change("c", {"id": 1, "a": "new", "b": "new"}),
        place.change("u", {"id": 3, "b": "3"}, before={"id": 2}, missing=("a",)),
    )
    assert place.documents() == {
        "1": {"id": 1, "a": "new", "b": "new"},
        "3": {"id": 3, "a": LONG, "b": "3"},
    }


def test_changes_that_come_again_change_nothing(place: Place) -> None:
    changes = [
        place.change("c", {"id": 1, "a": LONG, "b": "1"}),
        place.change("u", {"id": 1, "b": "2"}, missing=("a",)),
        place.change("u", {"id": 2, "b": "2"}, before={"id": 1}, missing=("a",)),
        place.change("c", {"id": 4, "a": "x", "b": "x"}),
        place.change("d", key={"id": 4}),
        place.change("c", {"id": 1, "a": "again", "b": "again"}),
        place.change("u", {"id": 2, "b": "3"}, missing=("a",)),
    ]
    expected = {
        "1": {"id": 1, "a": "again", "b": "again"},
        "2": {"id": 2, "a": LONG, "b": "3"},
    }
    sink = place.sink()
    claim = sink.claim(place.share)
    for pieces in ([changes], [[change] for change in changes], [changes[:3], changes[1:]]):
        # another writer of the claim, which knows nothing of what is stored
        with closing(sink.open(claim)) as writer:
            for piece in pieces:
                writer.write(batch(claim, piece))
            writer.flush()
        assert place.documents() == expected


def test_a_truncate_finds_what_is_still_under_way(place: Place) -> None:
    sink = place.sink(parallelism=4)
    claim = sink.claim(place.share)
    with closing(sink.open(claim)) as writer:
        for start in range(0, 6000, 1000):
            rows = [place.change("c", {"id": start + n, "a": "x"}) for n in range(1000)]
            writer.write(batch(claim, rows))
        after = [place.change("t", key=None), place.change("c", {"id": 1, "a": "new"})]
        writer.write(batch(claim, after))
        writer.flush()
    assert place.documents() == {"1": {"id": 1, "a": "new"}}
    place.deliver(place.change("t", key=None), truncates="ignore")
    assert place.documents() == {"1": {"id": 1, "a": "new"}}


def test_rows_without_a_key_are_appended_once(place: Place) -> None:
    table = shape("events", Column("a", "text"), key=())
    rows = [place.change("c", {"a": "x"}, table=table) for _ in range(3)]
    sink = place.sink()
    claim = sink.claim(place.share)
    for _ in range(2):
        with closing(sink.open(claim)) as writer:
            writer.write(batch(claim, rows))
            writer.flush()
    assert place.documents("events") == {
        f"{place.share.stream}:{number}": {"a": "x"} for number in (1, 2, 3)
    }
    with pytest.raises(PermanentError) as caught:
        place.deliver(place.change("u", {"a": "y"}, table=table))
    assert caught.value.code == "elasticsearch.no_key"
    assert caught.value.sequence == 4


def test_a_stream_that_was_made_again_writes_over_its_earlier_life(place: Place) -> None:
    place.sequence = 500
    place.deliver(place.change("c", {"id": 1, "a": "old"}), place.change("c", {"id": 2}))
    place.sequence = 0
    sink = place.sink()
    claim = sink.claim(msgspec.structs.replace(place.share, created="2026-02-02T00:00:00Z"))
    assert claim.forgotten
    place.deliver(
        place.change("u", {"id": 1, "a": "new"}), place.change("d", key={"id": 2}), claim=claim
    )
    assert place.documents() == {"1": {"id": 1, "a": "new"}}
    assert place.version("1") == (1 << 48) + 1


def test_what_is_known_of_later_lives_is_not_papered_over(place: Place) -> None:
    place.deliver(place.change("c", {"id": 1, "a": "old"}))
    index = f"/{place.name}-items/_doc/1?version={(3 << 48) + 9}&version_type=external"
    assert place.node.request("PUT", index, {"id": 1, "a": "later"})[0] == 200
    with pytest.raises(GapError) as caught:
        place.deliver(place.change("u", {"id": 1, "a": "new"}))
    assert caught.value.code == "elasticsearch.newer_documents"
    assert place.offset() == 1


def test_by_time_the_last_of_several_streams_wins(place: Place) -> None:
    other = Place(place.node, name=place.name)
    other_share = Share(
        place.name, f"CDC_{place.name}2", place.share.created, (f"CDC.{place.name}2.db.items.0",)
    )
    place.deliver(
        place.change("c", {"id": 1, "a": "first"}, ts_ms=1000),
        place.change("u", {"id": 1, "a": "last"}, ts_ms=3000),
        place.change("u", {"id": 2, "a": "same"}, ts_ms=3000),
        place.change("u", {"id": 2, "a": "moment"}, ts_ms=3000),
        version="time",
    )
    sink = other.sink(version="time")
    claim = sink.claim(other_share)
    late = [
        change._replace(subject=other_share.subjects[0])
        for change in (
            other.change("u", {"id": 1, "a": "between"}, ts_ms=2000),
            other.change("u", {"id": 2, "a": "later"}, ts_ms=3001),
        )
    ]
    with closing(sink.open(claim)) as writer:
        writer.write(batch(claim, late))
        writer.flush()
    assert place.documents() == {"1": {"id": 1, "a": "last"}, "2": {"id": 2, "a": "later"}}


def test_an_index_is_made_with_the_tables_mapping_and_grows_with_it(place: Place) -> None:
    table = shape(
        "items",
        ID,
        Column("price", "numeric(10,2)"),
        Column("ratio", "double precision", "number"),
        Column("at", "timestamp with time zone"),
        Column("tags", "text[]", "array"),
        Column("doc", "jsonb", "json"),
        Column("data", "bytea", "base64"),
        Column("ip", "inet"),
        Column("mood", "shop.mood", portable=False),
    )
    row = {
        "id": 1, "price": "NaN", "ratio": "Infinity", "at": "infinity", "tags": ["a", "b"],
        "doc": [1, "x", {"y": None}], "data": "AP8Q", "ip": "10.0.0.0/8", "mood": "glad",
    }  # fmt: skip
    usual = {
        "id": 2, "price": "1.50", "ratio": 1e300, "at": "2026-11-22T19:45:06.3Z", "tags": None,
        "doc": {"z": 1}, "data": None, "ip": "10.0.0.1", "mood": None,
    }  # fmt: skip
    place.deliver(
        place.change("c", row, table=table),
        place.change("c", usual, table=table),
        fields={"mood": {"type": "text"}},
    )
    assert place.documents() == {"1": row, "2": usual}
    found = mapping(place)
    kinds = {name: field["type"] for name, field in found.items()}
    assert kinds == {
        "id": "long", "price": "double", "ratio": "double", "at": "date", "tags": "text",
        "doc": "object", "data": "binary", "ip": "ip", "mood": "text",
    }  # fmt: skip
    wider = shape("items", *table.columns, Column("more", "integer", "number"))
    place.deliver(place.change("c", {"id": 3, "more": 7}, table=wider))
    assert mapping(place)["more"]["type"] == "integer"
    assert mapping(place)["mood"] == found["mood"]


def test_a_template_serves_indices_that_are_made_later(place: Place) -> None:
    place.deliver(place.change("c", {"id": 1, "a": "x"}), create="template")
    assert mapping(place)["id"]["type"] == "long"
    index = f"{place.name}-items"
    assert place.node.request("DELETE", f"/{index}")[0] == 200
    place.deliver(place.change("c", {"id": 2, "a": "x"}), create="template")
    assert mapping(place)["id"]["type"] == "long"
    assert place.node.request("DELETE", f"/_index_template/waxtap-{index}")[0] == 200


def test_nothing_is_made_where_nothing_may_be(place: Place) -> None:
    index = f"{place.name}-items"
    made = {"mappings": {"dynamic": False, "properties": {"a": {"type": "keyword"}}}}
    assert place.node.request("PUT", f"/{index}", made)[0] == 200
    place.deliver(place.change("c", {"id": 1, "a": "x"}), create="nothing")
    assert place.documents() == {"1": {"id": 1, "a": "x"}}
    assert mapping(place) == {"a": {"type": "keyword"}}


def test_an_index_that_cannot_be_made_stops_the_sink_with_its_cure(place: Place) -> None:
    with pytest.raises(ConfigError) as caught:
        place.deliver(place.change("c", {"id": 1}), fields={"id": {"type": "no_such_type"}})
    assert caught.value.code == "elasticsearch.index"
    assert "no_such_type" in str(caught.value)
    assert caught.value.cure
    assert place.offset() == 0


WIDER = shape("items", ID, Column("a", "bigint", "number"), Column("b", "text"))
NARROW = shape("items", ID, Column("a", "integer", "number"))


def refusal(place: Place, *changes: Delivered, schema_changes: str = "add") -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        place.deliver(*changes, schema_changes=schema_changes)
    return caught.value


def test_a_wider_type_goes_into_the_document_and_is_told(place: Place) -> None:
    place.deliver(place.change("c", {"id": 1, "a": 7}, table=NARROW))
    place.deliver(place.change("c", {"id": 2, "a": 2**40, "b": "x"}, table=WIDER))
    assert mapping(place)["a"]["type"] == "integer"
    assert mapping(place)["b"]["type"] == "text"
    assert place.documents()["2"] == {"id": 2, "a": 2**40, "b": "x"}


def test_what_an_index_does_not_take_tells_how_to_make_a_new_one(place: Place) -> None:
    flag = shape("items", ID, Column("a", "boolean", "boolean"))
    text = shape("items", ID, Column("a", "text"))
    place.deliver(place.change("c", {"id": 1, "a": True}, table=flag))
    error = refusal(
        place,
        place.change("c", {"id": 2, "a": "true"}, table=text),
        place.change("c", {"id": 3, "a": "maybe"}, table=text),
    )
    assert (error.code, error.sequence) == ("elasticsearch.refused", place.sequence)
    assert "field a is boolean, and the column's type text needs text" in error.message
    assert "_reindex" in error.cure
    assert place.documents() == {"1": {"id": 1, "a": True}, "2": {"id": 2, "a": "true"}}


def test_columns_may_be_left_out_of_the_index(place: Place) -> None:
    place.deliver(place.change("c", {"id": 1, "a": 7}, table=NARROW), schema_changes="ignore")
    place.deliver(
        place.change("c", {"id": 2, "a": 8, "b": "x"}, table=WIDER), schema_changes="ignore"
    )
    assert set(mapping(place)) == {"id", "a"}
    assert place.documents()["2"] == {"id": 2, "a": 8, "b": "x"}


def test_columns_are_left_out_of_an_index_that_grows_by_itself(place: Place) -> None:
    place.deliver(place.change("c", {"id": 1, "a": 7}, table=NARROW))
    place.deliver(
        place.change("c", {"id": 2, "a": 8, "b": "x"}, table=WIDER), schema_changes="ignore"
    )
    assert set(mapping(place)) == {"id", "a"}


def test_columns_may_be_refused(place: Place) -> None:
    place.deliver(place.change("c", {"id": 1, "a": 7}, table=NARROW), schema_changes="refuse")
    good = place.change("c", {"id": 2, "a": 8}, table=NARROW)
    bad = [place.change("c", {"id": n, "a": 8, "b": "x"}, table=WIDER) for n in (3, 4)]
    error = refusal(place, good, *bad, schema_changes="refuse")
    assert error.code == "elasticsearch.no_field"
    assert [error.sequence, *(also.sequence for also in error.also)] == [2 + 1, 2 + 2]
    statement = error.cure.partition(", or ")[2].partition(";")[0]
    assert statement.startswith(f'PUT /{place.name}-items/_mapping {{"properties":{{"b":')
    assert "field a is integer, and the column's type bigint needs long" in error.message


def test_refused_documents_of_a_thousand_are_named_and_the_others_are_stored(
    place: Place,
) -> None:
    table = shape("items", ID, Column("n", "integer", "number"), Column("a", "text"))
    rows = [place.change("c", {"id": n, "n": n, "a": "x"}, table=table) for n in range(1000)]
    for number in (616, 700):
        wrong = rows[number].envelope.replace(b'"n":%d' % number, b'"n":"secret-word"')
        rows[number] = rows[number]._replace(envelope=wrong)
    sink = place.sink(fields={"n": {"type": "integer"}})
    claim = sink.claim(place.share)
    with closing(sink.open(claim)) as writer:
        writer.write(Batch(claim, rows[:500], 500))
        writer.flush()
        with pytest.raises(PermanentError) as caught:  # noqa: PT012 - either call may find out
            writer.write(Batch(claim, rows[500:], 1000))
            writer.flush()
        assert writer.stored == 500
    assert caught.value.sequence == 617
    assert [error.sequence for error in caught.value.also] == [701]
    assert "public.items" in str(caught.value)
    assert "secret-word" not in str(caught.value)
    assert len(place.documents()) == 998
    with closing(sink.open(claim)) as writer:
        writer.write(Batch(claim, rows[500:616] + rows[617:700] + rows[701:], 1000))
        writer.flush()
    assert place.offset() == 1000


def test_logical_messages_are_left_out(place: Place) -> None:
    message = place.change("m", key=None)._replace(table=None)
    place.deliver(message, place.change("c", {"id": 1, "a": "x"}))
    assert place.documents() == {"1": {"id": 1, "a": "x"}}
    assert place.offset() == 2


def test_items_reach_their_own_index_by_topic(place: Place) -> None:
    place.deliver(
        place.change("c", {"id": 1, "a": "x"}, table=ITEMS), index=f"{place.name}-{{topic}}"
    )
    assert place.documents("db.items") == {"1": {"id": 1, "a": "x"}}
