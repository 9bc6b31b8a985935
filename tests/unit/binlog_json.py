"""Writes MySQL's binary JSON by the letter of its source, sql-common/json_binary.h."""

from __future__ import annotations

import struct
from typing import TypeAlias

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"

_INLINE = {False: (4, 5, 6), True: (4, 5, 6, 7, 8)}


def document(value: Value, *, large: bool = False) -> bytes:
    """A document; `large`: its containers are of the 32-bit form."""
    kind, data = _written(value, large=large)
    return bytes([kind]) + data


def _written(value: Value, *, large: bool) -> tuple[int, bytes]:
    """Type and bytes."""
    if value is None or isinstance(value, bool):
        return 4, bytes([0 if value is None else 1 if value else 2])
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return 11, struct.pack("<d", value)
    if isinstance(value, str):
        return 12, _counted(value.encode())
    if isinstance(value, list):
        return 3 if large else 2, _container([], value, large=large)
    # The server sorts keys by length, then by bytes.
    keys = sorted((key.encode() for key in value), key=lambda key: (len(key), key))
    values = [value[key.decode()] for key in keys]
    return 1 if large else 0, _container(keys, values, large=large)


def _integer(value: int) -> tuple[int, bytes]:
    forms = ((5, "<h"), (6, "<H"), (7, "<i"), (8, "<I"), (9, "<q"), (10, "<Q"))
    for kind, form in forms:
        try:
            return kind, struct.pack(form, value)
        except struct.error:
            continue
    raise ValueError(value)


def _counted(data: bytes) -> bytes:
    size, length = len(data), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return length + bytes([size]) + data


def _container(keys: list[bytes], values: list[Value], *, large: bool) -> bytes:
    number, width = ("<I", 4) if large else ("<H", 2)
    place = 2 * width + len(keys) * (width + 2) + len(values) * (1 + width)
    key_table = value_table = held = b""
    for key in keys:
        key_table += struct.pack(number, place + len(held)) + struct.pack("<H", len(key))
        held += key
    for value in values:
        kind, data = _written(value, large=large)
        if kind in _INLINE[large]:
            value_table += bytes([kind]) + data.ljust(width, b"\0")
        else:
            value_table += bytes([kind]) + struct.pack(number, place + len(held))
            held += data
    head = struct.pack(number, len(values)) + struct.pack(number, place + len(held))
    return head + key_table + value_table + held
