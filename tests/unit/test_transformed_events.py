"""Transforms that make other messages of changes: `unwrap` and `outbox`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from connectors.contracts.changes import Column, TableSchema, UnwrappedChange
from connectors.wrapping import wrapped
from tests.unit.changes import ROW, change, delivered
from tests.unit.transforming import failure, one, steps, through

if TYPE_CHECKING:
    pass


def test_unwrap_makes_the_row_the_message_and_delivery_makes_an_envelope_again() -> None:
    made = one(change("u"), "unwrap")
    assert isinstance(made, UnwrappedChange)
    assert made.envelope == ROW.encode()
    assert json.loads(wrapped(made.op, made.key, made.envelope)) == {
        "before": None,
        "after": json.loads(ROW),
        "op": "u",
    }
    gone = one(change("d", before='{"id":8}'), "unwrap")
    assert (gone.envelope, gone.key) == (b"null", '{"id":8}')
    again = one(delivered(change("d", before='{"id":8}')), {"unwrap": None})
    assert again.envelope == b'{"before":{"id":8},"after":null,"op":"d"}'


def test_unwrap_makes_two_messages_of_a_change_of_key() -> None:
    gone, made = through(change("u", before='{"id":7}'), "unwrap")
    assert isinstance(gone, UnwrappedChange)
    assert isinstance(made, UnwrappedChange)
    assert (gone.op, gone.key, gone.envelope) == ("d", '{"id":7}', b"null")
    assert (made.op, made.key, made.envelope) == ("c", '{"id":8}', ROW.encode())
    found = failure(change("u", before='{"id":7}', unavailable=("note",)), "unwrap")
    assert found.code == "transform.row_incomplete"


OUTBOX = TableSchema(
    "shop",
    "public",
    "outbox",
    (
        *(Column(name, "text") for name in ("id", "aggregatetype", "aggregateid", "type")),
        Column("payload", "jsonb", "json"),
    ),
    ("id",),
)
_EVENT = '{"id":"1","aggregatetype":"Order","aggregateid":"42","type":"Paid","payload":{"a":1.0}}'


def test_an_event_is_routed_by_what_it_belongs_to() -> None:
    [made] = steps("outbox").apply(change(table=OUTBOX, after=_EVENT, key='{"id":"1"}'))
    assert made.record is not None
    assert made.record.route == "Order"
    assert made.change.key == '{"aggregateid":"42"}'
    assert made.change.table is not None
    assert made.change.table.key == ("aggregateid",)
    assert _EVENT.encode() in made.change.envelope


def test_only_inserts_are_events() -> None:
    assert through(change("d", table=OUTBOX, before='{"id":"1"}'), "outbox") == []
    assert through(change("t", table=OUTBOX, key=None), "outbox") == []
    assert failure(change("u", table=OUTBOX, after=_EVENT), "outbox").code == (
        "transform.outbox_update"
    )
    assert failure(change(), "outbox").code == "transform.no_outbox"
    lost = _EVENT.replace('"Order"', "null")
    assert failure(change(table=OUTBOX, after=lost), "outbox").code == "transform.outbox_null"
