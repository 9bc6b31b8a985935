"""Makes indices, or templates for them, before their first document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elasticsearch import ApiError

from connectors.elasticsearch.client import ask, kind_of, reason
from connectors.elasticsearch.mapping import properties
from connectors.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elasticsearch import Elasticsearch
    from pydantic import JsonValue

    from connectors.contracts.changes import TableSchema
    from connectors.elasticsearch.spec import SinkSpec

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

    def ensure(self, tables: Mapping[str, Mapping[str, TableSchema]]) -> None:
        """Make what is missing for these shapes of each index. Raises the client's own errors too.

        Raises:
            ConfigError: `elasticsearch.index`: the server refuses an index, or a field of it.
        """
        for index, shapes in tables.items():
            done = self._done.setdefault(index, set())
            for digest, table in shapes.items():
                if digest not in done:
                    self._ensure(index, table)
                    done.add(digest)

    def _ensure(self, index: str, table: TableSchema) -> None:
        if self._spec.create == "nothing":
            return
        fields = properties(table, self._spec.fields)
        made: dict[str, JsonValue] = {
            "settings": {
                "index.gc_deletes": f"{round(self._spec.gc_deletes.total_seconds() * 1000)}ms",
                **self._spec.settings,
            },
            "mappings": {"properties": fields},
        }
        try:
            if self._spec.create == "template":
                self._template(index, made)
            self._index(index, made, fields)
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

    def _index(self, index: str, made: object, fields: Mapping[str, JsonValue]) -> None:
        try:
            ask(self._client, "GET", f"/{index}/_mapping?filter_path=*.mappings.properties.*.type")
        except ApiError as error:
            if error.status_code != 404:
                raise
            if self._spec.create == "index" and self._make(index, made):
                return
            if self._spec.create == "template":
                return
        self._extend(index, fields)

    def _make(self, index: str, made: object) -> bool:
        """False: somebody else has made it in the meantime."""
        try:
            ask(self._client, "PUT", f"/{index}", made)
        except ApiError as error:
            if kind_of(error) != "resource_already_exists_exception":
                raise
            return False
        return True

    def _extend(self, index: str, fields: Mapping[str, JsonValue]) -> None:
        """Add the columns that the mapping lacks; what it has is its owner's."""
        known: set[str] = set()
        for each in ask(self._client, "GET", f"/{index}/_mapping").values():
            known |= each["mappings"].get("properties", {}).keys()
        lacking = {name: field for name, field in fields.items() if name not in known}
        if lacking:
            ask(self._client, "PUT", f"/{index}/_mapping", {"properties": lacking})
