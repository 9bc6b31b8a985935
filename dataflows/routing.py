"""Where a change goes: its topic, its partition, its subject.

A subject is `CDC.<source>.<topic>.<partition>`. Without a pipeline, each table has its own topic:
`db.<table>` for a table in the source's default schema, `db.<schema>.<table>` for any other, and
`messages` for logical messages. Characters that a subject may not hold are percent-encoded (UTF-8).

The partition is CRC-32 (IEEE, as in zlib) of the change's key, or of the columns that a pipeline
chooses, modulo the topic's partitions. Both are a JSON object in ASCII without blanks, so every
language can compute it. Changes without a key go to partition 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote
from zlib import crc32

from connectors.contracts.changes import Change, TableSchema
from connectors.subjects import DEAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DEFAULT_SCHEMAS = {"json": "public", "postgresql": "public"}
_MESSAGES = "messages"
# What stands in a topic for an event that could not be told to belong anywhere.
_UNKNOWN = "unknown"
_VARIABLE = re.compile(r"\{([^{}]*)\}")
_VARIABLES = ("table", "schema", "source", "aggregatetype")
_TOPIC = re.compile(r"[A-Za-z0-9_%-]+(\.[A-Za-z0-9_%-]+)*")
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".\s]+)')


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


def check_topic(name: str) -> None:
    """Raise ValueError, which says why, if no topic can have this name."""
    if not _TOPIC.fullmatch(name):
        raise ValueError(
            "topic: words of letters, digits, _ and -, joined by dots; write others as %XX"
        )
    if name.split(".")[0] == DEAD:
        raise ValueError(f"topic: the word {DEAD} is taken, let it not stand first")


def check_template(template: str, *, outbox: bool) -> None:
    """Raise ValueError, which says why, if this is no topic template."""
    for name in _VARIABLE.findall(template):
        if name not in _VARIABLES:
            raise ValueError(f"topic: {{{name}}} is unknown; known: {', '.join(_VARIABLES)}")
        if name == "aggregatetype" and not outbox:
            raise ValueError("topic: only the transform `outbox` knows an {aggregatetype}")
    example = _VARIABLE.sub("x", template)
    check_topic(example)


def topic_from(template: str, source: str, table: TableSchema | None, route: str) -> str:
    """The topic that a template means for a table's changes.

    Args:
        template: Has been checked.
        source: The source's name.
        table: None for a logical message, which has the topic `messages` where the template asks
            for a table.
        route: What `{aggregatetype}` stands for; empty where it is not known.
    """
    names = _VARIABLE.findall(template)
    if table is None and ("table" in names or "schema" in names):
        return _MESSAGES
    values = {"source": source, "aggregatetype": route or _UNKNOWN}
    if table is not None:
        values |= {"table": table.name, "schema": table.schema}
    name = _VARIABLE.sub(lambda found: token(values[found[1]]), template)
    if name.split(".")[0] == DEAD:
        return f"%{ord(DEAD[0]):X}{name[1:]}"
    return name


class TablePattern:
    """`schema.table`, each part a name, a pattern with `*`, or `"quoted"`; capitals count.

    Raises:
        ValueError: It is not of that form.
    """

    def __init__(self, text: str) -> None:
        schema = _PART.match(text)
        table = _PART.fullmatch(text, schema.end() + 1) if schema else None
        if schema is None or table is None or text[schema.end()] != ".":
            raise ValueError(f'{text!r} is no `schema.table`, with `*` or "quotes" in each part')
        self._schema, self._table = _expression(schema), _expression(table)

    def matches(self, table: TableSchema) -> bool:
        """Whether the pattern takes this table."""
        return bool(self._schema.fullmatch(table.schema) and self._table.fullmatch(table.name))


def _expression(part: re.Match[str]) -> re.Pattern[str]:
    quoted, bare = part[1], part[2]
    if quoted is not None:
        return re.compile(re.escape(quoted.replace('""', '"')), re.DOTALL)
    return re.compile(".*".join(map(re.escape, bare.split("*"))), re.DOTALL)


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
