"""The tables that a snapshot reads, and what the catalog says about each of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pymysql

from connectors.errors import ConfigError
from connectors.mysql.binlog.tables import SEQUENCE
from connectors.mysql.server import DENIED, error_parts, rows
from connectors.mysql.setup.patterns import EXCLUDED_SCHEMAS
from connectors.mysql.snapshot.columns import CatalogColumn
from connectors.mysql.snapshot.queries import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from connectors.mysql.server import Connection
    from connectors.mysql.setup.patterns import TablePattern

# MariaDB counts tables with a history apart; a SELECT shows what is in them now.
_TABLES = """
SELECT TABLE_SCHEMA, TABLE_NAME, COALESCE(TABLE_ROWS, 0), TABLE_TYPE FROM information_schema.TABLES
WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND TABLE_SCHEMA NOT IN ({})
"""
_COLUMNS = """
SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, COALESCE(CHARACTER_OCTET_LENGTH, 0),
       COALESCE(NUMERIC_PRECISION, 0), COALESCE(NUMERIC_SCALE, 0),
       COALESCE(DATETIME_PRECISION, 0), COALESCE(CHARACTER_SET_NAME, ''), COLUMN_KEY = 'PRI'
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
ORDER BY ORDINAL_POSITION
"""
_INDEXES = """
SELECT INDEX_NAME, COLUMN_NAME, COALESCE(COLLATION, 'A') FROM information_schema.STATISTICS
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0
ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX
"""
# When a row of a table with a history began to hold and ceases to, where nobody has named that. The
# log shows these columns, and their end in the key; the catalog does not.
_PERIOD = ("row_start", "row_end")
# Denied for one column only.
_DENIED = DENIED | {1143, 1044}


@dataclass(frozen=True, slots=True)
class Listed:
    """A table that a snapshot reads; implements `snapshot.reading.Table`.

    Attributes:
        schema: Its database.
        name: Its name.
        estimated: How many rows it has by the server's statistics.
        versioned: Whether MariaDB keeps its history.
    """

    schema: str
    name: str
    estimated: int
    versioned: bool

    @property
    def id(self) -> str:
        """Sorts as the tables are read: by database and name, as SQL quotes them."""
        return quoted(self.schema, self.name)

    @property
    def label(self) -> str:
        """`database.table`, for messages."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column by which a table is paged.

    Attributes:
        name: Its name.
        descending: Whether the key's index has it in descending order.
    """

    name: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Described:
    """A table as one snapshot of the database has it.

    Attributes:
        schema: Its database.
        name: Its name.
        columns: In their order.
        key: What tells its rows apart, in the key's order; empty: it has no key.
        index: The key's index.
    """

    schema: str
    name: str
    columns: tuple[CatalogColumn, ...]
    key: tuple[KeyColumn, ...]
    index: str


def listed(connection: Connection, wanted: Callable[[str, str], bool]) -> list[Listed]:
    """The tables that a snapshot reads, in order; views are none.

    Raises:
        RetryableError: The connection broke.
    """
    excluded = ", ".join(f"'{name}'" for name in EXCLUDED_SCHEMAS)
    found = [
        Listed(
            str(schema),
            str(name),
            int(cast("int", estimated)),
            versioned=type_ != "BASE TABLE",
        )
        for schema, name, estimated, type_ in rows(connection, _TABLES.format(excluded))
        if wanted(str(schema), str(name))
    ]
    return sorted(found, key=lambda table: table.id)


def describe(connection: Connection, table: Listed) -> Described | None:
    """What the catalog says about a table now; None: it is gone, or holds no rows of its own.

    Its key is what the log takes for one: the primary key, or the first unique index without NULLs.

    Raises:
        RetryableError: The connection broke.
    """
    schema, name = table.schema, table.name
    columns = tuple(_column(row) for row in rows(connection, _COLUMNS, schema, name))
    hidden = table.versioned and not any(column.name == _PERIOD[1] for column in columns)
    if not columns or tuple(column.name for column in columns) == SEQUENCE:
        return None
    marked = {column.name for column in columns if column.key}
    if hidden:
        columns += tuple(_moment(each, key=bool(marked) and each == _PERIOD[1]) for each in _PERIOD)
    for index, key in _indexes(connection, schema, name):
        if marked and {column.name for column in key} == marked:
            if hidden:
                key += (KeyColumn(_PERIOD[1], descending=False),)
            return Described(schema, name, columns, key, index)
    return Described(schema, name, columns, (), "")


def check_rights(connection: Connection, patterns: Sequence[TablePattern]) -> None:
    """Check that an account may read what the patterns name.

    A server does not tell of tables that an account may not see. It denies to read one that is not
    there as well, if the account could not read it: that is what it is asked for.

    Raises:
        ConfigError: `mysql.select_right`: names every pattern.
        RetryableError: The connection broke.
    """
    stand_in = f"waxtap_{secrets.token_hex(4)}"
    closed = [pattern for pattern in patterns if _is_denied(connection, *pattern.example(stand_in))]
    if not closed:
        return
    ((account,),) = rows(connection, "SELECT CURRENT_USER()")
    user, _, host = str(account).rpartition("@")
    grants = "; ".join(
        f"GRANT SELECT ON {pattern.granted} TO '{user}'@'{host}'" for pattern in closed
    )
    names = ", ".join(pattern.text for pattern in closed)
    raise ConfigError(
        "mysql.select_right",
        f"the account {account} may not read all that a snapshot reads: {names}",
        where="snapshot",
        cure=f"{grants}; or name in `tables` no more than it may read; or set `snapshot: never`",
    )


def _column(row: tuple[object, ...]) -> CatalogColumn:
    name, data_type, column_type, *numbers, charset, key = row
    octets, precision, scale, fraction = (int(cast("int", number)) for number in numbers)
    return CatalogColumn(
        str(name),
        str(data_type).lower(),
        str(column_type),
        octets,
        precision,
        scale,
        fraction,
        str(charset),
        bool(key),
    )


def _moment(name: str, *, key: bool) -> CatalogColumn:
    return CatalogColumn(name, "timestamp", "timestamp(6)", 0, 0, 0, 6, "", key)


def _is_denied(connection: Connection, schema: str, name: str) -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute(" ".join(["SELECT * FROM", quoted(schema, name), "LIMIT 0"]))
    except pymysql.Error as error:
        return error_parts(error)[0] in _DENIED
    return False


def _indexes(
    connection: Connection, schema: str, name: str
) -> Iterator[tuple[str, tuple[KeyColumn, ...]]]:
    """The unique indexes, the primary key first."""
    found: dict[str, list[KeyColumn]] = {}
    for index, column, order in rows(connection, _INDEXES, schema, name):
        found.setdefault(str(index), []).append(KeyColumn(str(column), order == "D"))
    for index, key in found.items():
        yield index, tuple(key)
