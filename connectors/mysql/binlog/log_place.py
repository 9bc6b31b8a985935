"""Where in the log an event stands, and whether it arrived whole."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from connectors.mysql.binlog import events as ev
from connectors.mysql.binlog import refusals
from connectors.mysql.binlog.position import split_file

if TYPE_CHECKING:
    from connectors.mysql.binlog.progress import Resume

# The CRC-32 of whatever ends with its own CRC-32, lowest byte first.
_WHOLE = 0x2144DF1C


class LogPlace:
    """Follows a log from file to file and from event to event.

    The header of an event holds but the lower half of its offset, so all events must pass from the
    beginning of a transaction on.

    Args:
        resume: From where reading goes on.

    Attributes:
        file: The log file that is being read; empty before the first.
        number: Its number.
        start: Where the event begins.
        end: Where it ends.
    """

    def __init__(self, resume: Resume) -> None:
        self.file = ""
        self.number = self.start = self.end = 0
        # Where the log was last seen, from which the upper half of an offset is told.
        self._floor = (resume.file, resume.offset) if not resume.held else ("", 0)
        self._checksums = False

    def __str__(self) -> str:
        return f"{self.file}:{self.end}"

    def check(self, event: bytes) -> int:
        """Where the body of an event ends, its checksum left out.

        Raises:
            FatalError: `mysql.malformed_event`, or the checksum is wrong.
        """
        end = len(event)
        if end < ev.HEADER_SIZE:
            raise ev.malformed(event, "it is too short")
        if self._checksums and event[4] != ev.FORMAT_DESCRIPTION:
            end -= ev.CHECKSUM_SIZE
            if crc32(event) != _WHOLE:
                raise refusals.wrong_checksum(event[4], str(self))
        return end

    def advance(self, event: bytes) -> None:
        """Move behind an event."""
        low = int.from_bytes(event[13:17], "little")
        if low:
            expected = self.end + len(event)
            if expected & 0xFFFFFFFF != low:
                expected = self.end & ~0xFFFFFFFF | low
                expected += (expected < self.end) << 32
            self.end = expected
        self.start = self.end - len(event)

    def rotate(self, event: bytes, end: int) -> None:
        """Move to the file that an event names."""
        # Before the first event of a file nothing tells whether this one has a checksum.
        if end == len(event) and crc32(event) == _WHOLE:
            end -= ev.CHECKSUM_SIZE
        self.file, self.end = ev.parse_rotate(event, end)
        _, self.number = split_file(self.file)
        if self.file == self._floor[0]:
            self.end = max(self.end, self._floor[1])

    def heard(self, event: bytes) -> None:
        """Move to where a heartbeat says that the log has got, outside a transaction.

        Events that are passed over, such as those at the beginning of a file, move nothing.
        """
        place = self.end & ~0xFFFFFFFF | int.from_bytes(event[13:17], "little")
        self.end = max(self.end, place)

    def describe_format(self, event: bytes) -> None:
        """Learn from the first event of a file whether the others have checksums."""
        self._checksums = ev.parse_format_description(event).checksums
