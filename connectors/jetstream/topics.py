"""From a sink's topics to the subjects of one stream that it reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from connectors.errors import ConfigError
from connectors.subjects import DEAD, covers

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOKENS = re.compile(r"[^\s.*>\x00-\x1f\x7f]+(\.[^\s.*>\x00-\x1f\x7f]+)*")


def filter_subjects(source: str, topics: Iterable[str]) -> tuple[str, ...]:
    """The filters for a source's stream; no two of them match the same subject.

    `db.users` becomes `CDC.<source>.db.users.*` (all its partitions), `db.*` becomes
    `CDC.<source>.db.>` (everything below), `*` becomes `CDC.<source>.>`. Each brings along the
    changes of these topics on which a pipeline has failed (`subjects`).

    Raises:
        ConfigError: A topic is not of that form.
    """
    filters = sorted({each for topic in topics for each in _filters(source, topic)})
    return tuple(
        subject
        for subject in filters
        if not any(other != subject and covers(other, subject) for other in filters)
    )


def _filters(source: str, topic: str) -> tuple[str, ...]:
    if topic == "*":
        return (f"CDC.{source}.>",)
    name = topic.removesuffix(".*")
    if not _TOKENS.fullmatch(name):
        raise ConfigError(
            "jetstream.topic",
            f"{topic!r}: a topic is words joined by dots; `*` may stand only as the last word",
            where="topics",
            cure="write other characters of a table's name as %XX: `db.My%20Table`",
        )
    words = f"{name}.{'>' if name != topic else '*'}"
    return f"CDC.{source}.{words}", f"CDC.{source}.{DEAD}.{words}"
