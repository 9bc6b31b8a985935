"""`unwrap`: the message is the row alone instead of the envelope.

The operation travels in a header, from which delivery makes an envelope again, so that every sink
can work with it. A row alone does not tell which one it takes the place of, so that a change of the
key becomes a delete of the old one and a create of the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from dataflows.failing import StepError
from dataflows.transforms.fit import Fit
from dataflows.transforms.record import key_of_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import TableSchema
    from dataflows.transforms.record import Record


class UnwrapSpec(BaseModel):
    """Make the message the row alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Unwrap:
    """`unwrap`: only as the last transform of a pipeline."""

    def __init__(self, spec: UnwrapSpec) -> None:
        pass

    def fit(self, table: TableSchema) -> Fit:
        """As `Transform.fit`."""

        def apply(record: Record) -> Sequence[Record]:
            old = _old_key(record, table)
            if old is None:
                record.unwrapped = True
                return (record,)
            if record.unavailable:
                raise StepError(
                    "transform.row_incomplete",
                    "the key changes, and a large value that did not change is not in the log",
                )
            record.unwrapped = True
            gone = record.copy()
            gone.op, gone.key, gone.after = "d", old, None
            record.op = "c"
            return (gone, record)

        return Fit(apply)


def _old_key(record: Record, table: TableSchema) -> str | None:
    """The key that an update takes from a row; None where it stays."""
    row = record.before
    if record.op != "u" or row is None or not table.key or any(k not in row for k in table.key):
        return None
    old = key_of_row({name: row[name] for name in table.key})
    return None if old == record.key else old
