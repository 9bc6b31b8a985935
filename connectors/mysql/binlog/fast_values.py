"""Values to JSON, the fast way: tables of what was seen before, and arithmetic on whole numbers.

Everything here returns byte text and equals what `values.render` makes of the same bytes.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import TYPE_CHECKING

from connectors.json_text import byte_text
from connectors.mysql.binlog.fast_json import json_text
from connectors.mysql.binlog.types import DIGIT_BYTES, Kind
from connectors.mysql.binlog.values import float_text, is_date, render, uncompress

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.mysql.binlog.types import ValueType

    Render = Callable[[bytes], str]

_SECONDS = [f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in range(86400)]
# Dates come in a few thousand forms; what is seen beyond that is forgotten from time to time.
_MOST_KEPT = 20_000
_MOST_MOMENTS = 4_000

from_bytes = int.from_bytes


class _Kept(dict[bytes, str]):
    """Remembers what a function made of bytes."""

    def __init__(self, make: Render) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, value: bytes) -> str:
        if len(self) >= _MOST_KEPT:
            self.clear()
        text = self[value] = self._make(value)
        return text


class _Days(dict[int, str]):
    """The dates of days since 1970."""

    def __missing__(self, day: int) -> str:
        text = self[day] = f"{datetime.fromtimestamp(day * 86400, UTC):%Y-%m-%d}"
        return text


class _Dates(dict[int, str]):
    """The dates of DATETIME's `(year * 13 + month) << 5 | day`; empty for those no calendar has.

    Args:
        zero_dates: Whether those are written as they are.
    """

    def __init__(self, *, zero_dates: bool) -> None:
        super().__init__()
        self._all = zero_dates

    def __missing__(self, packed: int) -> str:
        if len(self) >= _MOST_KEPT:
            self.clear()
        year, month, day = packed // 416, packed // 32 % 13, packed % 32
        known = self._all or is_date(year, month, day)
        text = self[packed] = f"{year:04d}-{month:02d}-{day:02d}" if known else ""
        return text


class _Clocks(dict[int, str]):
    """The times of `hour << 12 | minute << 6 | second`."""

    def __missing__(self, packed: int) -> str:
        text = f"{packed >> 12:02d}:{packed >> 6 & 63:02d}:{packed & 63:02d}"
        self[packed] = text
        return text


class _Moments(dict[int, str]):
    """Date and time of seconds since 1970. Most rows of a log were changed in the same seconds."""

    def __missing__(self, seconds: int) -> str:
        if len(self) >= _MOST_MOMENTS:
            self.clear()
        day, second = divmod(seconds, 86400)
        text = self[seconds] = f"{_DAYS[day]}T{_SECONDS[second]}"
        return text


_DAYS = _Days()
_MOMENTS = _Moments()
_CLOCKS = _Clocks()


def is_utf8(type_: ValueType) -> bool:
    """Whether a text's bytes are UTF-8, which byte text takes as they are."""
    return type_.kind is Kind.TEXT and type_.charset is not None and type_.charset.is_utf8


def renderer(type_: ValueType, *, zero_dates: bool) -> Render:
    """What makes the JSON of a value of this type."""
    if type_.compressed:
        inner = renderer_of_plain(type_, zero_dates=zero_dates)
        return lambda value: inner(uncompress(value))
    return renderer_of_plain(type_, zero_dates=zero_dates)


