"""A transform with what it has become for each table shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from dataflows.failing import UNREADABLE, StepError, unreadable
from dataflows.transforms.fit import Fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import TableSchema
    from dataflows.transforms.fit import Transform
    from dataflows.transforms.record import Record


class Fitted:
    """A transform, fitted to each table shape once."""

    def __init__(self, transform: Transform) -> None:
        self._transform = transform
        self._fits: dict[str, Fit | StepError] = {}

    def fit(self, table: TableSchema) -> Fit:
        """The transform for this shape. Raises StepError where it cannot be done to it."""
        fit = self._fits.get(table.hash)
        if fit is None:
            try:
                fit = self._transform.fit(table)
            except StepError as error:
                fit = error
            self._fits[table.hash] = fit
        if isinstance(fit, StepError):
            raise StepError(fit.code, fit.message)
        return fit

    def apply(self, record: Record) -> Sequence[Record]:
        """What becomes of a record."""
        apply = self.fit(cast("TableSchema", record.table)).apply
        if apply is None:
            return (record,)
        record.open()
        try:
            return apply(record)
        except UNREADABLE:
            raise unreadable() from None
