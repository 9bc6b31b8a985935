"""Sets of transactions, as MySQL and MariaDB write them.

MySQL: `uuid:1-10:12,uuid:tag:1-3`, any set of numbers for each source. MariaDB: `0-1-100,1-2-7`,
the last transaction of each domain; its numbers rise, so that it stands for all before it.
"""

from __future__ import annotations

import re
import uuid
from bisect import bisect_right

from connectors.errors import FatalError
from connectors.mysql.binlog.events import Gtid

_SOURCE = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TAG = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,31}")
_INTERVAL = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_MARIADB = re.compile(r"([0-9]+)-([0-9]+)-([0-9]+)")
_TAGGED_FORMAT = 1


class MysqlGtids:
    """A GTID set of MySQL.

    Args:
        text: As `gtid_executed` shows it.

    Raises:
        FatalError: `mysql.invalid_gtid_set`.
    """

    def __init__(self, text: str = "") -> None:
        # half-open intervals in order, none of which touch; a set is mostly one of them
        self._intervals: dict[str, list[list[int]]] = {}
        self._texts: dict[str, str] = {}
        for part in "".join(text.split()).split(","):
            if part:
                self._read(part, text)

    def add(self, gtid: Gtid) -> None:
        """Put one more into the set."""
        intervals = self._intervals.setdefault(gtid.source, [])
        number = gtid.number
        self._texts.pop(gtid.source, None)
        if intervals and intervals[-1][1] == number:
            intervals[-1][1] += 1
        elif gtid not in self:
            self._put(intervals, number, number + 1)

    def discard(self, gtid: Gtid) -> None:
        """Take one out of the set, if it is there."""
        if gtid not in self:
            return
        intervals = self._intervals[gtid.source]
        index = bisect_right(intervals, gtid.number, key=lambda interval: interval[0]) - 1
        start, end = intervals[index]
        halves = [[start, gtid.number], [gtid.number + 1, end]]
        intervals[index : index + 1] = [half for half in halves if half[0] < half[1]]
        self._texts.pop(gtid.source, None)

    def __contains__(self, gtid: Gtid) -> bool:
        intervals = self._intervals.get(gtid.source, ())
        index = bisect_right(intervals, gtid.number, key=lambda interval: interval[0]) - 1
        return index >= 0 and gtid.number < intervals[index][1]

    def __str__(self) -> str:
        for source, intervals in self._intervals.items():
            if source not in self._texts and intervals:
                self._texts[source] = source + ":".join(
                    str(start) if end == start + 1 else f"{start}-{end - 1}"
                    for start, end in intervals
                )
        return ",".join(self._texts[source] for source in sorted(self._texts))

    def encode(self) -> bytes:
        """The set as COM_BINLOG_DUMP_GTID takes it (MySQL source, sql/rpl_gtid_set.cc).

        A set with tags needs the newer form, which servers before 8.3 do not know.
        """
        known = sorted((source, found) for source, found in self._intervals.items() if found)
        tagged = any(source.count(":") > 1 for source, _ in known)
        count = len(known)
        head = _TAGGED_FORMAT << 56 | count << 8 | _TAGGED_FORMAT if tagged else count
        parts = [head.to_bytes(8, "little")]
        for source, intervals in known:
            identifier, _, tag = source.removesuffix(":").partition(":")
            parts.append(uuid.UUID(identifier).bytes)
            if tagged:
                # a tag has 32 characters at most, so that its length is one byte (see `varint`)
                parts.append(bytes([len(tag) << 1]) + tag.encode())
            parts.append(len(intervals).to_bytes(8, "little"))
            parts += [number.to_bytes(8, "little") for pair in intervals for number in pair]
        return b"".join(parts)

    def _read(self, part: str, whole: str) -> None:
        identifier, *rest = part.split(":")
        source = f"{identifier.lower()}:"
        if not _SOURCE.fullmatch(identifier):
            raise _invalid(whole)
        for piece in rest:
            if _TAG.fullmatch(piece):
                source = f"{identifier.lower()}:{piece.lower()}:"
                continue
            match = _INTERVAL.fullmatch(piece)
            start = int(match[1]) if match else 0
            end = int(match[2] or match[1]) + 1 if match else 0
            if not 0 < start < end:
                raise _invalid(whole)
            self._put(self._intervals.setdefault(source, []), start, end)

    @staticmethod
    def _put(intervals: list[list[int]], start: int, end: int) -> None:
        """Add an interval to a list of them, and join those that now touch."""
        intervals.append([start, end])
        intervals.sort()
        joined: list[list[int]] = []
        for interval in intervals:
            if joined and interval[0] <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], interval[1])
            else:
                joined.append(interval)
        intervals[:] = joined


class MariadbGtids:
    """A GTID position of MariaDB.

    Args:
        text: As `gtid_binlog_pos` shows it.

    Raises:
        FatalError: `mysql.invalid_gtid_set`.
    """

    def __init__(self, text: str = "") -> None:
        self.domains: dict[str, Gtid] = {}
        for part in "".join(text.split()).split(","):
            match = _MARIADB.fullmatch(part)
            if match is not None:
                self.domains[match[1]] = Gtid(f"{match[1]}-{match[2]}-", int(match[3]))
            elif part:
                raise _invalid(text)

    def add(self, gtid: Gtid) -> None:
        """Go on to this transaction in its domain."""
        self.domains[gtid.source.partition("-")[0]] = gtid

    def go_back(self, gtid: Gtid, before: Gtid | None) -> None:
        """Put the domain of a transaction back to the one before it; None: to its beginning."""
        domain = gtid.source.partition("-")[0]
        if before is None:
            self.domains.pop(domain, None)
        else:
            self.domains[domain] = before

    def last(self, gtid: Gtid) -> Gtid | None:
        """The last transaction of another one's domain."""
        return self.domains.get(gtid.source.partition("-")[0])

    def __contains__(self, gtid: Gtid) -> bool:
        last = self.last(gtid)
        return last is not None and gtid.number <= last.number

    def __str__(self) -> str:
        return ",".join(f"{gtid.source}{gtid.number}" for _, gtid in sorted(self.domains.items()))


def parse_gtid_text(text: str) -> Gtid:
    """One transaction's id, as `f"{source}{number}"` wrote it.

    Raises:
        FatalError: `mysql.invalid_gtid_set`.
    """
    match = re.fullmatch(r"(.+[:-])([0-9]+)", text)
    if match is None:
        raise _invalid(text)
    return Gtid(match[1], int(match[2]))


def _invalid(text: str) -> FatalError:
    return FatalError(
        "mysql.invalid_gtid_set",
        f"not a set of transactions: {text[:80]!r}",
        cure="the stream's checkpoint was not written by a source of this kind",
    )
