"""What a pipeline or a sink does to single changes: its filter, then its transforms.

Works alike on changes of a source and on delivered ones. A change that nobody looks into is never
decoded. One that a step cannot work on goes the way that `on_error` says: it is dropped, kept
without that step, or comes out as it went in with the reason in `failed`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, cast

import structlog

from connectors.contracts.changes import Failure
from connectors.metrics import step_errors
from dataflows.failing import UNREADABLE, StepError, too_many, unreadable
from dataflows.transforms.fitted import Fitted
from dataflows.transforms.record import Record, key_of_row, row_of_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.changes import Change, Delivered, TableSchema
    from dataflows.filters import Filter
    from dataflows.transforms.fit import Apply, Transform

log = structlog.get_logger()

# A change becomes at most so many: all of them go into one atomic batch.
_MOST = 100

_new = tuple.__new__

OnError: TypeAlias = Literal["drop", "keep", "dead_letter"]


class Made(NamedTuple):
    """A change that came out.

    Attributes:
        change: With `failed` set where no step could work on it.
        record: What it was made of; None where no transform had anything to do with it.
    """

    change: Change | Delivered
    record: Record | None = None


class Steps:
    """Filter and transforms of one pipeline or sink.

    Args:
        name: The pipeline's, or `sinks.<name>`.
        kept: The filter; None: every change.
        transforms: In their order.
        on_error: What becomes of a change that a step cannot work on.

    Attributes:
        failures: How many changes failed so far, by the code of the error.
        latest: Why the latest one failed.
    """

    def __init__(
        self,
        name: str,
        kept: Filter | None = None,
        transforms: Sequence[Transform] = (),
        on_error: OnError = "dead_letter",
    ) -> None:
        self._name, self._filter, self._on_error = name, kept, on_error
        self._transforms = [Fitted(transform) for transform in transforms]
        self._plans: dict[str, list[Apply]] = {}
        self.failures: Counter[str] = Counter()
        self.latest: Failure | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is done at all."""
        return self._filter is None and not self._transforms

    def passes(self, change: Change | Delivered) -> bool:
        """Whether the filter lets a change through. Raises StepError if it cannot tell."""
        if self._filter is None:
            return True
        try:
            return self._filter.keeps(change)
        except UNREADABLE:
            raise unreadable() from None

    def apply(self, change: Change | Delivered) -> Sequence[Made]:
        """Return what becomes of a change: nothing, itself, or what was made of it."""
        try:
            if not self.passes(change):
                return ()
        except StepError as error:
            if (instead := self.fail(change, error)) is not None:
                return instead
        if not self._transforms or change.table is None:
            return (Made(change),)
        try:
            records = self._run(change) if self._on_error != "keep" else self._keep(change)
            return [_new(Made, (record.change, record)) for record in records]
        except StepError as error:
            return self.fail(change, error) or ()

    def delivered(self, change: Delivered) -> list[Delivered]:
        """As `apply`, for a sink's changes; one that has failed before stays as it is."""
        if change.failed:
            return [change]
        return [cast("Delivered", made.change) for made in self.apply(change)]

    def _run(self, change: Change | Delivered) -> Sequence[Record]:
        """Put a change through every transform. Raises StepError at the first that cannot."""
        applies = self._plan(cast("TableSchema", change.table))
        record = Record(change)
        if not applies:
            return (record,)
        record.open()
        records: Sequence[Record] = (record,)
        try:
            for apply in applies:
                if len(records) == 1:
                    records = apply(records[0])
                else:
                    records = [made for record in records for made in apply(record)]
                if len(records) > _MOST:
                    raise too_many()
        except UNREADABLE:
            raise unreadable() from None
        return records

    def _plan(self, table: TableSchema) -> list[Apply]:
        """What the transforms do to changes of this shape, as far as they do anything."""
        plan = self._plans.get(table.hash)
        if plan is None:
            plan, shape = [], table
            for transform in self._transforms:
                fit = transform.fit(shape)
                plan += [fit.apply] if fit.apply else []
                shape = fit.table or shape
            self._plans[table.hash] = plan
        return plan

    def _keep(self, change: Change | Delivered) -> Sequence[Record]:
        """As `_run`, but leave a transform out that cannot work on the change.

        The next ones must be fitted to the shape that is left then.
        """
        records: Sequence[Record] = (Record(change),)
        for transform in self._transforms:
            through: list[Record] = []
            for record in records:
                try:
                    through += transform.apply(record)
                except StepError as error:
                    self._note(error, change)
                    through.append(record)
            if len(through) > _MOST:
                self._note(too_many(), change)
            else:
                records = through
        return records

    def fail(self, change: Change | Delivered, error: StepError) -> Sequence[Made] | None:
        """What becomes of a change that a step cannot work on; None: it is kept without the step.

        Counts it, and tells of the first one of its kind.
        """
        self._note(error, change)
        if self._on_error == "keep":
            return None
        if self._on_error == "drop":
            return ()
        failure = Failure(self._name, error.code, error.message)
        return (Made(change._replace(key=self.key(change), failed=failure.encoded)),)

    def key(self, change: Change | Delivered) -> str | None:
        """The key that a change would come out with.

        A change that failed carries it already, so that it is known which later changes concern the
        same row. Where a transform must see the row to tell, the key is as the transform finds it.
        """
        key, table = change.key, change.table
        for transform in self._transforms:
            if key is None or table is None:
                break
            try:
                fit = transform.fit(table)
                if fit.edit_key is not None:
                    key = key_of_row(fit.edit_key(row_of_key(key), ()))
            except StepError:
                break
            table = fit.table or table
        return key

    def _note(self, error: StepError, change: Change | Delivered) -> None:
        self.latest = Failure(self._name, error.code, error.message)
        self.failures[error.code] += 1
        step_errors.labels(self._name, error.code).inc()
        if self.failures[error.code] > 1:
            return
        table = change.table
        log.warning(
            "a step cannot work on a change; further ones of this kind are only counted",
            pipeline=self._name,
            table=f"{table.schema}.{table.name}" if table else "",
            position=change.position,
            code=error.code,
            reason=error.message,
            on_error=self._on_error,
        )
