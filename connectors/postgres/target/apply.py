"""Runs the steps of a collapsed batch on the target, inside the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.postgres.target import statements
from connectors.postgres.target.session import Json
from connectors.postgres.target.steps import Append, Merge, Move, Row, TableMerge, Truncate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import msgspec

    from connectors.contracts.changes import TableSchema
    from connectors.postgres.target.session import Session
    from connectors.postgres.target.statements import Form
    from connectors.postgres.target.steps import Step
    from connectors.postgres.target.tables import Target

# Measured: more rows in a statement are slower again, as the server spills them to disk.
STATEMENT_ROWS = 1000
STATEMENT_BYTES = 4 * 1024 * 1024


class Applier:
    """Turns steps into statements; their text is kept for each shape of a table.

    Args:
        target: Has been prepared for all tables of the steps.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._plans: dict[tuple[str, frozenset[str], frozenset[str]], _Plan] = {}

    def forget(self) -> None:
        """Make every statement anew when it is needed next."""
        self._plans.clear()

    def apply(self, session: Session, steps: Iterable[Step]) -> None:
        """Run the steps in their order.

        Raises:
            psycopg.Error: From the server; the transaction must be rolled back.
        """
        for step in steps:
            match step:
                case Merge():
                    self._merge(session, step)
                case Move():
                    self._move(session, step)
                case Truncate():
                    self._truncate(session, step)
                case Append():
                    for form, rows in _by_form(step.rows):
                        plan = self._plan(step.table, *form)
                        for packed in _packed(rows):
                            session.execute(plan.insert, (packed,), prepare=True)

    def _truncate(self, session: Session, step: Truncate) -> None:
        shapes = [self._target[table].form for table in step.tables]
        forms = {(form.schema, form.name): form for form in shapes}
        if not step.at:
            session.execute(statements.truncate(list(forms.values())))
            return
        for form in forms.values():
            session.execute(statements.mark_all(form), (step.at,))

    def _merge(self, session: Session, step: Merge) -> None:
        merges = {(merge.table.schema, merge.table.name): merge for merge in step.tables}
        order = [
            merges[table.schema, table.name]
            for table in self._target.parents_first([merge.table for merge in step.tables])
        ]
        for merge in reversed(order):
            if merge.deletes:
                query = self._plan(merge.table).delete
                for keys in _packed(merge.deletes):
                    session.execute(query, (keys,), prepare=True)
        for merge in order:
            self._upsert(session, merge)

    def _upsert(self, session: Session, merge: TableMerge) -> None:
        for (missing, json_nulls), rows in _by_form(merge.rows):
            plan = self._plan(merge.table, missing, json_nulls)
            for packed in _packed(rows):
                if not missing:
                    session.execute(plan.upsert, (packed,), prepare=True)
                    continue
                if plan.update is not None:
                    session.execute(plan.update, (packed,), prepare=True)
                session.execute(plan.insert_absent, (packed,), prepare=True)

    def _move(self, session: Session, step: Move) -> None:
        plan = self._plan(step.table, step.row.missing, step.row.json_nulls)
        both = (_array([step.old]), _array([step.row.json]))
        session.execute(plan.clear_way, both, prepare=True)
        if session.execute(plan.move, both, prepare=True).rowcount == 0:
            # no row has the old key: this one came by another way, or is new
            self._upsert(session, TableMerge(step.table, [], [step.row]))

    def _plan(
        self, table: TableSchema, missing: Iterable[str] = (), json_nulls: Iterable[str] = ()
    ) -> _Plan:
        name = (table.hash, frozenset(missing), frozenset(json_nulls))
        plan = self._plans.get(name)
        if plan is None:
            form = self._target[table].form.without(missing).with_json_nulls(json_nulls)
            plan = self._plans[name] = _Plan(form)
        return plan


class _Plan:
    """The statements of one form."""

    def __init__(self, form: Form) -> None:
        self.insert = statements.insert(form)
        if not form.key:
            return
        self.upsert = statements.upsert(form)
        self.update = statements.update(form)
        self.insert_absent = statements.insert_absent(form)
        self.delete = statements.delete(form)
        self.clear_way = statements.clear_way(form)
        self.move = statements.move(form)


def _by_form(
    rows: Iterable[Row],
) -> Iterator[tuple[tuple[tuple[str, ...], tuple[str, ...]], list[msgspec.Raw | bytes]]]:
    """Group rows by what one statement must be made for: their missing values and JSON nulls."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[msgspec.Raw | bytes]] = {}
    for row in rows:
        groups.setdefault((row.missing, row.json_nulls), []).append(row.json)
    yield from groups.items()


def _packed(rows: Sequence[msgspec.Raw | bytes]) -> Iterator[Json]:
    """Cut rows into JSON arrays of a size that suits one statement."""
    part: list[msgspec.Raw | bytes] = []
    size = 0
    for row in rows:
        length = len(memoryview(row))
        if part and (len(part) >= STATEMENT_ROWS or size + length > STATEMENT_BYTES):
            yield _array(part)
            part, size = [], 0
        part.append(row)
        size += length
    if part:
        yield _array(part)


def _array(rows: Sequence[msgspec.Raw | bytes]) -> Json:
    return Json(b"[" + b",".join(rows) + b"]")
