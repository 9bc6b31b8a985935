"""The obviously right decoder of values: the bytes of a row, to JSON.

The mapping is the table of docs/mysql-types.md. Formats: MySQL source,
libs/mysql/binlog/event/rows_event.h and mysys/my_time.cc.
"""

from __future__ import annotations

import calendar
import json
import struct
import zlib
from base64 import b64encode
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

from connectors.mysql.binlog.decimals import unpack_decimal
from connectors.mysql.binlog.jsonb import json_text
from connectors.mysql.binlog.types import Kind, ValueType

_SRID_FLAG = 0x20000000


def take(data: bytes, at: int, type_: ValueType) -> tuple[bytes, int]:
    """The bytes of the value that begins at `at`, and where it ends.

    Raises:
        ValueError: There are too few bytes.
    """
    start, size = at + type_.prefix, type_.size
    if type_.prefix:
        size = int.from_bytes(data[at:start], "little")
    if start + size > len(data):
        raise ValueError("a value is too long for its event")
    return data[start : start + size], start + size


def render(value: bytes, type_: ValueType, *, zero_dates: bool) -> str:
    """The JSON text of one value that is not NULL.

    Args:
        value: As `take` returned it.
        type_: Of its column.
        zero_dates: Whether dates that no calendar has are written as they are, or as null.

    Raises:
        ValueError, IndexError, struct.error: The bytes are no value of this type.
        FatalError: `mysql.undecodable_text`.
    """
    if type_.compressed:
        value = uncompress(value)
    number = int.from_bytes(value, "little")
    match type_.kind:
        case Kind.INTEGER:
            return str(int.from_bytes(value, "little", signed=type_.signed))
        case Kind.FLOAT:
            return float_text(value)
        case Kind.DOUBLE:
            return repr(struct.unpack("<d", value)[0])
        case Kind.DECIMAL:
            return json.dumps(unpack_decimal(value, type_.digits, type_.scale))
        case Kind.YEAR:
            return str(1900 + number if number else 0)
        case Kind.BIT:
            return json.dumps(f"{int.from_bytes(value, 'big'):0{type_.digits}b}")
        case Kind.ENUM:
            # 0 is the empty string that stands for what the column does not allow
            return _string(type_.values[number - 1] if number else "")
        case Kind.SET:
            return _string(_members(number, type_.values))
        case Kind.TEXT if type_.charset is not None:
            return _string(type_.charset.decode(value))
        case Kind.BINARY:
            return json.dumps(b64encode(value.ljust(type_.pad, b"\0")).decode())
        case Kind.JSON:
            return json_text(value).encode("latin-1").decode()
        case Kind.GEOMETRY:
            return json.dumps(b64encode(ewkb(value)).decode())
        case Kind.VECTOR:
            numbers = [float_text(value[at : at + 4]) for at in range(0, len(value), 4)]
            return f"[{','.join(numbers)}]"
        case Kind.UUID:
            return json.dumps(uuid_text(value))
        case Kind.INET4:
            return json.dumps(str(IPv4Address(value.ljust(4, b"\0"))))
        case Kind.INET6:
            return json.dumps(inet6_text(value))
        case Kind.TIME | Kind.OLD_TIME:
            return json.dumps(_time(value, type_))
    return _date_and_time(value, type_, zero_dates=zero_dates)


def float_text(value: bytes) -> str:
    """The shortest number that reads back as this single-precision float."""
    (number,) = struct.unpack("<f", value)
    for digits in range(6, 10):
        text = f"{number:.{digits}g}"
        if struct.pack("<f", float(text)) == value:
            return repr(float(text))
    raise ValueError("a float that is no number")


def ewkb(value: bytes) -> bytes:
    """WKB from MySQL's form, which is an SRID (4 bytes) before it.

    An SRID other than 0 goes into the WKB the way PostGIS has it (EWKB).
    """
    srid, wkb = value[:4], value[4:]
    if srid == b"\0\0\0\0":
        return wkb
    order = "<" if wkb[0] == 1 else ">"
    kind, number = struct.unpack(f"{order}I", wkb[1:5])[0], int.from_bytes(srid, "little")
    return wkb[:1] + struct.pack(f"{order}II", kind | _SRID_FLAG, number) + wkb[5:]


def uuid_text(value: bytes) -> str:
    """MariaDB keeps most UUIDs with their parts in reverse order (its source, sql_type_uuid.h)."""
    value = value.ljust(16, b"\0")
    # as the server tells them apart: in the other order, the variant's bit stands in byte 6
    if value[6] & 0x80 and 0 < value[8] <= 0x80:
        value = value[12:16] + value[10:12] + value[8:10] + value[6:8] + value[0:6]
    return str(UUID(bytes=value))


