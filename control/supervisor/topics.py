"""Which topics a source's changes may be written to, as far as its configuration tells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from connectors.contracts.changes import TableSchema
from dataflows.routing import TablePattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_VARIABLE = re.compile(r"\{[^{}]*\}")
_TABLE_TOPIC = re.compile(r"db\.(?:([^.]+)\.)?([^.]+)")
# Of tables whose topic names no schema.
_DEFAULT_SCHEMA = "public"
_OUTBOX = "outbox.event.{aggregatetype}"


def may_be_written(
    topic: str, source: Mapping[str, object], pipelines: Iterable[Mapping[str, object]]
) -> bool:
    """Whether changes of a source may go to a topic.

    Never says no where they may; where the tables of a source decide, patterns of the connector's
    own are not understood better than needed to tell plain names apart.

    Args:
        topic: Its name.
        source: The source's settings.
        pipelines: Those that may take its changes; none: each table has its own topic.
    """
    written = False
    for pipeline in list(pipelines) or [{}]:
        template = _template(pipeline)
        if template is None:
            written = _has_own_topic(topic, source, pipeline)
        else:
            words = _VARIABLE.split(template)
            written = bool(re.fullmatch(".+".join(map(re.escape, words)), topic)) or (
                topic == "messages" and len(words) > 1
            )
        if written:
            break
    return written


def _template(pipeline: Mapping[str, object]) -> str | None:
    topic, steps = pipeline.get("topic"), pipeline.get("transform")
    if isinstance(topic, str):
        return topic
    outbox = isinstance(steps, list) and any(isinstance(s, dict) and "outbox" in s for s in steps)
    return _OUTBOX if outbox else None


def _has_own_topic(
    topic: str, source: Mapping[str, object], pipeline: Mapping[str, object]
) -> bool:
    """Whether it may be the own topic of a table that the source and the pipeline take."""
    if topic == "messages":
        return True
    found = _TABLE_TOPIC.fullmatch(topic)
    if found is None:
        return False
    schema, name = unquote(found[1] or _DEFAULT_SCHEMA), unquote(found[2])
    table = TableSchema("", schema.lower(), name.lower(), (), ())
    return all(_takes(owner.get("tables"), table) for owner in (source, pipeline))


def _takes(patterns: object, table: TableSchema) -> bool:
    """Whether one of the patterns takes a table, capitals apart; without any, all are taken."""
    if not isinstance(patterns, list):
        return True
    texts = [str(text).lower() for text in patterns]
    if any("`" in text for text in texts):
        return True
    try:
        return any(TablePattern(text).matches(table) for text in texts)
    except ValueError:  # a reference, or what the connector will refuse
        return True
