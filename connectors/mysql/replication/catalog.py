"""What the decoder asks a server for, over an ordinary connection."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, cast

from connectors.errors import FatalError
from connectors.mysql.binlog.charsets import Charset, needs_table
from connectors.mysql.binlog.declared import DeclaredColumn
from connectors.mysql.server import Connection, connect, rows

if TYPE_CHECKING:
    from connectors.mysql.setup.preflight import Server
    from connectors.mysql.setup.settings import Settings

# Newer MariaDB names collations apart from the character sets that they are for.
_APPLICABLE = (
    "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"
    " WHERE ID IS NOT NULL"
)
_COLLATIONS = (
    "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS WHERE ID IS NOT NULL"
)
_LENGTHS = "SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS"
_TYPES = (
    "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS"
    " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
)
_DECLARED = (
    "SELECT COLUMN_NAME, COLUMN_TYPE, COLUMN_KEY = 'PRI' FROM information_schema.COLUMNS"
    " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION"
)
_EVERY_BYTE = bytes(range(256)).hex()


class ServerCatalog:
    """Implements `types.Catalog`: character sets are read at once, the rest when it is needed.

    Args:
        settings: The source's.
        connection: To read from at first; it is not kept.
        server: What it is connected to.

    Raises:
        RetryableError: The connection broke.
    """

    def __init__(self, settings: Settings, connection: Connection, server: Server) -> None:
        self._settings = settings
        newer = server.mariadb and server.version >= (10, 10)
        found = rows(connection, _APPLICABLE if newer else _COLLATIONS)
        self._collations = {cast("int", number): str(name) for number, name in found}
        lengths = rows(connection, _LENGTHS)
        self._lengths = {str(name): cast("int", longest) for name, longest in lengths}
        self._charsets: dict[str, Charset] = {}

    def charset(self, collation: int) -> Charset:
        """As `types.Catalog.charset`. Raises RetryableError as well: the server is away."""
        name = self._collations.get(collation)
        if name is None:
            raise FatalError(
                "mysql.unknown_collation",
                f"the server does not know the collation {collation} of its own log",
                cure="use a server that knows it",
            )
        if name not in self._charsets:
            longest = self._lengths.get(name, 1)
            table = self._table(name) if needs_table(name, longest) else ""
            self._charsets[name] = Charset(name, longest, table)
        return self._charsets[name]

    def collation(self, charset: str) -> int:
        """The number of a collation of a character set.

        Raises:
            FatalError: `mysql.unknown_collation`.
        """
        for number, name in self._collations.items():
            if name == charset:
                return number
        raise FatalError(
            "mysql.unknown_collation",
            f"the server does not know the character set {charset} of its own columns",
            cure="use a server that knows it",
        )

    def column_types(self, schema: str, table: str) -> dict[str, str]:
        """As `types.Catalog.column_types`. Raises RetryableError as well: the server is away."""
        with closing(connect(self._settings.dsn, self._settings.source)) as connection:
            return {
                str(name): str(type_) for name, type_ in rows(connection, _TYPES, schema, table)
            }

    def declared(self, schema: str, table: str) -> list[DeclaredColumn]:
        """As `types.Catalog.declared`. Raises RetryableError as well: the server is away."""
        with closing(connect(self._settings.dsn, self._settings.source)) as connection:
            found = rows(connection, _DECLARED, schema, table)
        return [DeclaredColumn(str(name), str(type_), bool(key)) for name, type_, key in found]

    def _table(self, name: str) -> str:
        """The characters of all bytes of a character set, as the server converts them."""
        with closing(connect(self._settings.dsn, self._settings.source)) as connection:
            query = f"SELECT HEX(CONVERT(_{name} X'{_EVERY_BYTE}' USING utf32))"
            ((text,),) = rows(connection, query)
        return bytes.fromhex(str(text)).decode("utf-32-be")
