"""MySQL's binary JSON to JSON text, free of I/O.

Format: MySQL source, sql-common/json_binary.h. A value is a type byte and its bytes; objects and
arrays hold a table of offsets, counted from their own beginning, in a small (16-bit) or large
(32-bit) form. The text has no blanks, is byte text, and keeps the server's order of keys.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from json.encoder import encode_basestring

from connectors.mysql.binlog.decimals import unpack_decimal
from connectors.mysql.binlog.tablemap import (
    DATE,
    DATETIME,
    NEWDECIMAL,
    TIME,
    TIMESTAMP,
)

SMALL_OBJECT, LARGE_OBJECT, SMALL_ARRAY, LARGE_ARRAY = 0, 1, 2, 3
LITERAL, INT16, UINT16, _INT32, _UINT32 = 4, 5, 6, 7, 8
_INT64, _UINT64, DOUBLE, STRING, _OPAQUE = 9, 10, 11, 12, 15
LITERALS = ("null", "true", "false")
_INLINE_SMALL = frozenset({LITERAL, INT16, UINT16})
_INLINE_LARGE = _INLINE_SMALL | {_INT32, _UINT32}
_I16 = struct.Struct("<h").unpack_from
_U16 = struct.Struct("<H").unpack_from
_I32 = struct.Struct("<i").unpack_from
_U32 = struct.Struct("<I").unpack_from
_NUMBERS = {
    INT16: _I16,
    UINT16: _U16,
    _INT32: _I32,
    _UINT32: _U32,
    _INT64: struct.Struct("<q").unpack_from,
    _UINT64: struct.Struct("<Q").unpack_from,
}
_DOUBLE = struct.Struct("<d").unpack_from
# Doubles from here on are written with an exponent.
_LARGE = 1e15
# More than the server allows (100).
DEEPEST = 200


def json_text(data: bytes) -> str:
    """The document as JSON, in byte text; no bytes at all are the JSON null.

    Raises:
        ValueError, IndexError, struct.error: The bytes are no document.
    """
    return value_text(data, data[0], 1, 0) if data else "null"


def value_text(data: bytes, kind: int, at: int, depth: int) -> str:
    """A value that does not lie in the table of its container, in byte text.

    Args:
        data: The document.
        kind: The value's type.
        at: Where it begins.
        depth: In how many containers it lies.

    Raises:
        ValueError, IndexError, struct.error: As `json_text`.
    """
    if kind == STRING:
        size = data[at]
        if size < 0x80:
            start = at + 1
        else:
            size, start = _length(data, at)
        return encode_basestring(str(data[start : start + size], "latin-1"))
    if kind <= LARGE_ARRAY:
        if depth > DEEPEST:
            raise ValueError("a document that is too deep")
        return _container(data, kind, at, depth + 1)
    if kind == LITERAL:
        return LITERALS[data[at]]
    if kind == DOUBLE:
        return double_text(_DOUBLE(data, at)[0])
    number = _NUMBERS.get(kind)
    if number is not None:
        return repr(number(data, at)[0])
    if kind == _OPAQUE:
        size, start = _length(data, at + 1)
        return _opaque(data[at], data[start : start + size])
    raise ValueError(f"a JSON value of type {kind}")


def double_text(number: float) -> str:
    """A double as the server prints it in JSON: the shortest that reads back exactly.

    MySQL source, strings/dtoa.cc (`my_gcvt`), where the exponent is left out more often than in
    Python: a SELECT shows the server's text, which the log's is to be equal to.
    """
    text = repr(number)
    if "e" not in text and -_LARGE < number < _LARGE:
        return text
    sign = "-" if text[0] == "-" else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(exponent or 0)
    digits = digits.rstrip("0")
    if -15 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    behind = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{behind}e{point - 1}"


def _container(data: bytes, kind: int, at: int, depth: int) -> str:
    """An object or an array; small values lie in its table itself."""
    large = kind & 1
    number, width, inline = (_U32, 4, _INLINE_LARGE) if large else (_U16, 2, _INLINE_SMALL)
    count = number(data, at)[0]
    key = at + 2 * width
    entry = key + count * (width + 2) if kind <= LARGE_OBJECT else key
    parts = []
    for _ in range(count):
        kind_ = data[entry]
        if kind_ in inline:
            text = (
                LITERALS[data[entry + 1]]
                if kind_ == LITERAL
                else repr(_NUMBERS[kind_](data, entry + 1)[0])
            )
        else:
            text = value_text(data, kind_, at + number(data, entry + 1)[0], depth)
        entry += 1 + width
        if kind <= LARGE_OBJECT:
            start = at + number(data, key)[0]
            name = data[start : start + _U16(data, key + width)[0]]
            parts.append(f"{encode_basestring(str(name, 'latin-1'))}:{text}")
            key += width + 2
        else:
            parts.append(text)
    inside = ",".join(parts)
    return f"{{{inside}}}" if kind <= LARGE_OBJECT else f"[{inside}]"


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A length of 7 bits a byte, the lowest first, and where it ends."""
    size = shift = 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size, at
        shift += 7


def _opaque(kind: int, data: bytes) -> str:
    """A value of an SQL type, the way the server prints it in JSON."""
    if kind == NEWDECIMAL:
        return unpack_decimal(data[2:], data[0], data[1])
    if kind in (DATE, DATETIME, TIMESTAMP, TIME):
        return f'"{_packed_time(int.from_bytes(data, "little", signed=True), kind)}"'
    return f'"base64:type{kind}:{b64encode(data).decode()}"'


def _packed_time(packed: int, kind: int) -> str:
    """MySQL source, mysys/my_time.cc: `TIME_from_longlong_datetime_packed` and its kin."""
    sign = "-" if packed < 0 else ""
    whole, micros = divmod(abs(packed), 1 << 24)
    clock = f"{whole >> 12 & 0x3FF if kind == TIME else whole >> 12 & 0x1F:02d}"
    clock += f":{whole >> 6 & 0x3F:02d}:{whole & 0x3F:02d}.{micros:06d}"
    if kind == TIME:
        return sign + clock
    days = whole >> 17
    year, month = divmod(days >> 5, 13)
    date = f"{year:04d}-{month:02d}-{days & 0x1F:02d}"
    return date if kind == DATE else f"{date} {clock}"
