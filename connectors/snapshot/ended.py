"""The reader of a source that has told everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.contracts.source import Checkpoint


class EndedReader:
    """Implements `contracts.SourceReader` and `Finite` for a source that has told everything."""

    ended = True

    def read(self) -> None:
        """There is nothing."""

    def confirm(self, checkpoint: Checkpoint) -> None:
        """There is nothing to let go of."""

    def close(self) -> None:
        """There is nothing to close."""
