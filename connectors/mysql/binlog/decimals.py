"""MySQL's packed decimals.

Format: MySQL source, strings/decimal.cc (`decimal2bin`): groups of nine digits in four bytes,
big-endian, counted from the point to both sides; the outermost groups take as few bytes as they
need. The first bit is inverted, and all bits of a negative number are.
"""

from __future__ import annotations

from connectors.mysql.binlog.types import DIGIT_BYTES


def unpack_decimal(data: bytes, precision: int, scale: int) -> str:
    """The number with all its digits behind the point.

    Raises:
        ValueError: The bytes are no such number.
    """
    negative = not data[0] & 0x80
    plain = bytes([data[0] ^ 0x80]) + data[1:]
    if negative:
        plain = bytes(byte ^ 0xFF for byte in plain)
    whole = _groups(precision - scale, leading=True)
    behind = _groups(scale, leading=False)
    at = 0
    digits = []
    for count in whole + behind:
        size = DIGIT_BYTES[count]
        group = f"{int.from_bytes(plain[at : at + size], 'big'):0{count}d}"
        if len(group) != count:
            raise ValueError("a decimal with too many digits in a group")
        digits.append(group)
        at += size
    if at != len(plain):
        raise ValueError(f"a decimal of {len(plain)} bytes instead of {at}")
    before = "".join(digits[: len(whole)]).lstrip("0") or "0"
    fraction = "".join(digits[len(whole) :])
    return ("-" if negative else "") + before + (f".{fraction}" if fraction else "")


def _groups(digits: int, *, leading: bool) -> list[int]:
    full, rest = divmod(digits, 9)
    some = [rest] if rest else []
    return some + [9] * full if leading else [9] * full + some
