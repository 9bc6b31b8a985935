"""Records out of an answer: their keys, and a hash that tells whether they have changed.

The hash is BLAKE2b-128 of the record's JSON with sorted members: their order means nothing, while
every digit of a number does.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from connectors.errors import ConfigError
from connectors.json_rows import encode, key_text
from connectors.rest.expressions import Document, Expression, ExpressionError, decode, invalid

if TYPE_CHECKING:
    from connectors.rest.spec import ChangedSinceSpec, RestSourceSpec

HASH_SIZE = 16
# What a record's cursor sorts by: microseconds since 1970, a number or a text.
Order = int | str
# Of moments that a date can tell, in years 1 to 9999.
EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
_LEAST, _MOST = -(2**63), 2**63 - 1
# Of whole seconds: no date has more.
_DIGITS = 15

_encode_sorted = msgspec.json.Encoder(decimal_format="number", order="sorted").encode


class Item(NamedTuple):
    """A record.

    Attributes:
        key: The key's members as a JSON object in ASCII, in the order of the configuration.
        hash: Of the whole record.
        record: Its members, decoded.
        order: What its cursor sorts by; None in full mode.
        cursor: Its cursor as the API wrote it; empty in full mode.
    """

    key: str
    hash: bytes
    record: dict[str, object]
    order: Order | None
    cursor: str

    @property
    def text(self) -> bytes:
        """The record as JSON on one line, its members in the API's order."""
        return encode(self.record)


class BadRecordError(Exception):
    """A record that cannot be told from others; the message says why, without its values."""


class Records:
    """Finds the records of answers.

    Args:
        spec: Where they are, and what identifies them.
    """

    def __init__(self, spec: RestSourceSpec) -> None:
        self._path = Expression(spec.records)
        self._key = spec.key
        self._cursor = spec.cursor

    def of(self, document: Document) -> list[object] | list[msgspec.Raw]:
        """The records of an answer, to be taken apart by `item`.

        Raises:
            ConfigError: `rest.no_records`.
        """
        try:
            found = self._path.items(document)
        except ExpressionError as error:
            raise self._none(str(error)) from None
        if found is None:
            raise self._none("what it finds in the answer is no list")
        return found

    def item(self, given: object) -> Item:
        """Take one of them apart.

        Raises:
            BadRecordError: It has no key, or no cursor.
            RetryableError: `rest.invalid_json`.
        """
        record = decode(given)
        if not isinstance(record, dict):
            raise BadRecordError("it is no object")
        record = cast("dict[str, object]", record)
        names = {}
        for name in self._key:
            value = record.get(name)
            if value is None:
                raise BadRecordError(f"its key's member {name!r} is missing or null")
            if isinstance(value, dict | list):
                raise BadRecordError(f"its key's member {name!r} is no plain value")
            names[name] = value
        try:
            digest = blake2b(_encode_sorted(record), digest_size=HASH_SIZE).digest()
        except RecursionError as error:
            raise invalid(error) from None
        order, cursor = self._order(record) if self._cursor else (None, "")
        return Item(key_text(names), digest, record, order, cursor)

    def _order(self, record: dict[str, object]) -> tuple[Order, str]:
        spec = cast("ChangedSinceSpec", self._cursor)
        value = record.get(spec.field)
        if isinstance(value, str | int) and not isinstance(value, bool):
            try:
                return order_of(spec, value), str(value)
            except ValueError:
                pass
        if isinstance(value, Decimal) and spec.type == "timestamp" and value.adjusted() < _DIGITS:
            order = int(value * 1_000_000)
            if EARLIEST <= order <= LATEST:
                return order, str(value)
        raise BadRecordError(f"its cursor {spec.field!r} is no {spec.type}")

    @staticmethod
    def _none(why: str) -> ConfigError:
        return ConfigError(
            "rest.no_records",
            why,
            where="records",
            cure="correct the expression; an answer without a list is never taken for an empty one",
        )


def order_of(spec: ChangedSinceSpec, value: str | int) -> Order:
    """What a cursor's value sorts by.

    Raises:
        ValueError: It is not of its type, or out of range: whole numbers have 64 bits, and years
            four digits.
    """
    if spec.type == "string":
        return str(value)
    if spec.type == "integer":
        return _within(_LEAST, int(value), _MOST)
    if isinstance(value, int):
        # An API that counts milliseconds says so by its format; without one, by the size.
        milliseconds = spec.format == "unix_ms" or (not spec.format and value > 10**11)
        return _within(EARLIEST, value * (1_000 if milliseconds else 1_000_000), LATEST)
    return _within(EARLIEST, microseconds(datetime.fromisoformat(value)), LATEST)


def microseconds(moment: datetime) -> int:
    """Since 1970; in UTC, unless the moment says otherwise."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime.fromtimestamp(0, UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def later(one: Order, other: Order | None) -> bool:
    """Whether a cursor is behind another one; anything is behind one of another type."""
    if isinstance(one, int):
        return not isinstance(other, int) or one > other
    return not isinstance(other, str) or one > other


def _within(least: int, value: int, most: int) -> int:
    if not least <= value <= most:
        raise ValueError("out of range")
    return value
