"""What decoders of databases' logs make of a row change, and the envelope around it.

Everything is byte text (see `json_text`).
"""

from __future__ import annotations

from typing import NamedTuple


class Image(NamedTuple):
    """What a row change says.

    Attributes:
        before: A JSON object, or `null`.
        after: A JSON object, or `null`.
        key: As in `contracts.Change`.
        unavailable: As in `contracts.Change`.
        json_nulls: As in `contracts.Change`.
    """

    before: str
    after: str
    key: str | None
    unavailable: tuple[str, ...]
    json_nulls: tuple[str, ...]


def tail(op: str, now_ms: int, transaction: str | int) -> str:
    """What stands between the row's place in the log and its number in the transaction.

    Args:
        op: The kind of change.
        now_ms: When it was read, Unix time in milliseconds.
        transaction: Its id.
    """
    return f'}},"op":"{op}","ts_ms":{now_ms},"transaction":{{"id":"{transaction}","total_order":'


def snapshot_tail(now_ms: int, op: str = "r") -> str:
    """As `tail`, for what stands beside the log, mostly a row: no transaction, and no number.

    The brace that closes the transaction elsewhere is one too many behind it.
    """
    return f'}},"op":"{op}","ts_ms":{now_ms},"transaction":null'


def assemble(
    before: str, after: str, middle: str, place: int, tail: str, order: int | str
) -> bytes:
    """The envelope of a change inside a transaction, as UTF-8.

    Args:
        before: As in `Image`.
        after: As in `Image`.
        middle: From the connector's `SourceBlock`.
        place: What ends its block: the row's place in the log.
        tail: From `tail`.
        order: 1, 2, 3 … in the transaction.
    """
    return f'{{"before":{before},"after":{after}{middle}{place}{tail}{order}}}}}'.encode("latin-1")
