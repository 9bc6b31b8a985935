"""The log of a flow's processes: kept small, and read for the last words."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from typing import TYPE_CHECKING

from control.servers.process import tail

if TYPE_CHECKING:
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


def last_error(log: Path) -> str:
    """The last error that a log tells of, or else its last line; empty without any."""
    lines = [line for line in tail(log).splitlines() if line.strip()]
    for line in reversed(lines):
        if told := _error(line):
            return told[:_LONGEST]
    return lines[-1].strip()[:_LONGEST] if lines else ""


def last_trouble(log: Path, since: float) -> str:
    """The last warning that a log tells of, with its reason; empty without any.

    Args:
        log: The log.
        since: Earlier ones do not count (seconds since 1970).
    """
    for line in reversed(tail(log).splitlines()):
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict) and fields.get("level") == "warning":
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


def _error(line: str) -> str:
    """A line of a flow's log that tells of an error, in words; empty for any other."""
    try:
        fields = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(fields, dict) or fields.get("level") != "error":
        return ""
    code, where, cure = (str(fields.get(name) or "") for name in ("code", "where", "cure"))
    text = str(fields.get("event", ""))
    place = f"{where}: " if where else ""
    prefix = f"[{code}] " if code else ""
    return f"{prefix}{place}{text}{f' → {cure}' if cure else ''}"
