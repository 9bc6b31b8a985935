"""`waxtap try`: what a pipeline, or a sink's own steps, make of sample changes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter

from connectors.contracts.changes import Change, Delivered, Failure
from connectors.errors import ConfigError
from control.cli.samples import captured, from_lines, from_stream
from dataflows.failing import StepError
from dataflows.memory.steps import StatefulSteps
from dataflows.pipeline import pipeline_named, sink_steps
from dataflows.spec import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from connectors.contracts.changes import TableSchema
    from dataflows.spec import Config
    from dataflows.steps import Steps

_DROPPED = {
    "dedupe": "it changes nothing of what counts",
    "sample": "it is not of the part that is kept",
    "throttle": "there were as many of this row in the interval",
}


class _Message(NamedTuple):
    """What becomes of a change.

    Attributes:
        subject: Where it belongs.
        change: As it is stored or delivered.
        dropper: The step that drops it by what came before it; empty: none does.
    """

    subject: str
    change: Change | Delivered
    dropper: str = ""


@dataclass(frozen=True, slots=True)
class _Tried:
    """What is tried.

    Attributes:
        source: Whose changes it is given.
        steps: Its filter and transforms.
        takes: Whether it takes the changes of a table at all.
        apply: What it makes of a change. To be asked once for each, in order.
    """

    source: str
    steps: Steps
    takes: Callable[[TableSchema | None], bool]
    apply: Callable[[Delivered], list[_Message]]


def try_pipeline(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    pipeline: str = "",
    sink: str = "",
    source: str = "",
    samples: Annotated[Path | None, Parameter(name=["--input", "-i"])] = None,
    live: int = 0,
) -> None:
    """Show what a pipeline makes of changes: before and after of each, and why one is dropped.

    Args:
        config: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
        pipeline: The pipeline to try.
        sink: Instead of a pipeline: the sink whose own filter and transforms to try.
        source: Whose changes these are; the first source that it takes from unless given.
        samples: A file with one envelope a line (docs/pipelines.md); `-` for standard input.
        live: Instead of a file: the last so many changes of the source's stream.
    """
    whole = load(config or Path(os.environ.get("WAXTAP_CONFIG", "waxtap.yaml")), os.environ)
    tried = _tried(whole, pipeline, sink, source)
    if (samples is None) == (live <= 0):
        raise ConfigError(
            "try.no_changes",
            "either a file or a number of changes is wanted",
            where="--input",
            cure="--input FILE, one envelope a line; or --live N, the last N of the stream",
        )
    changes: Iterable[Delivered]
    if samples is None:
        changes = from_stream(whole.nats, tried.source, live)
    else:
        changes = from_lines(_lines(samples).splitlines(), tried.source, str(samples))
    for number, change in enumerate(changes, 1):
        print(f"{number}. {_title(change)}")
        print(f"   before   {change.envelope.decode()}")
        for line in _outcome(tried, change):
            print(f"   {line}")


def _tried(config: Config, pipeline: str, sink: str, source: str) -> _Tried:
    if bool(pipeline) == bool(sink):
        raise ConfigError(
            "try.nothing",
            "either a pipeline or a sink is to be tried",
            where="--pipeline",
            cure=f"--pipeline {' | '.join(config.pipelines)}; or --sink {' | '.join(config.sinks)}",
        )
    if sink:
        if sink not in config.sinks:
            raise ConfigError(
                "config.unknown_sink",
                f"there is no sink {sink!r}",
                where="--sink",
                cure=f"known: {', '.join(config.sinks)}",
            )
        steps = sink_steps(config, config.sinks[sink])
        return _Tried(
            _source(config, source, config.sinks[sink].sources),
            steps,
            lambda _table: True,
            lambda change: [_Message(change.subject, made) for made in steps.delivered(change)],
        )
    spec = config.pipelines.get(pipeline)
    name = _source(config, source, (spec and spec.sources) or tuple(config.sources))
    made = pipeline_named(config, pipeline, name)
    memory = StatefulSteps(pipeline, made.spec)

    def apply(change: Delivered) -> list[_Message]:
        origin = captured(change)
        return [
            _Message(subject, one, "" if memory.keeps(subject, one, origin) else memory.dropper)
            for subject, one in made.apply(origin)
        ]

    return _Tried(name, made.steps, made.takes, apply)


def _source(config: Config, wanted: str, known: tuple[str, ...]) -> str:
    if not wanted:
        return known[0]
    if wanted not in config.sources:
        raise ConfigError(
            "config.unknown_source",
            f"there is no source {wanted!r}",
            where="--source",
            cure=f"known: {', '.join(config.sources)}",
        )
    return wanted


def _lines(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "try.unreadable", f"the file cannot be read: {error.strerror}", where=str(path)
        ) from None


def _title(change: Delivered) -> str:
    table = change.table
    name = f"{table.schema}.{table.name}" if table else "a logical message"
    return f"{name} {change.key or ''}".rstrip()


def _outcome(tried: _Tried, change: Delivered) -> list[str]:
    """The lines that tell what became of a change."""
    if not tried.takes(change.table):
        return ["dropped  the pipeline does not take this table"]
    tried.steps.latest = None
    made = tried.apply(change)
    failure = tried.steps.latest
    lines = []
    for subject, one, dropper in made:
        if dropper:
            lines.append(f"dropped  by {dropper}: {_DROPPED[dropper]}")
        elif one.failed:
            failure = Failure.decode(one.failed)
            lines.append(f"failed   [{failure.code}] {failure.message}: a dead letter in {subject}")
            return lines
        else:
            lines.append(f"after    {one.envelope.decode()}")
            lines.append(f"         in {subject}, key {one.key}")
    if failure is not None:
        word = "kept" if made else "dropped"
        lines.append(f"{word:8} [{failure.code}] {failure.message}")
    elif not made:
        lines.append(f"dropped  {_reason(tried.steps, change)}")
    return lines


def _reason(steps: Steps, change: Delivered) -> str:
    try:
        passes = steps.passes(change)
    except StepError as error:
        return f"[{error.code}] {error.message}"
    return "a transform makes nothing of it" if passes else "the filter is false"
