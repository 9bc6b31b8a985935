"""From single observations to the figures of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence

# The values that the runs gave for each measure, by the measure's key.
Samples = dict[str, list[float]]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of ascending values: one that was observed, never between two.

    Args:
        ordered: Ascending; not empty.
        share: In (0, 1], such as 0.99.

    Raises:
        ValueError: There are no values, or `share` is out of range.
    """
    if not ordered:
        raise ValueError("no values to take a percentile of")
    if not 0 < share <= 1:
        raise ValueError(f"a percentile's share lies in (0, 1], not {share}")
    return ordered[math.ceil(share * len(ordered)) - 1]


def add(samples: Samples, run: dict[str, float]) -> None:
    """Append the figures of one run."""
    for key, value in run.items():
        samples.setdefault(key, []).append(value)
