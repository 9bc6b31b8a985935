"""How long to wait before trying again."""

from __future__ import annotations

from random import Random

# An own generator: drawing from the global one would disturb whoever has seeded it.
_random = Random()  # noqa: S311 - jitter is no secret


def jittered(seconds: float) -> float:
    """Between half of `seconds` and all of it, so that many that wait do not come back at once."""
    return seconds * _random.uniform(0.5, 1.0)
