"""What a logged statement is: the frame of a transaction, DDL, or changes of rows as their text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

# Blanks, comments, and the opening of a comment that the server executes (`/*!50003 ... */`).
_LEAD = r"(?:\s+|/\*(?!M?!).*?\*/|/\*M?!\d*|--\s.*?(?:\n|$)|#.*?(?:\n|$))*"
_WORD = re.compile(rf"{_LEAD}([a-zA-Z_]*)", re.DOTALL)
_NAME = r'(`(?:[^`]|``)+`|"(?:[^"]|"")+"|[^\s`".;]+)'
_TRUNCATE = re.compile(
    rf"{_LEAD}truncate\s+(?:table\s+)?{_NAME}(?:\s*\.\s*{_NAME})?", re.DOTALL | re.IGNORECASE
)
_SAVEPOINT = re.compile(
    rf"{_LEAD}(?:rollback\s+(?:work\s+)?to\s+(?:savepoint\s+)?|savepoint\s+){_NAME}",
    re.DOTALL | re.IGNORECASE,
)
_CREATE_TABLE = re.compile(
    rf"{_LEAD}create\s+(?:or\s+replace\s+)?table\b(.*)", re.DOTALL | re.IGNORECASE
)
_QUOTED = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`|/\*(?!M?!).*?\*/|(?:--\s|\#).*?(?:\n|$)""",
    re.DOTALL,
)
# Behind a dot even these words are names.
_QUERY = re.compile(r"(?<![.\w])(?:select|table|values\s+row)\b", re.IGNORECASE)
_XA = re.compile(r"\s*xa\s+(\w+)\s+(.*?)(\s+one\s+phase)?\s*", re.DOTALL | re.IGNORECASE)
_DDL = frozenset(
    """
    ALTER ANALYZE BACKUP CACHE CHANGE CHECK CREATE DROP FLUSH GRANT IMPORT INSTALL KILL LOCK
    OPTIMIZE PURGE RENAME REPAIR RESET RESTART REVOKE SET SHUTDOWN START STOP TRUNCATE UNINSTALL
    UNLOCK USE
    """.split()  # noqa: SIM905 - a list of words reads better
)


class What(Enum):
    """What a statement does to the transaction that is being read."""

    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    ROLLBACK_TO = "rollback to"
    XA = "xa"
    TRUNCATE = "truncate"
    DDL = "ddl"
    NOTHING = "nothing"
    ROWS = "rows"  # or something that nobody knows


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, as far as it matters.

    Attributes:
        what: Its kind.
        verb: Its first word, in capitals.
        names: The savepoint; or the truncated table, behind its database if that is given; or, of
            XA, the word behind it and the transaction's id.
    """

    what: What
    verb: str
    names: tuple[str, ...] = ()


def classify(text: str) -> Statement:
    """Tell what a statement is."""
    match = _WORD.match(text)
    verb = match[1].upper() if match else ""
    if verb == "BEGIN" or (
        verb == "START" and re.match(rf"{_LEAD}start\s+transaction", text, re.IGNORECASE)
    ):
        return Statement(What.BEGIN, verb)
    if verb == "COMMIT":
        return Statement(What.COMMIT, verb)
    if verb in ("ROLLBACK", "SAVEPOINT"):
        savepoint = _SAVEPOINT.match(text)
        if savepoint is None:
            return Statement(What.ROLLBACK, verb)
        what = What.SAVEPOINT if verb == "SAVEPOINT" else What.ROLLBACK_TO
        return Statement(what, verb, (_unquoted(savepoint[1]),))
    if verb == "XA" and (xa := _XA.fullmatch(text)):
        return Statement(What.XA, verb, (xa[1].upper(), "".join(xa[2].split())))
    if verb == "TRUNCATE" and (truncate := _TRUNCATE.match(text)):
        names = tuple(_unquoted(name) for name in truncate.groups() if name)
        return Statement(What.TRUNCATE, verb, names)
    if verb == "CREATE" and _fills_table(text):
        return Statement(What.ROWS, "CREATE TABLE ... SELECT")
    if verb in ("RELEASE", "") and not (
        verb == "" and text.strip(" \t\r\n;") and _is_unknown(text)
    ):
        return Statement(What.NOTHING, verb)
    return Statement(What.DDL if verb in _DDL else What.ROWS, verb)


def _fills_table(text: str) -> bool:
    """Whether a table is made with the rows of a query; a log of rows tells those apart from it."""
    match = _CREATE_TABLE.match(text)
    return match is not None and _QUERY.search(_QUOTED.sub(" ", match[1])) is not None


def _is_unknown(text: str) -> bool:
    """Whether something is left where a statement's first word should be."""
    match = _WORD.match(text)
    return bool(text[match.end() :].strip()) if match else True


def _unquoted(name: str) -> str:
    if name[0] in '`"':
        return name[1:-1].replace(name[0] * 2, name[0])
    return name
