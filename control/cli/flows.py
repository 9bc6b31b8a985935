"""`waxtap pause, resume, restart`: flows, whichever control service runs them."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from connectors.errors import ConfigError
from control.cli.client import Service
from control.cli.output import Format, show_messages
from control.cli.shown import COLUMNS, row
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from control.pb.cdc.v1.cdc_pb2_grpc import FlowServiceStub

    Done = Callable[[cdc_pb2.Flow], bool]

_DONE, _FAILED = 0, 1
_LOOK_EVERY = 0.2
_STATE = cdc_pb2.Flow
_BAD = (_STATE.STATE_REFUSED, _STATE.STATE_CRASH_LOOP)

Wait = Annotated[float, Parameter(name="--wait")]


def pause(
    *names: str, wait: Wait = 30.0, output: Format = "table", service: Service | None = None
) -> int:
    """Stop flows in order, until they are resumed; nothing is lost meanwhile.

    Args:
        names: Such as flows/capture/shop, or capture/shop.
        wait: Until they have stopped, at most so many seconds; 0: do not wait.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """

    def ask(stub: FlowServiceStub, name: str) -> Done:
        stub.PauseFlow(cdc_pb2.PauseFlowRequest(name=name))
        return lambda flow: flow.state == _STATE.STATE_PAUSED

    return _each(names, ask, wait, output, service)


def resume(
    *names: str, wait: Wait = 30.0, output: Format = "table", service: Service | None = None
) -> int:
    """Let paused flows run again, from where they were.

    Args:
        names: Such as flows/capture/shop, or capture/shop.
        wait: Until they run, at most so many seconds; 0: do not wait.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """

    def ask(stub: FlowServiceStub, name: str) -> Done:
        stub.ResumeFlow(cdc_pb2.ResumeFlowRequest(name=name))
        return lambda flow: flow.state == _STATE.STATE_RUNNING

    return _each(names, ask, wait, output, service)


def restart(
    *names: str, wait: Wait = 30.0, output: Format = "table", service: Service | None = None
) -> int:
    """Stop flows in order and start them again, also those that were refused.

    Args:
        names: Such as flows/capture/shop, or capture/shop.
        wait: Until they run again, at most so many seconds; 0: do not wait.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """

    def ask(stub: FlowServiceStub, name: str) -> Done:
        before = stub.GetFlow(cdc_pb2.GetFlowRequest(name=name)).start_time
        stub.RestartFlow(cdc_pb2.RestartFlowRequest(name=name))
        return lambda flow: flow.state == _STATE.STATE_RUNNING and flow.start_time != before

    return _each(names, ask, wait, output, service)


def _each(
    names: tuple[str, ...],
    ask: Callable[[FlowServiceStub, str], Done],
    wait: float,
    output: Format,
    service: Service | None,
) -> int:
    """Ask for all, wait for all, show all; returns the exit status."""
    if not names:
        raise ConfigError(
            "cli.no_flow", "no flow is named", cure="name one, such as flows/capture/shop"
        )
    named = [name if name.startswith("flows/") else f"flows/{name}" for name in names]
    flows: dict[str, cdc_pb2.Flow] = {}
    with (service or Service()).channel() as channel:
        stub = cdc_pb2_grpc.FlowServiceStub(channel)
        left = {name: ask(stub, name) for name in named}
        deadline = time.monotonic() + wait
        while True:
            for name in named:
                flows[name] = stub.GetFlow(cdc_pb2.GetFlowRequest(name=name))
                if name in left and left[name](flows[name]):
                    del left[name]
            if not left or time.monotonic() >= deadline:
                break
            time.sleep(_LOOK_EVERY)
    show_messages(flows.values(), output, map(row, flows.values()), COLUMNS["flows"])
    if left and wait:
        print(f"not within {wait:g} s: {', '.join(left)}", file=sys.stderr)
        return _FAILED
    return _DONE
