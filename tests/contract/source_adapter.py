"""What the source suite must know of a connector besides `connectors.contracts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from connectors.contracts.changes import Change
    from connectors.contracts.source import Source


class SourceAdapter(Protocol):
    """One database (or service) with one table of integer ids, and a source that reads it.

    A new source connector adds one class of this shape and one line in `conftest.py`.
    """

    LOSSES: ClassVar[tuple[str, ...]]
    # Whether a server keeps its log until it is confirmed; `retained` is asked only then.
    HOLDS_LOG: ClassVar[bool]

    def source(self) -> Source:
        """A source as a new process would make it: same name, no memory of earlier ones."""
        ...

    def unreachable(self) -> Source:
        """A source whose server does not answer; the password `s3cret-word` is in its DSN."""
        ...

    def misconfigured(self) -> Mapping[str, Callable[[], Source]]:
        """Setups that `open` must refuse with ConfigError, by a word that the message holds."""
        ...

    def lose_history(self, way: str) -> None:
        """Let the server lose what follows a checkpoint handed out before, in one of `LOSSES`."""
        ...

    def write(self, ids: Sequence[int]) -> None:
        """Insert these ids in order, in one committed transaction."""
        ...

    def abort(self, ids: Sequence[int]) -> None:
        """Insert these ids in a transaction that is rolled back."""
        ...

    def partly(self, kept: Sequence[int], undone: Sequence[int]) -> None:
        """Insert `kept` and, inside a savepoint that is rolled back, `undone`; commit."""
        ...

    def write_wide(self, ids: Sequence[int], size: int) -> None:
        """As `write`, each row with an incompressible text of `size` characters."""
        ...

    def identify(self, change: Change) -> int:
        """The id that a change is about."""
        ...

    def retained(self) -> int:
        """Up to where the server may drop its log; comparable, rises."""
        ...

    def kill_server(self) -> None:
        """End the server without warning (SIGKILL or its like)."""
        ...

    def start_server(self) -> None:
        """Start the killed server again, with its data."""
        ...

    def close(self) -> None:
        """Remove what the adapter made."""
        ...
