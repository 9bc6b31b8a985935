"""Table patterns: which tables of a database a source captures.

    public.*                 every table of the schema `public`
    *.*                      every table of every schema
    sales.order_*            `*` stands for any run of characters
    "Odd Schema"."My Table"  quoted parts are taken literally, as in SQL

Unquoted parts are folded to lower case, as PostgreSQL folds unquoted identifiers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from connectors.errors import ConfigError

# Never captured: the system's own schemas, and the one in which PostgreSQL sinks keep their books
# (a sink that writes into the source's database would otherwise feed itself for ever).
EXCLUDED_SCHEMAS = ("information_schema", "waxtap")

_PART = re.compile(r'"((?:[^"]|"")+)"|([^".\s][^".]*)')


@dataclass(frozen=True, slots=True)
class TablePattern:
    """One pattern.

    Attributes:
        text: As the user wrote it.
        whole: True when it takes every table of the schemas it names.
        every: True when it takes every table of the database.
    """

    text: str
    whole: bool
    every: bool
    schema: re.Pattern[str]
    table: re.Pattern[str]

    def matches_schema(self, schema: str) -> bool:
        """Whether tables of this schema may match; system schemas never do."""
        return not is_excluded(schema) and self.schema.fullmatch(schema) is not None

    def matches(self, schema: str, table: str) -> bool:
        """Whether the pattern takes this table."""
        return self.matches_schema(schema) and self.table.fullmatch(table) is not None


def is_excluded(schema: str) -> bool:
    """Whether tables of this schema are never captured."""
    return schema in EXCLUDED_SCHEMAS or schema.startswith("pg_")


def parse_pattern(text: str) -> TablePattern:
    """Read one pattern.

    Raises:
        ConfigError: `postgres.table_pattern`: it is not of the form `schema.table`.
    """
    first = _PART.match(text)
    second = _PART.fullmatch(text, first.end() + 1) if first else None
    if first is None or second is None or text[first.end()] != ".":
        raise ConfigError(
            "postgres.table_pattern",
            f"{text!r} is not a table pattern",
            where="tables",
            cure='write `schema.table`, each part a name, a pattern with `*`, or "quoted"',
        )
    return TablePattern(
        text=text,
        whole=second[2] == "*",
        every=first[2] == "*" and second[2] == "*",
        schema=_part(first),
        table=_part(second),
    )


def parse_patterns(texts: tuple[str, ...]) -> tuple[TablePattern, ...]:
    """Read all patterns of a source.

    Raises:
        ConfigError: `postgres.table_pattern`: one is malformed, or there is none.
    """
    if not texts:
        raise ConfigError(
            "postgres.table_pattern",
            "no table pattern is given",
            where="tables",
            cure="leave `tables` out for every table, or name at least one",
        )
    return tuple(parse_pattern(text) for text in texts)


def _part(match: re.Match[str]) -> re.Pattern[str]:
    quoted, bare = match[1], match[2]
    if quoted is not None:
        return re.compile(re.escape(quoted.replace('""', '"')), re.DOTALL)
    pieces = (re.escape(piece) for piece in bare.lower().split("*"))
    return re.compile(".*".join(pieces), re.DOTALL)
