"""Collapsing a batch must never change what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.contracts.changes import UNAVAILABLE, Column, Delivered, TableSchema
from connectors.errors import PermanentError
from connectors.postgres.target.collapse import Collapser
from connectors.postgres.target.steps import Merge, Move, Row, Truncate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from connectors.postgres.target.steps import Step

Values = dict[str, object]
Tables = dict[str, dict[object, Values]]

COLUMNS = ("id", "a", "b")


def table(name: str, columns: Sequence[str] = COLUMNS) -> TableSchema:
    return TableSchema(
        source="shop",
        schema="public",
        name=name,
        columns=tuple(Column(column, "text") for column in columns),
        key=("id",),
    )


ORDERS, ITEMS, WIDER = table("orders"), table("items"), table("orders", (*COLUMNS, "c"))


def change(
    op: str,
    shape: TableSchema = ORDERS,
    row: Values | None = None,
    *,
    before: Values | None = None,
    missing: tuple[str, ...] = (),
    json_nulls: tuple[str, ...] = (),
    sequence: int = 1,
) -> Delivered:
    source = row if row is not None else before
    key = None if source is None else msgspec.json.encode({"id": source["id"]}).decode()
    after = None if row is None else {**row, **dict.fromkeys(missing, UNAVAILABLE)}
    envelope = msgspec.json.encode({"before": before, "after": after, "source": {}, "op": op})
    return Delivered(
        sequence, "CDC.shop.t.0", "", key, shape, "1", True, envelope, missing, json_nulls
    )


def apply(tables: Tables, steps: Iterable[Step]) -> None:
    """What the target does with the steps: deletes, then rows; missing columns stay."""
    for step in steps:
        match step:
            case Truncate():
                for shape in step.tables:
                    rows = tables.setdefault(shape.name, {})
                    for row_ in rows.values() if step.at else ():
                        mark(row_, step.at)
                    if not step.at:
                        rows.clear()
            case Merge():
                for merge in step.tables:
                    rows = tables.setdefault(merge.table.name, {})
                    for key in merge.deletes:
                        gone = msgspec.json.decode(key)
                        if DELETED not in gone:
                            rows.pop(gone["id"], None)
                        elif gone["id"] in rows:
                            mark(rows[gone["id"]], gone[DELETED])
                    for row in merge.rows:
                        put(rows, row)
            case Move():
                rows = tables.setdefault(step.table.name, {})
                old = msgspec.json.decode(step.old)["id"]
                values = msgspec.json.decode(step.row.json)
                if old in rows:
                    moved = rows.pop(old)
                    rows[values["id"]] = moved
                put(rows, step.row)


def put(rows: dict[object, Values], row: Row) -> None:
    values = msgspec.json.decode(row.json, type=dict[str, object])
    assert all(values[name] is None for name in row.json_nulls)
    values.update(dict.fromkeys(row.json_nulls, JSON_NULL))
    known = {name: value for name, value in values.items() if name not in row.missing}
    known.setdefault(DELETED, None)  # as a column that the JSON lacks becomes NULL
    rows.setdefault(values["id"], {}).update(known)


def mark(row: Values, at: object) -> None:
    row[DELETED] = row.get(DELETED) or at


DELETED = "_deleted_at"
# What the target holds where a row has the JSON null.
JSON_NULL = "the JSON null"
KEYS = st.integers(1, 4)
TEXTS = st.text(max_size=2) | st.none()


@st.composite
def changes(draw: st.DrawFn) -> Delivered:
    shape = draw(st.sampled_from([ORDERS, ORDERS, ITEMS, WIDER]))
    op = draw(st.sampled_from("crudukmt"))
    if op == "t":
        return change("t", shape)
    if op == "m":
        return change("m", shape)._replace(table=None)
    row: Values = {column.name: draw(TEXTS) for column in shape.columns}
    row["id"] = draw(KEYS)
    if op == "d":
        return change("d", shape, before=row)
    missing = draw(st.sampled_from([(), (), ("a",), ("a", "b")])) if op in "uk" else ()
    nullable = [name for name in row if name != "id" and name not in missing and row[name] is None]
    json_nulls = tuple(name for name in nullable if draw(st.booleans()))
    before: Values | None = None
    if op == "k":  # an update that names its old key; under identity FULL also an unchanged one
        before = {**row, "id": draw(KEYS)}
    return change(
        "u" if op == "k" else op,
        shape,
        row,
        before=before,
        missing=missing,
        json_nulls=json_nulls,
    )


@settings(max_examples=600, deadline=None)
@given(log=st.lists(changes(), max_size=14), referenced=st.booleans())
def test_collapsed_and_one_by_one_end_in_the_same_state(
    log: list[Delivered], referenced: bool
) -> None:
    collapser = Collapser(lambda shape: referenced and shape.name == "orders")
    together: Tables = {}
    apply(together, collapser.collapse(log))
    one_by_one: Tables = {}
    for item in log:
        apply(one_by_one, collapser.collapse([item]))
    for name in ("orders", "items"):
        assert common(together, name) == common(one_by_one, name)


@settings(max_examples=400, deadline=None)
@given(log=st.lists(changes(), max_size=14))
def test_soft_deletes_collapsed_and_one_by_one_end_in_the_same_state(log: list[Delivered]) -> None:
    collapser = Collapser(lambda _: False, DELETED)
    timed = [
        item._replace(envelope=item.envelope.replace(b'"source":{}', b'"source":{"ts_ms":%d}' % n))
        for n, item in enumerate(log, 1)
    ]
    together: Tables = {}
    apply(together, collapser.collapse(timed))
    one_by_one: Tables = {}
    for item in timed:
        apply(one_by_one, collapser.collapse([item]))
    for name in ("orders", "items"):
        assert common(together, name) == common(one_by_one, name)


def common(tables: Tables, name: str) -> Tables:
    """Rows without the column that one shape lacks: a new key's row need not take it along."""
    rows = tables.get(name, {})
    return {name: {key: {**row, "c": None} for key, row in rows.items()}}


