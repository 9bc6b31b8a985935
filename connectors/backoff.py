"""How long to wait before trying again."""

from __future__ import annotations

from random import Random

# An own generator: drawing from the global one would disturb whoever has seeded it.
_random = Random()  # noqa: S311 - jitter is no secret


def doubled(failures: int, first: float, longest: float) -> float:
    """How long to wait after so many failures in a row: ever twice as long, with jitter.

    Args:
        failures: 0: none yet.
        first: Seconds after none.
        longest: Seconds at most.
    """
    return jittered(min(longest, first * 2.0 ** min(failures, 20)))


def jittered(seconds: float) -> float:
    """Between half of `seconds` and all of it, so that many that wait do not come back at once."""
    return seconds * _random.uniform(0.5, 1.0)