def inet6_text(value: bytes) -> str:
    """As MariaDB prints it: an IPv4 address inside, mapped or compatible, is written as one."""
    value = value.ljust(16, b"\0")
    if value[:10] == bytes(10) and (
        value[10:12] == b"\xff\xff" or (value[10:12] == b"\0\0" and value[12:14] != b"\0\0")
    ):
        return f"{'::ffff:' if value[10] else '::'}{IPv4Address(value[12:])}"
    return str(IPv6Address(value))


def uncompress(value: bytes) -> bytes:
    """A value of a compressed column (MariaDB source, sql/field_comp.cc)."""
    if not value:
        return value
    head = value[0]
    if head >> 4 == 0:
        return value[1:]
    if head >> 4 != 8:
        raise ValueError(f"a column compressed by method {head >> 4}")
    size = head & 7
    return zlib.decompress(value[1 + size :], -zlib.MAX_WBITS if head & 8 else zlib.MAX_WBITS)


def is_date(year: int, month: int, day: int) -> bool:
    """Whether the calendar has this day; MySQL can store others, such as 0000-00-00."""
    return year > 0 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _members(bits: int, values: tuple[str, ...]) -> str:
    if bits >> len(values):
        raise ValueError("a set with unknown members")
    return ",".join(value for index, value in enumerate(values) if bits >> index & 1)


def _fraction(micros_or_less: int, type_: ValueType) -> str:
    """The digits of a second; an odd number of them is stored with one more."""
    scale = type_.scale
    return f".{micros_or_less // 10 ** (scale & 1):0{scale}d}" if scale else ""


def _time(value: bytes, type_: ValueType) -> str:
    if type_.kind is Kind.OLD_TIME:
        number = int.from_bytes(value, "little", signed=True)
        sign, number = ("-", -number) if number < 0 else ("", number)
        return f"{sign}{number // 10000:02d}:{number // 100 % 100:02d}:{number % 100:02d}"
    behind = 8 * (len(value) - 3)
    packed = int.from_bytes(value, "big") - (0x800000 << behind)
    sign, packed = ("-", -packed) if packed < 0 else ("", packed)
    whole, fraction = packed >> behind, packed & (1 << behind) - 1
    clock = f"{whole >> 12 & 0x3FF:02d}:{whole >> 6 & 0x3F:02d}:{whole & 0x3F:02d}"
    return sign + clock + _fraction(fraction, type_)


def _date_and_time(value: bytes, type_: ValueType, *, zero_dates: bool) -> str:
    """A date, a datetime or a timestamp."""
    number = int.from_bytes(value, "little")
    clock = suffix = ""
    if type_.kind is Kind.DATE:
        year, month, day = number >> 9, number >> 5 & 15, number & 31
    elif type_.kind in (Kind.TIMESTAMP, Kind.OLD_TIMESTAMP):
        seconds = int.from_bytes(value[:4], "big" if type_.kind is Kind.TIMESTAMP else "little")
        fraction = _fraction(int.from_bytes(value[4:], "big"), type_)
        if seconds == 0:
            year = month = day = 0
            clock = "T00:00:00" + fraction
        else:
            moment = datetime.fromtimestamp(seconds, UTC)
            year, month, day = moment.year, moment.month, moment.day
            clock, suffix = f"T{moment:%H:%M:%S}{fraction}", "Z"
    elif type_.kind is Kind.OLD_DATETIME:
        days, seconds = divmod(number, 1_000_000)
        year, month, day = days // 10000, days // 100 % 100, days % 100
        clock = f"T{seconds // 10000:02d}:{seconds // 100 % 100:02d}:{seconds % 100:02d}"
    elif type_.kind is Kind.DATETIME:
        packed = int.from_bytes(value[:5], "big") - 0x8000000000
        days = packed >> 17
        year, month, day = days // 32 // 13, days // 32 % 13, days & 31
        clock = f"T{packed >> 12 & 31:02d}:{packed >> 6 & 63:02d}:{packed & 63:02d}"
        clock += _fraction(int.from_bytes(value[5:], "big"), type_)
    else:
        raise ValueError(f"no decoder for {type_.name}")
    if not zero_dates and not is_date(year, month, day):
        return "null"
    return json.dumps(f"{year:04d}-{month:02d}-{day:02d}{clock}{suffix}")
