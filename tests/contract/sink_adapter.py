"""What the sink suite must know of a connector besides `connectors.contracts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connectors.contracts.sink import Sink


class SinkAdapter(Protocol):
    """One target, empty, and a sink that writes to it.

    The suite writes rows `{"id": bigint, "value": text}` of the table `public.items`, keyed by id.
    A new sink connector adds one class of this shape and one line in `conftest.py`.

    Attributes:
        transactional: Rows and offset are stored in one commit. A target that stores its offset
            behind the rows may hold more than the offset tells, and takes what it has again.
    """

    transactional: ClassVar[bool]

    def sink(self) -> Sink:
        """A sink as a new process would make it: same name, no memory of earlier ones."""
        ...

    def unreachable(self) -> Sink:
        """A sink whose server does not answer; the password `s3cret-word` is in its DSN."""
        ...

    def misconfigured(self) -> Mapping[str, Callable[[], Sink]]:
        """Setups that `claim` must refuse with ConfigError, by a word that the message holds."""
        ...

    def refuse(self, value: str) -> None:
        """From now on the target refuses rows with this value, for good."""
        ...

    def rows(self) -> dict[int, str]:
        """What the target holds: value by id; empty when the table does not exist yet."""
        ...

    def cut_connections(self) -> None:
        """Break every connection that the sink has to its server; the server goes on."""
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
