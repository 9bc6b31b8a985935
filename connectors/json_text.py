"""JSON text as decoders pass it around while they splice a log's bytes into it.

"Byte text" is JSON's UTF-8 bytes read as Latin-1: one character a byte, so that bytes of a log can
be put in without being decoded. `.encode("latin-1")` gives the UTF-8.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, version

_NON_ASCII = re.compile(r"[^\x00-\x7f]+")


def byte_text(text: str) -> str:
    """The text's UTF-8 bytes, one character each."""
    return text if text.isascii() else text.encode().decode("latin-1")


def ascii_json(text: str) -> str:
    r"""The same JSON in ASCII: other characters, which only strings hold, as `\uXXXX`."""
    return text if text.isascii() else _NON_ASCII.sub(_escaped, text)


def ascii_of_byte_text(text: str) -> str:
    """As `ascii_json`, of byte text."""
    return text if text.isascii() else ascii_json(text.encode("latin-1").decode())


def json_string(text: str) -> str:
    """A JSON string, in byte text."""
    return byte_text(json.dumps(text, ensure_ascii=False))


def product_version() -> str:
    """The installed distribution's version; `0` when run from a bare source tree."""
    try:
        return version("waxtap")
    except PackageNotFoundError:
        return "0"


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
