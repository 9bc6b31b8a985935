"""Table patterns: which tables of a server a source captures.

    shop.*              every table of the database `shop`
    *.*                 every table of every database
    sales.order_*       `*` stands for any run of characters
    `odd db`.`a*b`      quoted parts, in backticks or double quotes, are taken literally

Names are told apart as the server does it: by case, unless it folds them
(`lower_case_table_names`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Never captured: the system's own databases, and the name under which sinks keep their books.
EXCLUDED_SCHEMAS = ("information_schema", "mysql", "performance_schema", "sys", "waxtap")

# A run of any characters; no name has it.
ANY = "\0"

_PART = re.compile(r'`((?:[^`]|``)+)`|"((?:[^"]|"")+)"|([^`".\s][^`".]*)')


@dataclass(frozen=True, slots=True)
class TablePattern:
    """One pattern.

    Attributes:
        text: As the user wrote it.
        schema: Matches names of databases.
        table: Matches names of tables.
        globs: Both as plain text, with `ANY` for each `*`.
    """

    text: str
    schema: str
    table: str
    globs: tuple[str, str]

    def example(self, stand_in: str) -> tuple[str, str]:
        """Database and name of a table that matches.

        Args:
            stand_in: What a `*` stands for; does not contain one.
        """
        schema, table = self.globs
        return _filled(schema, stand_in), _filled(table, stand_in)

    @property
    def granted(self) -> str:
        """What to grant rights on, so that all tables that match are among it."""
        schema, table = self.globs
        if ANY in schema:
            return "*.*"
        name = f"`{schema.replace('`', '``')}`"
        return f"{name}.*" if ANY in table else f"{name}.`{table.replace('`', '``')}`"


def parse_patterns(texts: Sequence[str]) -> tuple[TablePattern, ...]:
    """Read all patterns of a source.

    Raises:
        ConfigError: `mysql.table_pattern`: one is malformed, or there is none.
    """
    if not texts:
        raise ConfigError(
            "mysql.table_pattern",
            "no table pattern is given",
            where="tables",
            cure="leave `tables` out for every table, or name at least one",
        )
    return tuple(_parse(text) for text in texts)


def wanted(patterns: Sequence[TablePattern], *, fold: bool) -> Callable[[str, str], bool]:
    """What tells whether a table (database, name) is captured.

    Args:
        patterns: Those of the source.
        fold: Whether the server does not tell upper from lower case.
    """
    flags = re.DOTALL | (re.IGNORECASE if fold else 0)
    compiled = [(re.compile(p.schema, flags), re.compile(p.table, flags)) for p in patterns]

    def matches(schema: str, name: str) -> bool:
        return schema.lower() not in EXCLUDED_SCHEMAS and any(
            of_schema.fullmatch(schema) and of_name.fullmatch(name)
            for of_schema, of_name in compiled
        )

    return matches


def _parse(text: str) -> TablePattern:
    first = _PART.match(text)
    second = _PART.fullmatch(text, first.end() + 1) if first else None
    if first is None or second is None or text[first.end()] != ".":
        raise ConfigError(
            "mysql.table_pattern",
            f"{text!r} is not a table pattern",
            where="tables",
            cure="write `database.table`, each part a name, a pattern with `*`, or in backticks",
        )
    globs = _glob(first), _glob(second)
    return TablePattern(text, _expression(globs[0]), _expression(globs[1]), globs)


def _glob(match: re.Match[str]) -> str:
    backticks, quotes, bare = match.groups()
    if backticks is not None:
        return backticks.replace("``", "`")
    if quotes is not None:
        return quotes.replace('""', '"')
    return bare.replace("*", ANY)


def _expression(glob: str) -> str:
    return ".*".join(re.escape(piece) for piece in glob.split(ANY))


def _filled(glob: str, stand_in: str) -> str:
    return glob.replace(ANY, stand_in)
