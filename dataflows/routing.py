"""Where a change goes: its topic, its partition, its subject.

A subject is `CDC.<source>.<topic>.<partition>`. Without a pipeline, each table has its own topic:
`db.<table>` for a table in the source's default schema, `db.<schema>.<table>` for any other, and
`messages` for logical messages. Characters that a subject may not hold are percent-encoded (UTF-8).

The partition is CRC-32 (IEEE, as in zlib) of the change's key, modulo the topic's partitions. The
key is a JSON object in ASCII without blanks, so every language can compute it. Changes without a
key go to partition 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote
from zlib import crc32

from connectors.contracts import Change, TableSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DEFAULT_SCHEMAS = {"postgresql": "public"}
_MESSAGES = "messages"


def token(name: str) -> str:
    """One subject token for `name`: letters, digits, `_` and `-` stay, the rest is `%XX`."""
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def topic(table: TableSchema | None) -> str:
    """The topic of a table's changes when no pipeline says otherwise."""
    if table is None:
        return _MESSAGES
    if table.schema == _DEFAULT_SCHEMAS.get(table.dialect):
        return f"db.{token(table.name)}"
    return f"db.{token(table.schema)}.{token(table.name)}"


def partition(key: str | None, partitions: int) -> int:
    """The partition of a key among `partitions`, the same in every process and language."""
    return crc32(key.encode("ascii")) % partitions if key else 0


class Router:
    """The default routing of one source's changes.

    Args:
        source: The source's name.
        partitions: Partitions of each topic; one for a topic that is not named.
    """

    def __init__(self, source: str, partitions: Mapping[str, int]) -> None:
        self._source = source
        self._partitions = partitions
        self._routes: dict[str, tuple[str, int]] = {}

    def route(self, changes: Iterable[Change]) -> list[tuple[str, Change]]:
        """Return each change with its subject, in the same order."""
        routed = []
        previous: object = self
        subject, partitions = "", 1
        for change in changes:
            # Neighbours mostly share a table, and hashing a schema for each row would cost more
            # than everything else here.
            if change.table is not previous:
                previous = change.table
                subject, partitions = self._route(change.table)
            if partitions == 1:
                routed.append((subject, change))
            else:
                routed.append((f"{subject[:-1]}{partition(change.key, partitions)}", change))
        return routed

    def _route(self, table: TableSchema | None) -> tuple[str, int]:
        version = table.hash if table else ""
        if version not in self._routes:
            name = topic(table)
            self._routes[version] = (
                f"CDC.{self._source}.{name}.0",
                self._partitions.get(name, 1),
            )
        return self._routes[version]
