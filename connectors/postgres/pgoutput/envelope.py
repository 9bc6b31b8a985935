"""The parts of Debezium's envelope that do not come from a row.

Format: Debezium documentation, "PostgreSQL connector", change event values. Everything is byte
text (see `json_text`).
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING

from connectors.json_text import byte_text, json_string, product_version

if TYPE_CHECKING:
    from connectors.postgres.pgoutput.messages import Message


class SourceBlock:
    """Renders the envelope's `source` for one table.

    Args:
        source: The source's name.
        database: The database's name.
        schema: The table's namespace; empty for logical messages.
        table: The table's name; empty for logical messages.
        snapshot: Whether the row comes from a snapshot: `false`, or `first`, `true`, `last`.
    """

    def __init__(
        self, source: str, database: str, schema: str, table: str, snapshot: str = "false"
    ) -> None:
        self._head = (
            f',"source":{{"version":{json_string(product_version())},"connector":"postgresql",'
            f'"name":{json_string(source)},"ts_ms":'
        )
        self._middle = (
            f',"snapshot":"{snapshot}","db":{json_string(database)},"schema":{json_string(schema)},'
            f'"table":{json_string(table)},"txId":'
        )

    def middle(self, committed_ms: int, xid: int | None) -> str:
        """What stands between `after` and the change's LSN.

        Args:
            committed_ms: The transaction's commit time, Unix time in milliseconds.
            xid: The transaction's id; None outside one.
        """
        txid = "null" if xid is None else xid
        return f'{self._head}{committed_ms}{self._middle}{txid},"lsn":'


def assemble_message(
    message: Message, middle: str, now_ms: int, transaction: tuple[int, int] | None
) -> bytes:
    """The envelope of a logical decoding message, as UTF-8.

    Args:
        message: What was emitted.
        middle: From a `SourceBlock` without a table.
        now_ms: When it was read, Unix time in milliseconds.
        transaction: Its transaction's id and its number in it; None outside one.
    """
    body = {
        "transactional": message.transactional,
        "prefix": message.prefix,
        "content": b64encode(message.content).decode(),
    }
    place = None
    if transaction is not None:
        place = {"id": str(transaction[0]), "total_order": transaction[1]}
    text = (
        f'{{"before":null,"after":null{middle}{message.lsn}}},"op":"m","ts_ms":{now_ms},'
        f'"transaction":{_json(place)},"message":{_json(body)}}}'
    )
    return text.encode("latin-1")


def _json(value: object) -> str:
    return byte_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
