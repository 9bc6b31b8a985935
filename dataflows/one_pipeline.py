"""One configured pipeline: what it makes of a change, and where that belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from connectors.contracts.changes import Change, Delivered
from connectors.subjects import change_subject
from dataflows.failing import StepError
from dataflows.filters import Filter
from dataflows.routing import TablePattern, partition, topic, topic_from
from dataflows.steps import Steps
from dataflows.transforms.record import Record, key_of_row
from dataflows.transforms.spec import make

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.contracts.changes import TableSchema
    from dataflows.configuration.pipeline_spec import PipelineSpec
    from dataflows.steps import Made
    from dataflows.transforms.record import Row

_Change = TypeVar("_Change", Change, Delivered)

# So many places are remembered.
_PLACES = 10_000


class _Place(NamedTuple):
    """Where changes go: a topic, its partitions, and the subject of the first of them."""

    topic: str
    partitions: int
    subject: str


class Pipeline:
    """One configured pipeline, for the changes of one source.

    Args:
        name: Its name.
        spec: Its settings.
        source: The source's name.
        partitions: Partitions of each topic; one for a topic that is not named.
        allowed: The Python functions that may be called.

    Raises:
        ConfigError: A function may not or cannot be imported.
    """

    def __init__(
        self,
        name: str,
        spec: PipelineSpec,
        source: str,
        partitions: Mapping[str, int],
        allowed: Sequence[str],
    ) -> None:
        self.name, self.spec = name, spec
        self._source, self._partitions, self._key = source, partitions, spec.key
        self._patterns = None if spec.tables is None else [TablePattern(t) for t in spec.tables]
        transforms = make(spec.transform, allowed, f"pipelines.{name}.transform")
        kept = Filter(spec.filter) if spec.filter is not None else None
        self.steps = Steps(name, kept, transforms, spec.on_error)
        self._places: dict[tuple[str, str], _Place] = {}

    def takes(self, table: TableSchema | None) -> bool:
        """Whether changes of this table go through it; None: logical messages."""
        if self._patterns is None:
            return True
        return table is not None and any(pattern.matches(table) for pattern in self._patterns)

    def apply(self, change: _Change) -> list[tuple[str, _Change]]:
        """Return what becomes of a change, with the subjects where it belongs."""
        made = self.steps.apply(change)
        try:
            return [(self._subject(one), one.change) for one in made]  # type: ignore[misc]
        except StepError as error:
            instead = self.steps.fail(change, error)
        # Kept without the columns that were to choose the partition: the row's key does.
        made = made if instead is None else instead
        return [(self._subject(one, by_key=True), cast("_Change", one.change)) for one in made]

    def _subject(self, made: Made, *, by_key: bool = False) -> str:
        change, record = made
        table, route = change.table, record.route if record else ""
        place = self._places.get((table.hash if table else "", route))
        if place is None:
            place = self._place(table, route)
        if change.failed:
            number = partition(change.key, place.partitions)
            return change_subject(self._source, place.topic, number, dead=True)
        if place.partitions == 1:
            return place.subject
        key = change.key
        if self._key is not None and not by_key:
            key = _partition_key(self._key, record or Record(change))
        return change_subject(self._source, place.topic, partition(key, place.partitions))

    def _place(self, table: TableSchema | None, route: str) -> _Place:
        template = self.spec.template
        if template is None:
            name = topic(table)
        else:
            name = topic_from(template, self._source, table, route)
        # Events name their topics themselves, so that there may be no end to them.
        if len(self._places) >= _PLACES:
            self._places.clear()
        place = _Place(name, self._partitions.get(name, 1), change_subject(self._source, name, 0))
        self._places[table.hash if table else "", route] = place
        return place


def _partition_key(columns: Sequence[str], record: Record) -> str | None:
    """The JSON of these columns; None for a change without a row."""
    record.open()
    if record.before is None and record.after is None:
        return None
    row: Row = {}
    for name in columns:
        value = record.value(name)
        if value is None:
            raise StepError(
                "routing.no_such_column",
                f"column {name}, which is to choose the partition, has no value in the change",
            )
        row[name] = value
    return key_of_row(row)
