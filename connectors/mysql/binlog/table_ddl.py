"""What a statement does to tables, as far as its text tells: kind, names, and what may be told.

Grammar: MySQL Reference Manual, "Data Definition Statements"; MariaDB documentation, "Data
Definition". A log holds statements that the server has understood: only their beginnings are read,
and of ALTER TABLE the new name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Comments say nothing, but for those that the server executes (`/*!50003 ... */`).
_TOKEN = re.compile(
    r"""
    (?P<blank>\s+|/\*(?!M?!).*?\*/|/\*M?!\d*|\*/|--\s.*?(?:\n|$)|\#.*?(?:\n|$))
    | (?P<string>'(?:[^'\\]|\\.|'')*')
    | (?P<quoted>`(?:[^`]|``)*`|"(?:[^"\\]|\\.|"")*")
    | (?P<word>[\w$\u0080-\U0010ffff]+)
    | (?P<other>.)
    """,
    re.DOTALL | re.VERBOSE,
)
_VERBS = frozenset({"CREATE", "ALTER", "DROP", "RENAME", "TRUNCATE"})
# What may stand between the verb and the word that tells what it is about.
_MODIFIERS = frozenset(
    {"OR", "REPLACE", "ONLINE", "OFFLINE", "IGNORE", "UNIQUE", "FULLTEXT", "SPATIAL", "VECTOR"}
)
_HIDDEN = "'***'"


@dataclass(frozen=True, slots=True)
class TableDdl:
    """A statement about tables that outlive their session.

    Attributes:
        kind: `create`, `alter`, `drop`, `rename` or `truncate`.
        tables: The tables that it names as its objects: database and name.
        renamed: What becomes of the names of `tables`, in the same order; empty unless all or the
            only one of them get new ones.
    """

    kind: str
    tables: tuple[tuple[str, str], ...]
    renamed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """In capitals; empty unless it is a bare word."""
        return self.text.upper() if self.kind == "word" else ""


class _Reader:
    """Goes through the tokens of a statement."""

    def __init__(self, tokens: list[_Token], database: str) -> None:
        self._tokens, self._database, self._at = tokens, database, 0

    def word(self) -> str:
        """The next token, if it is a bare word."""
        return self._tokens[self._at].word if self._at < len(self._tokens) else ""

    def text(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else ""

    @property
    def ended(self) -> bool:
        return self._at >= len(self._tokens)

    def skip(self, *words: str) -> bool:
        """Go behind these words, if they are next."""
        part = self._tokens[self._at : self._at + len(words)]
        found = [token.word or token.text for token in part] == list(words)
        self._at += len(words) if found else 0
        return found

    def step(self) -> None:
        self._at += 1

    def name(self) -> tuple[str, str] | None:
        """The table that is named next."""
        first = self._part()
        if first is None:
            return None
        if not self.skip("."):
            return self._database, first
        second = self._part()
        return None if second is None else (first, second)

    def _part(self) -> str | None:
        if self.ended or self._tokens[self._at].kind not in ("word", "quoted"):
            return None
        token = self._tokens[self._at]
        self._at += 1
        if token.kind == "word":
            return token.text
        return token.text[1:-1].replace(token.text[0] * 2, token.text[0])


def parse_table_ddl(text: str, database: str) -> TableDdl | None:
    """What a statement does to tables; None: nothing, or only to temporary ones.

    Args:
        text: The statement.
        database: The session's, for names without one.
    """
    reader = _Reader(list(_tokens(text)), database)
    verb = reader.word()
    if verb not in _VERBS:
        return None
    reader.step()
    while reader.word() in _MODIFIERS:
        reader.step()
    if verb == "TRUNCATE":
        reader.skip("TABLE")
        return _of("truncate", reader.name())
    if reader.skip("INDEX"):
        return _index(reader) if verb in ("CREATE", "DROP") else None
    if not (reader.skip("TABLE") or reader.skip("TABLES")):
        return None
    if not reader.skip("IF", "EXISTS"):
        reader.skip("IF", "NOT", "EXISTS")
    if verb == "RENAME":
        return _rename(reader)
    if verb == "DROP":
        names = [reader.name()]
        while reader.skip(","):
            names.append(reader.name())
        return _of("drop", *names)
    if verb == "CREATE":
        return _of("create", reader.name())
    return _alter(reader)


def hide_secrets(text: str) -> str:
    """A statement without the passwords that it may hold, such as those of FEDERATED tables."""
    tokens = list(_tokens(text))
    shown, behind = [], 0
    for index, token in enumerate(tokens):
        if token.word not in ("CONNECTION", "PASSWORD"):
            continue
        value = index + 1
        if value < len(tokens) and tokens[value].text == "=":
            value += 1
        if value < len(tokens) and _is_string(tokens[value]):
            shown += [text[behind : tokens[value].start], _HIDDEN]
            behind = tokens[value].end
    return "".join([*shown, text[behind:]])


def _is_string(token: _Token) -> bool:
    return token.kind == "string" or token.text.startswith('"')


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        if match.lastgroup and match.lastgroup != "blank":
            yield _Token(match.lastgroup, match[0], *match.span())


def _of(kind: str, *names: tuple[str, str] | None) -> TableDdl | None:
    found = tuple(name for name in names if name is not None)
    return TableDdl(kind, found) if found else None


def _index(reader: _Reader) -> TableDdl | None:
    """`CREATE INDEX name ON table` and `DROP INDEX name ON table` alter it."""
    while not reader.ended and not reader.skip("ON"):
        reader.step()
    return _of("alter", reader.name())


def _rename(reader: _Reader) -> TableDdl | None:
    before, after = [], []
    while (name := reader.name()) is not None:
        # MariaDB: `WAIT n` and `NOWAIT`
        while not reader.ended and not reader.skip("TO"):
            reader.step()
        new = reader.name()
        if new is None:
            break
        before.append(name)
        after.append(new)
        if not reader.skip(","):
            break
    return TableDdl("rename", tuple(before), tuple(after)) if before else None


def _alter(reader: _Reader) -> TableDdl | None:
    name = reader.name()
    if name is None:
        return None
    depth = 0
    while not reader.ended:
        depth += {"(": 1, ")": -1}.get(reader.text(), 0)
        if depth == 0 and reader.skip("RENAME"):
            if reader.word() in ("COLUMN", "INDEX", "KEY"):
                continue
            if not (reader.skip("TO") or reader.skip("AS")):
                reader.skip("=")
            new = reader.name()
            if new is not None:
                return TableDdl("rename", (name,), (new,))
            continue
        reader.step()
    return TableDdl("alter", (name,))
