"""From where on incremental mode asks, as the API wants to read it. Free of I/O.

What is written may be coarser than the records are: what is known of them must reach back to what
is really asked for, or they would be told again with every poll.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from connectors.rest.records import EARLIEST, LATEST, microseconds, order_of

if TYPE_CHECKING:
    from connectors.rest.records import Order
    from connectors.rest.spec import ChangedSinceSpec

_SECOND = 1_000_000
_MILLISECOND = 1_000
_FRACTION = re.compile(r"[.,](\d+)")


class Boundary(NamedTuple):
    """What a poll asks for.

    Attributes:
        text: The parameter's value.
        order: What the earliest of the records sorts by that are asked for; None: it is not known.
    """

    text: str
    order: Order | None


def boundary(spec: ChangedSinceSpec, cursor: str, order: Order) -> Boundary:
    """Where to ask from, behind records up to a cursor.

    Args:
        spec: How to ask.
        cursor: The greatest so far, as the API wrote it.
        order: What it sorts by.
    """
    if not isinstance(order, int) or not (spec.overlap or spec.format):
        return Boundary(cursor, order)
    back = order - round(spec.overlap.total_seconds() * _SECOND)
    back = min(max(back, EARLIEST), LATEST)
    moment = datetime.fromtimestamp(back // _SECOND, UTC).replace(microsecond=back % _SECOND)
    if spec.format in {"unix", "unix_ms"}:
        return _counted(back, _SECOND if spec.format == "unix" else _MILLISECOND)
    if spec.format:
        text = moment.strftime(spec.format)
        try:
            return Boundary(text, min(back, microseconds(datetime.strptime(text, spec.format))))
        except ValueError:
            # Years before 1000 cannot be read back: nothing is forgotten then.
            return Boundary(text, None)
    return _alike(spec, cursor, order, moment)


def _alike(spec: ChangedSinceSpec, cursor: str, order: int, moment: datetime) -> Boundary:
    """A moment in the form that a record's cursor has."""
    back = microseconds(moment)
    try:
        # Eight digits may be a date, or a number.
        as_text = order_of(spec, cursor) == order
    except ValueError:
        as_text = False
    if not as_text:
        if _FRACTION.search(cursor) or not cursor.lstrip("-").isdigit():
            return Boundary(f"{back // _SECOND}.{back % _SECOND:06d}", back)
        return _counted(back, _SECOND if int(cursor) * _SECOND == order else _MILLISECOND)
    like = datetime.fromisoformat(cursor)
    local = moment.astimezone(like.tzinfo or UTC).replace(tzinfo=like.tzinfo)
    if ":" not in cursor and len(cursor) <= len("2026-01-01"):
        text = local.strftime("%Y-%m-%d" if "-" in cursor else "%Y%m%d")
    else:
        digits = _FRACTION.search(cursor)
        kind = "seconds"
        if digits:
            kind = "milliseconds" if len(digits[1]) <= 3 else "microseconds"
        text = local.isoformat(sep=" " if " " in cursor else "T", timespec=kind)
        if cursor[-1] in "Zz":
            text = text.replace("+00:00", "Z")
    return Boundary(text, min(back, microseconds(datetime.fromisoformat(text))))


def _counted(order: int, unit: int) -> Boundary:
    return Boundary(str(order // unit), order // unit * unit)