def test_another_shape_of_a_table_leaves_what_only_the_first_has() -> None:
    wide = change("c", WIDER, {"id": 1, "a": "", "b": "", "c": "kept"})
    narrow = change("u", ORDERS, {"id": 1, "a": "new", "b": ""})
    tables: Tables = {}
    apply(tables, collapse(wide, narrow))
    row = {"id": 1, "a": "new", "b": "", "c": "kept", DELETED: None}
    assert tables == {"orders": {1: row}}


def collapse(*log: Delivered, referenced: bool = False) -> list[Step]:
    return Collapser(lambda _: referenced).collapse(log)


def test_a_hundred_updates_of_a_row_are_one() -> None:
    log = [change("u", row={"id": 1, "a": str(n), "b": ""}) for n in range(100)]
    (step,) = collapse(*log)
    assert isinstance(step, Merge)
    (merge,) = step.tables
    assert [msgspec.json.decode(row.json)["a"] for row in merge.rows] == ["99"]
    assert merge.deletes == []


def test_rows_keep_the_bytes_they_came_with() -> None:
    envelope = b'{"op":"c","after":{"id": 1.50, "a":"\\u00e9 \\u0041" }}'
    log = change("c", row={"id": 1, "a": "", "b": ""})._replace(envelope=envelope)
    (step,) = collapse(log)
    assert isinstance(step, Merge)
    assert bytes(memoryview(step.tables[0].rows[0].json)) == b'{"id": 1.50, "a":"\\u00e9 \\u0041" }'


def test_a_missing_value_is_taken_from_an_earlier_image() -> None:
    first = change("c", row={"id": 1, "a": "big", "b": "x"})
    second = change("u", row={"id": 1, "a": "", "b": "y"}, missing=("a",))
    (step,) = collapse(first, second)
    assert isinstance(step, Merge)
    (row,) = step.tables[0].rows
    assert row.missing == ()
    assert msgspec.json.decode(row.json) == {"id": 1, "a": "big", "b": "y"}


def test_a_value_taken_from_an_earlier_image_stays_a_json_null() -> None:
    first = change("c", row={"id": 1, "a": None, "b": None}, json_nulls=("a", "b"))
    second = change("u", row={"id": 1, "a": "", "b": None}, missing=("a",))
    third = change("u", row={"id": 1, "a": "", "b": ""}, missing=("a", "b"))
    for log, nulls in ((first, second), ("a",)), ((first, third), ("a", "b")):
        (step,) = collapse(*log)
        assert isinstance(step, Merge)
        (row,) = step.tables[0].rows
        assert (row.missing, row.json_nulls) == ((), nulls)
        assert msgspec.json.decode(row.json) == {"id": 1, "a": None, "b": None}


def test_a_key_change_with_a_missing_value_moves_the_row() -> None:
    moved = change(
        "u", row={"id": 2, "a": "", "b": "y"}, before={"id": 1, "a": None}, missing=("a",)
    )
    (step,) = collapse(moved)
    assert isinstance(step, Move)
    assert msgspec.json.decode(step.old) == {"id": 1}
    assert step.row.missing == ("a",)


def test_consecutive_truncates_are_one_statement() -> None:
    steps = collapse(change("t", ORDERS), change("t", ITEMS))
    assert [type(step) for step in steps] == [Truncate]


def test_a_referenced_row_is_deleted_after_what_came_before_it() -> None:
    other = change("u", ITEMS, {"id": 7, "a": "", "b": ""})
    steps = collapse(other, change("d", ORDERS, before={"id": 1}), referenced=True)
    assert [
        [merge.table.name for merge in step.tables] for step in steps if isinstance(step, Merge)
    ] == [
        ["items"],
        ["orders"],
    ]


def test_keys_with_lists_and_odd_names_are_told_apart() -> None:
    shape = TableSchema(
        source="shop",
        schema="public",
        name="t",
        columns=(Column('a "b" %s', "integer[]", "array"), Column("class", "text")),
        key=('a "b" %s', "class"),
    )

    def row(numbers: list[int]) -> Delivered:
        values = {'a "b" %s': numbers, "class": "x"}
        envelope = msgspec.json.encode({"op": "c", "after": values})
        key = msgspec.json.encode(values).decode()
        return Delivered(1, "s", "", key, shape, "", True, envelope)

    (step,) = collapse(row([1]), row([2]), row([1]))
    assert isinstance(step, Merge)
    assert len(step.tables[0].rows) == 2


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (change("c", row={"id": 1})._replace(key=None), "postgres.no_key"),
        (change("x", row={"id": 1}), "postgres.unreadable_change"),
        (change("c", row={"id": 1})._replace(envelope=b"{"), "postgres.unreadable_change"),
        (change("c", row={"id": 1})._replace(key="{}"), "postgres.unreadable_change"),
    ],
)
def test_what_cannot_be_applied_is_permanent(broken: Delivered, code: str) -> None:
    with pytest.raises(PermanentError) as caught:
        collapse(broken)
    assert caught.value.code == code
    assert caught.value.where == "public.orders"
