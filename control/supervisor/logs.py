"""The log of a flow's processes: kept small, and read for the last words."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from typing import TYPE_CHECKING

from control.servers.process import tail

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MOST_BYTES = 16 * 1024 * 1024
_LONGEST = 2000


def rotate(log: Path, most: int = _MOST_BYTES) -> bool:
    """Move what a log holds to `log.1` if it is larger than `most` bytes; returns whether it was.

    The processes append to the file that they have open, so it is copied and emptied: lines that
    they write in this very moment may be lost.
    """
    try:
        if log.stat().st_size <= most:
            return False
    except FileNotFoundError:
        return False
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)
    return True


def last_error(log: Path, since: float = 0.0) -> str:
    """The last error that a log tells of, or else its last words; empty without any.

    Words are what is not one of our own lines: those of an interpreter that gave up, perhaps.

    Args:
        log: The log.
        since: What our own lines told earlier does not count (seconds since 1970).
    """
    lines = [line for line in tail(log).splitlines() if line.strip()]
    for line in reversed(lines):
        fields = _fields(line)
        if fields and "timestamp" in fields and _time(fields["timestamp"]) < since:
            break
        if told := _error(fields):
            return told[:_LONGEST]
    return "" if not lines or _fields(lines[-1]) else lines[-1].strip()[:_LONGEST]


def last_trouble(log: Path, since: float) -> str:
    """The last warning that a log tells of, with its reason; empty without any.

    Args:
        log: The log.
        since: Earlier ones do not count (seconds since 1970).
    """
    for line in reversed(tail(log).splitlines()):
        fields = _fields(line)
        if fields.get("level") == "warning":
            if _time(fields.get("timestamp")) < since:
                return ""
            reason = str(fields.get("reason") or "")
            return f"{fields.get('event', '')}{reason and f': {reason}'}"[:_LONGEST]
    return ""


def _time(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def _fields(line: str) -> dict[str, object]:
    """What one of our own lines says; empty for any other."""
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _error(fields: Mapping[str, object]) -> str:
    """A line that tells of an error, in words; empty for any other."""
    if fields.get("level") != "error":
        return ""
    code, where, cure = (str(fields.get(name) or "") for name in ("code", "where", "cure"))
    text = str(fields.get("event", ""))
    place = f"{where}: " if where else ""
    prefix = f"[{code}] " if code else ""
    return f"{prefix}{place}{text}{f' → {cure}' if cure else ''}"
