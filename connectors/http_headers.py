"""What may stand in a header of a request that we send (RFC 9110, 5.1 and 5.5)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from pydantic import SecretStr

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# No control characters, no blanks around it.
_VALUE = re.compile(r"[!-~]([ -~\t]*[!-~])?")


def is_header_value(text: str) -> bool:
    """Whether a header may have this value."""
    return _VALUE.fullmatch(text) is not None


def check_header(name: str, value: SecretStr) -> None:
    """Raise ValueError, which says why, if this can be no header. Never shows the value."""
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header")
    if not is_header_value(value.get_secret_value()):
        raise ValueError(f"{name}: a value is visible ASCII characters on one line")


def check_headers(headers: Mapping[str, SecretStr], ours: Set[str], writer: str) -> None:
    """Raise ValueError, which says why, if somebody cannot add these headers to a request.

    Args:
        headers: Those of the configuration.
        ours: Names in lower case that it must leave alone.
        writer: Who writes these, such as `sink`.
    """
    for name, value in headers.items():
        check_header(name, value)
        if name.lower() in ours:
            raise ValueError(f"{name} is written by the {writer} itself")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("a header is given twice")
