"""Durations, sizes and shares as a configuration writes them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


def _duration(value: object) -> object:
    """Seconds as a number, or a number with a unit: `90s`, `36h`, `7d`."""
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds, or a text such as 7d")  # noqa: TRY004 - pydantic reports ValueError
    if isinstance(value, int | float):
        return timedelta(seconds=value)
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?", value.strip())
    if not found:
        raise ValueError("a duration is a number of seconds, or a text such as 90s, 36h or 7d")
    return timedelta(seconds=float(found[1]) * _SECONDS[found[2] or "s"])


def _size(value: object) -> object:
    """Bytes as a number, or a number with a unit: `512MiB`, `10GB`."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?i?B)?", value.strip(), re.IGNORECASE)
    if not found:
        raise ValueError("a size is a number of bytes, or a text such as 512MiB or 10GB")
    return int(float(found[1]) * _BYTES[(found[2] or "").upper()])


def share(value: object) -> object:
    """A number, or percent: `50%`."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", value.strip())
    if not found:
        raise ValueError("a number from 0 to 1, or a share such as 50%")
    return float(found[1]) / (100 if found[2] else 1)


def size_text(size: int) -> str:
    """A number of bytes for people: `512.0 MiB`."""
    amount, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.1f} {units[0]}" if amount != size else f"{size} {units[0]}"


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta())]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]
Share = Annotated[float, BeforeValidator(share), Field(ge=0, le=1)]
