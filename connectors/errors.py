"""The errors that connectors raise, and what each class promises.

    WaxtapError
    ├── RetryableError    try the same thing again later: nothing is lost by waiting
    ├── PermanentError    this change will never be accepted as it is
    └── FatalError        the flow must stop: going on would lose or repeat changes
        ├── ConfigError   what the user wrote, or how a server is set up, must be changed first
        ├── FencedError   a newer owner has taken over; this one must end
        └── GapError      changes that should be there are gone; going on needs the owner's word

An error is raised *or* logged, never both. `code` is stable and dotted, for programs; `where` names
the place (config path, table, column, stream); `cure` says what to do.
"""

from __future__ import annotations


class WaxtapError(Exception):
    """One problem, told once: what is wrong, where, and how it is cured.

    Args:
        code: Stable dotted identifier, such as `postgres.slot_lost`.
        message: What is wrong, without secrets.
        where: Config path, table, column or stream it concerns.
        cure: What the reader can do about it.
    """

    def __init__(self, code: str, message: str, *, where: str = "", cure: str = "") -> None:
        super().__init__(code, message, where, cure)
        self.code = code
        self.message = message
        self.where = where
        self.cure = cure

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.message, self.where, self.cure, vars(self))

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        cure = f" → {self.cure}" if self.cure else ""
        return f"[{self.code}] {place}{self.message}{cure}"


def _rebuild(
    kind: type[WaxtapError],
    code: str,
    message: str,
    where: str,
    cure: str,
    fields: dict[str, object],
) -> WaxtapError:
    error = kind(code, message, where=where, cure=cure)
    vars(error).update(fields)
    return error


class RetryableError(WaxtapError):
    """A connection, a timeout, a deadlock: the same call may succeed later."""


class PermanentError(WaxtapError):
    """The target refuses this change and always will.

    Attributes:
        sequence: The stream's sequence of the change that is refused; 0 when all that is known is
            that it is among those that were written.
        also: The refusals of further changes that were written with it, each with its sequence,
            where the target tells them all at once.
    """

    def __init__(
        self, code: str, message: str, *, where: str = "", cure: str = "", sequence: int = 0
    ) -> None:
        super().__init__(code, message, where=where, cure=cure)
        self.sequence = sequence
        self.also: tuple[PermanentError, ...] = ()


class FatalError(WaxtapError):
    """The flow must stop."""


class ConfigError(FatalError):
    """The configuration, or a server's setup, does not allow the flow to run."""


class FencedError(FatalError):
    """Another owner holds what this one held."""


class GapError(FatalError):
    """Changes are missing; only the owner can decide to go on without them."""
