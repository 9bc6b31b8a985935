"""Makes indices, or templates for them, before their first document, and follows new columns.

The type of a field that an index has cannot be changed in place: Elasticsearch needs a new index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import structlog
from elasticsearch import ApiError
from pydantic import JsonValue

from connectors.elasticsearch.client import ask, kind_of, reason
from connectors.elasticsearch.mapping import holds, properties
from connectors.errors import ConfigError, PermanentError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from connectors.contracts.changes import TableSchema
    from connectors.elasticsearch.spec import SinkSpec

_log: structlog.stdlib.BoundLogger = structlog.get_logger("connectors.elasticsearch.sink")

_Fields = Mapping[str, Mapping[str, JsonValue]]

# Above Elastic's own templates, which have up to 100 for patterns such as `logs-*-*`.
_PRIORITY = 150


class Indices:
    """Keeps what has been made, so that it asks once for each shape of a table.

    Args:
        client: To the target.
        spec: What to make.
    """

    def __init__(self, client: Elasticsearch, spec: SinkSpec) -> None:
        self._client, self._spec = client, spec
        self._done: dict[str, set[str]] = {}
        self._conflicts: dict[str, dict[str, str]] = {}
        self.refused: dict[tuple[str, str], PermanentError] = {}

    def conflict(self, index: str) -> str:
        """The fields of an index that do not take all values of their columns; empty: none."""
        return "; ".join(self._conflicts.get(index, {}).values())

    def ensure(self, tables: Mapping[str, Mapping[str, TableSchema]]) -> None:
        """Make what is missing for these shapes of each index. Raises the client's own errors too.

        Shapes that `schema_changes: refuse` refuses are in `refused`, by index and hash.

        Raises:
            ConfigError: `elasticsearch.index`: the server refuses an index, or a field of it.
        """
        for index, shapes in tables.items():
            done = self._done.setdefault(index, set())
            for digest, table in shapes.items():
                if digest not in done:
                    try:
                        self._ensure(index, table)
                    except PermanentError as error:
                        self.refused[index, digest] = error
                    done.add(digest)

    def _ensure(self, index: str, table: TableSchema) -> None:
        if self._spec.create == "nothing":
            return
        fields = properties(table, self._spec.fields)
        mappings: dict[str, JsonValue] = {"properties": dict(fields)}
        if self._spec.schema_changes != "add":
            # what comes later is not indexed unless somebody says how
            mappings["dynamic"] = False
        made: dict[str, JsonValue] = {
            "settings": {
                "index.gc_deletes": f"{round(self._spec.gc_deletes.total_seconds() * 1000)}ms",
                **self._spec.settings,
            },
            "mappings": mappings,
        }
        try:
            if self._spec.create == "template":
                self._template(index, made)
            self._index(index, table, made, fields)
        except ApiError as error:
            if error.status_code not in (400, 403):
                raise
            raise ConfigError(
                "elasticsearch.index",
                f"the index cannot be made for {table.schema}.{table.name}: {reason(error)}",
                where=index,
                cure="correct `settings` and `fields`, give the role the privilege manage, or make "
                "the index by hand and set `create: nothing`",
            ) from None

    def _template(self, index: str, made: Mapping[str, JsonValue]) -> None:
        template = {"index_patterns": [index], "priority": _PRIORITY, "template": made}
        ask(self._client, "PUT", f"/_index_template/waxtap-{index}", template)

    def _index(self, index: str, table: TableSchema, made: object, fields: _Fields) -> None:
        try:
            ask(self._client, "GET", f"/{index}/_mapping?filter_path=*.mappings.properties.*.type")
        except ApiError as error:
            if error.status_code != 404:
                raise
            if self._spec.create == "index" and self._make(index, made):
                return
            if self._spec.create == "template":
                return
        self._follow(index, table, fields)

    def _make(self, index: str, made: object) -> bool:
        """False: somebody else has made it in the meantime."""
        try:
            ask(self._client, "PUT", f"/{index}", made)
        except ApiError as error:
            if kind_of(error) != "resource_already_exists_exception":
                raise
            return False
        return True

    def _follow(self, index: str, table: TableSchema, fields: _Fields) -> None:
        """Add the columns that the mapping lacks; what it has is its owner's, and stays."""
        known: dict[str, Mapping[str, JsonValue]] = {}
        dynamic = False
        for each in ask(self._client, "GET", f"/{index}/_mapping").values():
            known |= each["mappings"].get("properties", {})
            dynamic |= str(each["mappings"].get("dynamic", "true")) == "true"
        lacking = {name: field for name, field in fields.items() if name not in known}
        narrow = {
            name: f"field {name} is {_kind(known[name])}, and the column's type "
            f"{_type(table, name)} needs {_kind(field)}"
            for name, field in fields.items()
            if name in known and not holds(known[name], field)
        }
        if self._spec.schema_changes == "refuse" and (lacking or narrow):
            raise _refused(index, table, lacking, narrow)
        self._tell(index, table, narrow)
        if lacking and self._spec.schema_changes == "add":
            ask(self._client, "PUT", f"/{index}/_mapping", {"properties": lacking})
        elif lacking and dynamic:
            # otherwise the first document would add them, by a guess at their types
            ask(self._client, "PUT", f"/{index}/_mapping", {"dynamic": False})

    def _tell(self, index: str, table: TableSchema, narrow: Mapping[str, str]) -> None:
        known = self._conflicts.setdefault(index, {})
        new = {name: text for name, text in narrow.items() if known.get(name) != text}
        if new:
            known.update(new)
            _log.warning(
                "fields_keep_their_type",
                index=index,
                table=f"{table.schema}.{table.name}",
                fields="; ".join(new.values()),
                cure=REINDEX,
            )


# How a field gets another type.
REINDEX = (
    "a field's type cannot be changed in place: set `index` to a new name, so that the index is "
    "made with the present types, and fill it by `start: beginning`, a backfill, or `_reindex` "
    "(docs/schema-changes.md)"
)


def _kind(field: Mapping[str, JsonValue]) -> str:
    return str(field.get("type", "object"))


def _type(table: TableSchema, name: str) -> str:
    return next(column.type for column in table.columns if column.name == name)


def _refused(
    index: str,
    table: TableSchema,
    lacking: _Fields,
    narrow: Mapping[str, str],
) -> PermanentError:
    told = [f"the index has no field for {', '.join(lacking)}"] if lacking else []
    cures = []
    if lacking:
        body = msgspec.json.encode({"properties": lacking}).decode()
        cures.append(f"PUT /{index}/_mapping {body}")
    if narrow:
        cures.append(REINDEX)
    return PermanentError(
        "elasticsearch.no_field" if lacking else "elasticsearch.narrow_field",
        "; ".join([*told, *narrow.values()]),
        where=f"{table.schema}.{table.name}",
        cure=f"set schema_changes: add or ignore, or {'; '.join(cures)}; then `waxtap dlq replay`",
    )
