"""Values that break careless encoders."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

TEXTS = (
    "plain",
    "",
    "null",
    "quote \" and ' and \\ back\\slash",
    "line\nfeed\r\n\ttab \x01\x1f control",
    "ünïcödé ☃ 𝄞 \u2028 \x7f",
    "{braces} %s %% </script>",
    "__debezium_unavailable",
)
_DOCUMENTS = (
    None,
    "null",
    '"null"',
    "{}",
    '[1,2.50,"\\u00fc",{"a":null}]',
    '{"n":1e400,"deep":{"x":[[]]}}',
)
_NUMBERS = ("0", "-0.0001", "12345678901234.5678", "NaN", "99999999999999.9999", None)
_FLOATS = ("NaN", "Infinity", "-Infinity", "-0", "1e-300", "0.1", "123456789.123456789")
_DATES = ("infinity", "-infinity", "4713-01-01 BC", "2024-02-29", "5874897-12-31", None)
_TIMES = ("infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "2024-06-30 23:59:59.999999+13")


def text(pick: random.Random, longest: int = 60) -> str | None:
    """NULL, something awkward, or random printable characters."""
    kind = pick.random()
    if kind < 0.1:
        return None
    if kind < 0.5:
        return pick.choice(TEXTS)
    return "".join(pick.choices(string.printable, k=pick.randint(0, longest)))


def bulk(pick: random.Random, size: int) -> str:
    """`size` characters that compress to half of it at best."""
    return pick.randbytes(size // 2).hex()


def customer(pick: random.Random, number: int) -> tuple[object, ...]:
    """A row of `customers`."""
    return (
        number,
        text(pick),
        pick.choice([None, [], ["a", None, 'q"uote', "c,omma", ""], ["{x}"] * 3]),
        pick.choice(_DOCUMENTS),
        pick.choice(_NUMBERS),
        pick.choice(_DATES),
        pick.choice(_TIMES),
        pick.choice([True, False, None]),
        pick.choice(_FLOATS),
        pick.choice([None, b"", pick.randbytes(pick.randint(1, 80))]),
        pick.choice([None, "sad", "it's ok", "happy"]),
    )
