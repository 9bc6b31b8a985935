"""The table that is printed, and the flat object that is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import median

from bench.catalogue import MEASURES, PUBLISHED, Measure, Target
from bench.samples import Samples

_HEADINGS: tuple[str, ...] = ("measure", "median", "unit", "lowest … highest", "target", "")


def medians(samples: Samples) -> dict[str, float | None]:
    """The figure of each measure: the median of its runs, None where there was none."""
    return {
        measure.key: median(samples[measure.key]) if samples.get(measure.key) else None
        for measure in MEASURES
    }


def latest_json(samples: Samples) -> str:
    """One flat JSON object with exactly the published keys; null for what was not measured."""
    figures = medians(samples)
    flat = {key: _rounded(figures[key]) for key in PUBLISHED}
    return json.dumps(flat, indent=2) + "\n"


def table(samples: Samples, skipped: Mapping[str, str], facts: Sequence[tuple[str, str]]) -> str:
    """The whole printout.

    Args:
        samples: What the runs gave.
        skipped: Why a benchmark gave nothing, by its name.
        facts: Machine, versions and settings, as (name, value).
    """
    figures = medians(samples)
    lines = [_HEADINGS]
    for measure in MEASURES:
        values = samples.get(measure.key)
        if values or measure.published:
            lines.extend(_lines(measure, values or [], figures))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    lines.insert(1, tuple("─" * width for width in widths))
    text = [_aligned(line, widths) for line in lines]
    text += ["", *(f"{name}: {value}" for name, value in facts)]
    text += [f"not measured: {name}: {reason}" for name, reason in skipped.items()]
    return "\n".join(text) + "\n"


def _lines(
    measure: Measure, values: Sequence[float], figures: Mapping[str, float | None]
) -> list[tuple[str, ...]]:
    """The figure with its first target, and a line for each further target."""
    figure = figures[measure.key]
    shown = "-" if figure is None else _number(figure, measure.digits)
    spread = (
        f"{_number(min(values), measure.digits)} … {_number(max(values), measure.digits)}"
        if len(values) > 1
        else ""
    )
    targets = [_target(target, figure, figures) for target in measure.targets] or [("", "")]
    return [
        (measure.label, shown, measure.unit, spread, *targets[0]),
        *(("", "", "", "", *target) for target in targets[1:]),
    ]


def _target(
    target: Target, figure: float | None, figures: Mapping[str, float | None]
) -> tuple[str, str]:
    sign = "≥" if target.sense == ">=" else "≤"
    text = f"{sign} {_number(target.value, 0)}"
    verdict = {True: "met", False: "missed", None: ""}[target.met(figure, figures)]
    if target.times:
        text = f"{sign} {target.value:g} x {target.times}"
        bound = target.bound(figures)
        if bound and figure is not None:
            verdict = f"{verdict} ({figure / bound * target.value:.1f} x)"
    return text, verdict


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if column in {1, 3} else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
