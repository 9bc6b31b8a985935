"""Rows events to changes: the hottest loop of this source."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from connectors.contracts.changes import CHUNK_BYTES, CHUNK_CHANGES, Change
from connectors.mysql.binlog.events import malformed
from connectors.mysql.binlog.position import LARGEST_TRANSACTION
from connectors.mysql.binlog.refusals import transaction_too_large
from connectors.mysql.binlog.rows import OPS, parse_head
from connectors.row_image import tail

if TYPE_CHECKING:
    from connectors.mysql.binlog.chunks import ChunkBuffer
    from connectors.mysql.binlog.tables import KnownTable
    from connectors.mysql.binlog.transaction import Transaction


def add_rows(
    buffer: ChunkBuffer,
    transaction: Transaction,
    known: KnownTable,
    event: bytes,
    end: int,
    *,
    offset: int,
    now_ms: int,
) -> None:
    """Decode the rows of an event into the open transaction of a buffer.

    Args:
        buffer: Takes the changes.
        transaction: The open one; counts them.
        known: The table of the rows.
        event: The event.
        end: Where it ends, without its checksum.
        offset: Where it lies in its file.
        now_ms: Unix time in milliseconds.

    Raises:
        FatalError: `mysql.malformed_event`, `mysql.key_unavailable`, `mysql.undecodable_text` or
            `mysql.transaction_too_large`.
    """
    op = OPS[event[4]]
    head = parse_head(event, end, event[4])
    gtid, table = transaction.stamp.gtid, known.table
    middle = known.block.middle(transaction.stamp, offset)
    behind = tail(op, now_ms, gtid)
    schema, prefix, floor = table.schema, transaction.prefix, transaction.floor
    order, row = transaction.order, 0
    changes, size = buffer.open, buffer.open_bytes
    append, new = changes.append, tuple.__new__
    everything = (1 << len(table.types)) - 1
    compiled = known.compiled
    images = None
    if compiled is None or (head.columns, head.before, head.after) != (
        len(table.types),
        everything,
        everything,
    ):
        images = known.exact.read(event, end, op, head)
    else:
        plain, keyed, text = compiled.plain, compiled.keyed, str(event, "latin-1")
        nulls = (head.columns + 7) // 8
    at = head.start
    try:
        while True:
            unavailable: tuple[str, ...] = ()
            before = after = "null"
            if images is not None:
                image = next(images, None)
                if image is None:
                    break
                before, after, key, unavailable, json_nulls = image
            elif at >= end:
                break
            elif op == "c":
                start = at + nulls
                after, key, json_nulls, at = keyed[event[at:start]](event, text, start)
            elif op == "u":
                start = at + nulls
                before, at = plain[event[at:start]](event, text, start)
                start = at + nulls
                after, key, json_nulls, at = keyed[event[at:start]](event, text, start)
            else:
                start = at + nulls
                before, key, _, at = keyed[event[at:start]](event, text, start)
                json_nulls = ()
            order += 1
            row += 1
            if order <= floor:
                continue
            # `row_image.assemble`, without the call
            envelope = (
                f'{{"before":{before},"after":{after}{middle}{row - 1}{behind}{order}}}}}'
            ).encode("latin-1")
            position = f"{prefix}{order - 1:08X}"
            # Not `Change(...)`, whose own `__new__` is a Python function.
            told = (op, schema, position, key, gtid, False, envelope, unavailable, json_nulls, "")
            append(new(Change, told))
            size += len(envelope)
            if size > CHUNK_BYTES or len(changes) > CHUNK_CHANGES:
                buffer.open_bytes = size
                buffer.cut()
                size = buffer.open_bytes
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise malformed(event, f"a row of {table.label}: {error}") from None
    if images is None and at != end:
        raise malformed(event, f"the rows of {table.label} do not end where it does")
    buffer.open_bytes = size
    if order > LARGEST_TRANSACTION:
        raise transaction_too_large(gtid, LARGEST_TRANSACTION)
    transaction.order = order
