"""Changes of tables' shapes among the changes of rows."""

from __future__ import annotations

import msgspec

from connectors.contracts.changes import Change, Column, TableSchema
from connectors.jetstream.shape_versions import TableVersions, Version, key_of
from dataflows.shape_changes import differences, event, first_of_shapes, told

ID, A, B = Column("id", "integer", "number"), Column("a", "text"), Column("b", "text")


def shape(*columns: Column, name: str = "t", key: tuple[str, ...] = ("id",)) -> TableSchema:
    return TableSchema("shop", "public", name, columns, key)


def change(position: int, table: TableSchema | None) -> Change:
    envelope = b'{"op":"c","source":{"lsn":7},"transaction":{"id":"9"},"after":{"id":1}}'
    return Change("c", table, f"{position:04}", '{"id":1}', "9", False, envelope)


def test_only_the_first_change_of_each_shape_counts() -> None:
    one, two, other = shape(ID), shape(ID, A), shape(ID, name="u")
    changes = [
        change(number, table)
        for number, table in enumerate([one, one, other, None, one, two, other, two, one])
    ]
    found = [(each.position, each.table) for each in first_of_shapes(changes)]
    assert found == [("0000", one), ("0002", other), ("0005", two), ("0008", one)]


def test_an_event_tells_both_shapes() -> None:
    before, after = shape(ID, A), shape(ID, B, key=())
    row = change(3, after)
    made = event(row, Version(2, after.hash, "0003", 1), before)
    assert (made.op, made.table, made.position, made.transaction) == ("m", None, "0003", "9")
    envelope = msgspec.json.decode(made.envelope)
    assert (envelope["op"], envelope["source"], envelope["transaction"]) == (
        "m",
        {"lsn": 7},
        {"id": "9"},
    )
    change_ = envelope["schema_change"]
    assert (change_["kind"], change_["version"], change_["hash"]) == ("alter", 2, after.hash)
    assert change_["before"] == {
        "columns": [{"name": "id", "type": "integer"}, {"name": "a", "type": "text"}],
        "key": ["id"],
    }
    assert change_["changes"] == {"added": ["b"], "dropped": ["a"], "retyped": [], "key": True}


def test_differences_of_types() -> None:
    wide = Column("id", "bigint", "number")
    assert differences(shape(ID), shape(wide))["retyped"] == [
        {"name": "id", "before": "integer", "after": "bigint"}
    ]
    assert differences(None, shape(ID, A))["added"] == ["id", "a"]


def test_events_stand_before_the_change_of_their_position() -> None:
    table = shape(ID)
    rows = [("CDC.shop.db.t.0", change(number, table)) for number in (1, 3, 3, 5)]
    events = [change(number, None) for number in (3, 4, 9)]
    merged = told("shop", "schema", rows, events)
    assert [(subject.split(".")[2], each.position) for subject, each in merged] == [
        ("db", "0001"),
        ("schema", "0003"),
        ("db", "0003"),
        ("db", "0003"),
        ("schema", "0004"),
        ("db", "0005"),
        ("schema", "0009"),
    ]
    assert [each.position for _, each in told("shop", "schema", [], events)] == [
        "0003",
        "0004",
        "0009",
    ]


def test_keys_hold_what_a_bucket_allows() -> None:
    assert key_of("shop", "public", "Odd.Täble *") == "versions.shop.public.Odd=2ET=C3=A4ble=20=2A"


def test_versions_count_up_to_what_is_stored() -> None:
    known = TableVersions(
        "shop", "public", "t", (Version(1, "a", "0001", 0), Version(2, "b", "0005", 0))
    )
    assert [each.number for each in known.upto("0004").versions] == [1]
    assert [each.number for each in known.upto("0005").versions] == [1, 2]
    assert known.upto("").versions == ()
