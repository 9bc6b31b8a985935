"""What a supervisor is made of, and what it needs of others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from control.supervisor.flow import Patience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.jetstream.spec import NatsSpec
    from control.supervisor.group import Group, Launcher
    from control.supervisor.host import StateFolder
    from control.supervisor.records import Condition, State
    from control.supervisor.rendering import Rendered


class Specs(Protocol):
    """What the supervisor needs of a revision of the configuration."""

    @property
    def revision(self) -> int:
        """Grows with each write."""
        ...

    @property
    def tree(self) -> dict[str, object]:
        """The sections of `waxtap.yaml`, without `nats`."""
        ...


class SpecSource(Protocol):
    """Where revisions of the configuration come from: `control.specs.store.SpecStore`."""

    def read(self) -> Specs:
        """The latest revision. Raises WaxtapError."""
        ...

    def changed(self, after: int, timeout: float) -> Specs | None:
        """Wait for one later than `after`; None: there was none. Raises WaxtapError."""
        ...


class Observer(Protocol):
    """Looks at flows that run."""

    def watch(self, running: Mapping[str, tuple[Rendered, Group]]) -> None:
        """From now on these run."""
        ...

    def forget(self, flow: str) -> None:
        """A flow is no more, or somebody else's."""
        ...

    def conditions(
        self, flow: str, state: State, rendered: Rendered | None
    ) -> tuple[Condition, ...]:
        """What holds of a flow."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What a supervisor is made of.

    Attributes:
        nats: Where the bucket is.
        launcher: Starts the flows.
        state: The service's own folder.
        patience: With flows.
    """

    nats: NatsSpec
    launcher: Launcher
    state: StateFolder
    patience: Patience = field(default_factory=Patience)
