"""What a flow's process writes: log lines on standard error, and one line for what ended it."""

from __future__ import annotations

import logging
import sys
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import structlog

from connectors.errors import FatalError, WaxtapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType


_P = ParamSpec("_P")
_R = TypeVar("_R")

# The first error that a step of this process raised.
_remembered: list[Exception] = []


def configure(environment: Mapping[str, str]) -> None:
    """Set up logging and the report of fatal errors.

    Args:
        environment: `WAXTAP_LOG=json` writes JSON lines, which name the flow of `WAXTAP_FLOW`;
            anything else writes lines for people. `WAXTAP_LOG_LEVEL` is a level of the standard
            library, `info` unless set.
    """
    level = logging.getLevelNamesMapping().get(
        environment.get("WAXTAP_LOG_LEVEL", "info").upper(), logging.INFO
    )
    as_json = environment.get("WAXTAP_LOG") == "json"
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *_naming(environment.get("WAXTAP_FLOW", "") if as_json else ""),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *(() if as_json else (_sentence,)),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    sys.excepthook = _excepthook


def _naming(flow: str) -> tuple[structlog.types.Processor, ...]:
    """Adds the flow's name to each line, if there is one."""

    def name(
        _logger: object, _method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        event.setdefault("flow", flow)
        return event

    return (name,) if flow else ()


def report(error: WaxtapError) -> None:
    """Write the one line about what ended the process."""
    structlog.get_logger().error(
        error.message,
        code=error.code,
        where=error.where,
        cure=error.cure,
        kind=type(error).__name__,
    )


def _sentence(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Write a reported error as its own text, whose cure can be copied as it stands.

    As a `key=value` it would be shown with the quotes of SQL escaped.
    """
    if "cure" in event:
        place, cure = event.pop("where"), event.pop("cure")
        text = f"{place}: {event['event']}" if place else event["event"]
        event["event"] = f"{text} → {cure}" if cure else text
    return event


def remembering(step: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a method that Bytewax calls, so that what it raised can be named at the end.

    In a cluster Bytewax ends a failed process with a panic that has lost its cause.
    """

    @wraps(step)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return step(*args, **kwargs)
        except StopIteration:
            raise
        except Exception as error:
            if not _remembered:
                _remembered.append(error)
            raise

    return call


def _excepthook(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Name the cause: Bytewax wraps what a step raises in errors of its own, or loses it."""
    for link in [*_chain(error), *_remembered]:
        if isinstance(link, WaxtapError):
            report(link)
            return
    if _remembered:
        cause = _remembered[0]
        sys.__excepthook__(type(cause), cause, cause.__traceback__)
    elif kind.__name__ == "PanicException":
        report(
            FatalError(
                "flow.peer_ended",
                "another process of the cluster has ended",
                cure="its own output names the cause; start the whole cluster again",
            )
        )
    else:
        sys.__excepthook__(kind, error, trace)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
