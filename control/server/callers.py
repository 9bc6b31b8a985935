"""Who asks: known to every method of a call, and to the threads that it starts."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What a caller may do; each role may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: For logs and histories.
        role: What they may do.
    """

    name: str
    role: Role


# Whoever can open a connection to a loopback address could as well read our memory.
LOCAL = Caller("local", Role.ADMIN)

caller: ContextVar[Caller] = ContextVar("caller", default=LOCAL)
