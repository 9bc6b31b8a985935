"""Text of any character set to Unicode.

UTF-8 and ASCII need nothing. A set of single bytes is a table of 256 characters, which the server
itself tells; for the others Python has codecs.
"""

from __future__ import annotations

from codecs import charmap_decode
from dataclasses import dataclass

from connectors.errors import FatalError

BINARY = "binary"
# The bytes are UTF-8 as they are.
_UTF8 = {"utf8mb4", "utf8mb3", "utf8", "ascii"}
_CODECS = {
    "utf16": "utf_16_be",
    "utf16le": "utf_16_le",
    "ucs2": "utf_16_be",
    "utf32": "utf_32_be",
    "big5": "cp950",
    "cp932": "cp932",
    "sjis": "cp932",
    "ujis": "euc_jp",
    "eucjpms": "euc_jp",
    "euckr": "cp949",
    "gb2312": "gb2312",
    "gbk": "gbk",
    "gb18030": "gb18030",
}


@dataclass(frozen=True, slots=True)
class Charset:
    """A character set.

    Attributes:
        name: As the server calls it.
        longest: The most bytes of a character.
        table: Of a set of single bytes: the characters of all bytes; empty for others.
    """

    name: str
    longest: int
    table: str = ""

    @property
    def is_text(self) -> bool:
        """False for binary strings."""
        return self.name != BINARY

    @property
    def is_utf8(self) -> bool:
        """True when the bytes are UTF-8."""
        return self.name in _UTF8

    def decode(self, data: bytes) -> str:
        """The text.

        Raises:
            FatalError: `mysql.undecodable_text`.
        """
        try:
            if self.table:
                return charmap_decode(data, "strict", self.table)[0]
            return data.decode("utf-8" if self.is_utf8 else _CODECS.get(self.name, "utf-8"))
        except UnicodeDecodeError as error:
            raise FatalError(
                "mysql.undecodable_text",
                f"a text holds bytes that its character set {self.name} does not have"
                f" (at byte {error.start})",
                cure="correct the row, or change the column to a binary type",
            ) from None


def needs_table(name: str, longest: int) -> bool:
    """Whether a character set is decoded by a table that the server tells."""
    return longest == 1 and name not in _UTF8 and name != BINARY
