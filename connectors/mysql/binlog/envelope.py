"""The parts of Debezium's envelope that do not come from a row.

Format: Debezium documentation, "MySQL connector", change event values. Everything is byte text (see
`json_text`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from connectors.json_text import json_string, product_version

# A log stays in one file for long.
_file = lru_cache(maxsize=4)(json_string)


class Stamp(NamedTuple):
    """What the changes of a transaction share.

    Attributes:
        gtid: The transaction's id.
        committed_ms: When it was committed, Unix time in milliseconds.
        server: The id of the server on which it was.
        file: The log file.
    """

    gtid: str
    committed_ms: int
    server: int
    file: str


class SourceBlock:
    """Renders the envelope's `source` for one table.

    Args:
        connector: `mysql` or `mariadb`.
        source: The source's name.
        schema: The table's database.
        table: The table's name.
        snapshot: Whether the row comes from a snapshot: `false`, or `first`, `true`, `last`.
    """

    def __init__(
        self, connector: str, source: str, schema: str, table: str, snapshot: str = "false"
    ) -> None:
        self._head = (
            f',"source":{{"version":{json_string(product_version())},"connector":"{connector}",'
            f'"name":{json_string(source)},"ts_ms":'
        )
        self._middle = (
            f',"snapshot":"{snapshot}","db":{json_string(schema)},"table":{json_string(table)},'
            f'"server_id":'
        )

    def middle(self, stamp: Stamp, offset: int) -> str:
        """What stands between `after` and the row's number in its event.

        Args:
            stamp: Of the transaction.
            offset: Of the event in the file.
        """
        return (
            f"{self._head}{stamp.committed_ms}{self._middle}{stamp.server},"
            f'"gtid":"{stamp.gtid}","file":{_file(stamp.file)},"pos":{offset},"row":'
        )

    def read(self, read_ms: int, file: str, offset: int) -> str:
        """What stands between `after` and the end of the block, for a row of a snapshot.

        Args:
            read_ms: When the row was read, Unix time in milliseconds.
            file: The log file behind a place of which it stands.
            offset: That place.
        """
        return (
            f'{self._head}{read_ms}{self._middle}0,"gtid":null,"file":{_file(file)},"pos":{offset},'
            '"row":0'
        )
