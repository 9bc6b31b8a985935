"""`outbox`: the rows of an outbox table are events, each routed by what it belongs to.

The conventions are those of Debezium's outbox event router (its documentation, "Outbox Event
Router"): only inserts are events, deletes are ignored, updates are an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict

from dataflows.failing import StepError
from dataflows.transforms.columns import Name
from dataflows.transforms.fit import Fit
from dataflows.transforms.kinds import text_of
from dataflows.transforms.record import is_null, key_of_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import TableSchema
    from dataflows.transforms.record import Record


class OutboxSpec(BaseModel):
    """Make events of an outbox table's rows. The keys are names of its columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Name = "id"
    route_by: Name = "aggregatetype"
    key: Name = "aggregateid"
    type: Name = "type"
    payload: Name = "payload"


class Outbox:
    """`outbox`: an event's key is what it belongs to, so that its events stay in order."""

    def __init__(self, spec: OutboxSpec) -> None:
        self._route_by, self._key = spec.route_by, spec.key
        self._columns = (spec.id, spec.route_by, spec.key, spec.type, spec.payload)

    def fit(self, table: TableSchema) -> Fit:
        """As `Transform.fit`."""
        names = [column.name for column in table.columns]
        for name in self._columns:
            if name not in names:
                raise StepError(
                    "transform.no_outbox",
                    f"{table.schema}.{table.name} is no outbox table: it has no column {name}",
                )
        shape = replace(table, key=(self._key,))

        def apply(record: Record) -> Sequence[Record]:
            if record.op in ("d", "t"):
                return ()
            if record.op == "u" or record.after is None:
                raise StepError("transform.outbox_update", "a row of an outbox table was updated")
            route, key = record.after[self._route_by], record.after[self._key]
            if is_null(route) or is_null(key):
                raise StepError("transform.outbox_null", f"{self._route_by} or {self._key} is null")
            record.route = text_of(bytes(route))
            record.key = key_of_row({self._key: key})
            record.table = shape
            return (record,)

        return Fit(apply, shape)
