"""Changes of a transaction that is not at its end yet, kept on disk.

The target's transaction that holds them is lost with its session; another one is given them again
from here, so that memory stays flat whatever the transaction's size.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import msgspec

from connectors.contracts.changes import Delivered
from connectors.errors import FatalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from connectors.contracts.changes import TableSchema

_Packed = tuple[
    int, str, str, str | None, str, str, bool, bytes, tuple[str, ...], tuple[str, ...], str
]
_LENGTH_BYTES = 8


class Spool:
    """A nameless file in the folder for temporary files. Used by one thread."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="waxtap-")  # noqa: SIM115 - as long as we live
        self._tables: dict[str, TableSchema] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[_Packed]).decode
        self.size = 0

    def add(self, changes: Sequence[Delivered]) -> None:
        """Keep what follows what was added before.

        Raises:
            FatalError: `postgres.spool`: there is no room.
        """
        packed = self._encode([self._pack(change) for change in changes])
        try:
            self._file.seek(self.size)
            self._file.write(len(packed).to_bytes(_LENGTH_BYTES, "big"))
            self._file.write(packed)
            self._file.flush()
        except OSError as error:
            raise FatalError(
                "postgres.spool",
                f"a large transaction cannot be kept on disk: {error.strerror}",
                where=tempfile.gettempdir(),
                cure="make room there, or let TMPDIR name a folder that has as much as the largest "
                "transaction of the source",
            ) from error
        self.size += _LENGTH_BYTES + len(packed)

    def pieces(self) -> Iterator[list[Delivered]]:
        """What was added, in the same pieces."""
        at = 0
        while at < self.size:
            self._file.seek(at)
            length = int.from_bytes(self._file.read(_LENGTH_BYTES), "big")
            yield [self._unpack(packed) for packed in self._decode(self._file.read(length))]
            at += _LENGTH_BYTES + length

    def clear(self) -> None:
        """Forget what was added."""
        if self.size:
            self._file.seek(0)
            self._file.truncate()
            self.size = 0

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def _pack(self, change: Delivered) -> _Packed:
        table = change.table
        if table is not None:
            self._tables[table.hash] = table
        return (*change[:4], table.hash if table else "", *change[5:])

    def _unpack(self, packed: _Packed) -> Delivered:
        return Delivered._make((*packed[:4], self._tables.get(packed[4]), *packed[5:]))
