"""A catalog that knows the few collations that the unit tests use."""

from __future__ import annotations

from connectors.mysql.binlog.charsets import Charset
from connectors.mysql.binlog.declared import DeclaredColumn

_LATIN1 = bytes(range(256)).decode("latin-1")
CHARSETS = {
    45: Charset("utf8mb4", 4),
    8: Charset("latin1", 1, _LATIN1),
    63: Charset("binary", 1),
    54: Charset("utf16", 4),
}


class KnownCatalog:
    """Implements `types.Catalog`.

    Args:
        columns: The present types of every table's columns.
    """

    def __init__(self, columns: dict[str, str] | None = None) -> None:
        self._columns = columns or {}

    def charset(self, collation: int) -> Charset:
        return CHARSETS[collation]

    def column_types(self, schema: str, table: str) -> dict[str, str]:
        return self._columns

    def declared(self, schema: str, table: str) -> list[DeclaredColumn]:
        return [DeclaredColumn("id", "int(10) unsigned", True)]