def renderer_of_plain(type_: ValueType, *, zero_dates: bool) -> Render:
    """As `renderer`, of a value that is not compressed."""
    kind = type_.kind
    if kind is Kind.DECIMAL:
        return decimal(type_.digits, type_.scale)
    if kind is Kind.DATETIME:
        return _datetime(type_.scale, zero_dates=zero_dates)
    if kind is Kind.TIMESTAMP:
        return _timestamp(type_.scale, zero_dates=zero_dates)
    if kind is Kind.TIME:
        return _time(type_.scale)
    if is_utf8(type_):
        return lambda value: encode_basestring(str(value, "latin-1"))
    if kind is Kind.TEXT and type_.charset is not None:
        decode = type_.charset.decode
        return lambda value: byte_text(encode_basestring(decode(value)))
    if kind is Kind.BINARY and type_.pad:
        pad = type_.pad
        return lambda value: _base64(value.ljust(pad, b"\0"))
    if kind is Kind.BINARY:
        return _base64
    if kind is Kind.JSON:
        return json_text
    if kind is Kind.VECTOR:
        floats = _Kept(float_text)
        return lambda value: (
            f"[{','.join([floats[value[at : at + 4]] for at in range(0, len(value), 4)])}]"
        )

    def exact(value: bytes) -> str:
        return byte_text(render(value, type_, zero_dates=zero_dates))

    if kind in (Kind.DATE, Kind.ENUM, Kind.SET, Kind.FLOAT, Kind.YEAR):
        return _Kept(exact).__getitem__
    return exact


def decimal(precision: int, scale: int) -> Render:
    """Unpacks decimals by shifting one large number."""
    whole, behind = precision - scale, scale
    head, tail = whole % 9, behind % 9
    counts = [head] * bool(head) + [9] * (whole // 9) + [9] * (behind // 9) + [tail] * bool(tail)
    sizes = [DIGIT_BYTES[count] for count in counts]
    bits = sum(sizes) * 8
    top, full = 1 << bits - 1, (1 << bits) - 1
    groups = []
    for count, size in zip(counts, sizes, strict=True):
        bits -= size * 8
        groups.append((bits, (1 << size * 8) - 1, 10**count))
    unit, width = 10**scale, scale

    def unpack(value: bytes) -> str:
        number = from_bytes(value, "big") ^ top
        sign = ""
        if number & top:
            number ^= full
            sign = "-"
        total = 0
        for shift, mask, power in groups:
            total = total * power + (number >> shift & mask)
        if width:
            return f'"{sign}{total // unit}.{total % unit:0{width}d}"'
        return f'"{sign}{total}"'

    return unpack


def _base64(value: bytes) -> str:
    return f'"{b2a_base64(value, newline=False).decode()}"'


def _datetime(scale: int, *, zero_dates: bool) -> Render:
    bits = (scale + 1) // 2 * 8
    mask, bias, cut = (1 << bits) - 1, 0x8000000000, 10 ** (scale & 1)
    dates = _Dates(zero_dates=zero_dates)

    def render_datetime(value: bytes) -> str:
        number = from_bytes(value, "big")
        packed = (number >> bits) - bias
        date = dates[packed >> 17]
        if not date:
            return "null"
        if bits:
            return f'"{date}T{_CLOCKS[packed & 0x1FFFF]}.{(number & mask) // cut:0{scale}d}"'
        return f'"{date}T{_CLOCKS[packed & 0x1FFFF]}"'

    return render_datetime


def _timestamp(scale: int, *, zero_dates: bool) -> Render:
    bits = (scale + 1) // 2 * 8
    mask, cut = (1 << bits) - 1, 10 ** (scale & 1)
    zero = "null"
    if zero_dates:
        zero = json.dumps("0000-00-00T00:00:00" + (f".{0:0{scale}d}" if scale else ""))

    def render_timestamp(value: bytes) -> str:
        number = from_bytes(value, "big")
        if bits:
            if not number >> bits:
                return zero
            return f'"{_MOMENTS[number >> bits]}.{(number & mask) // cut:0{scale}d}Z"'
        return f'"{_MOMENTS[number]}Z"' if number else zero

    return render_timestamp


def _time(scale: int) -> Render:
    bits = (scale + 1) // 2 * 8
    bias, mask, cut = 0x800000 << bits, (1 << bits) - 1, 10 ** (scale & 1)

    def render_time(value: bytes) -> str:
        packed = from_bytes(value, "big") - bias
        sign = ""
        if packed < 0:
            packed, sign = -packed, "-"
        if bits:
            return f'"{sign}{_CLOCKS[packed >> bits]}.{(packed & mask) // cut:0{scale}d}"'
        return f'"{sign}{_CLOCKS[packed]}"'

    return render_time
