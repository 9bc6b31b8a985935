"""`waxtap plan, apply, rollback`: a whole waxtap.yaml, and the control service's configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from connectors.errors import ConfigError
from control.cli.client import Service
from control.cli.disposal import DISPOSALS, Keep
from control.cli.output import Format, console, plain, show
from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import cdc_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc

File = Annotated[Path | None, Parameter(name=["--file", "-f"])]

_ACTIONS = {cdc.ACTION_CREATE: "create", cdc.ACTION_UPDATE: "update", cdc.ACTION_DELETE: "delete"}


def plan(*, file: File = None, output: Format = "table", service: Service | None = None) -> None:
    """Show what applying a file would change, and which flows that starts, stops or restarts.

    Args:
        file: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
        output: Text, JSON or YAML.
        service: Where the control service is.
    """
    service = service or Service()
    with service.channel() as channel:
        found = _plan(channel, _text(file))
    _show_plan(found, output)


def apply(
    *,
    file: File = None,
    plan_hash: Annotated[str | None, Parameter(name="--hash")] = None,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    server_objects: Annotated[Keep, Parameter(name="--server-objects")] = "keep",
    stream: Annotated[Keep, Parameter(name="--stream")] = "keep",
    output: Format = "table",
    service: Service | None = None,
) -> None:
    """Make the service's configuration what a file says.

    What the file does not have is deleted; slots and streams of deleted sources stay unless said.

    Args:
        file: The configuration; $WAXTAP_CONFIG or waxtap.yaml unless given.
        plan_hash: Of the plan that was looked at: nothing is done if it is not that any more.
        yes: Delete without a look at the plan.
        server_objects: Of deleted sources: what becomes of slots and publications on servers.
        stream: Of deleted sources: what becomes of their streams, with every message in them.
        output: Text, JSON or YAML.
        service: Where the control service is.
    """
    service = service or Service()
    text = _text(file)
    with service.channel() as channel:
        if plan_hash is None:
            found = _plan(channel, text)
            deleted = [one.name for one in found.changes if one.action == cdc.ACTION_DELETE]
            if deleted and not yes:
                raise ConfigError(
                    "cli.not_sure",
                    f"{', '.join(deleted)} would be deleted",
                    cure=f"look at `waxtap plan`, then add --hash {found.hash}, or --yes",
                )
            plan_hash = found.hash
        answer = cdc_pb2_grpc.ConfigServiceStub(channel).Apply(
            cdc.ApplyRequest(
                yaml=text,
                hash=plan_hash,
                server_objects=DISPOSALS[server_objects],
                stream=DISPOSALS[stream],
            ),
        )
    if output != "table":
        show(plain(answer), output)
        return
    _show_plan(answer.plan, output)
    print(f"applied as revision {answer.revision.revision}")


def rollback(
    revision: int,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    server_objects: Annotated[Keep, Parameter(name="--server-objects")] = "keep",
    stream: Annotated[Keep, Parameter(name="--stream")] = "keep",
    output: Format = "table",
    service: Service | None = None,
) -> None:
    """Make an earlier revision of the service's configuration the latest one again.

    Sources that it does not have are deleted; their slots and streams stay unless said.

    Args:
        revision: Which; `waxtap list revisions` tells them.
        yes: Do it; without, nothing is done.
        server_objects: Of deleted sources: what becomes of slots and publications on servers.
        stream: Of deleted sources: what becomes of their streams, with every message in them.
        output: Text, JSON or YAML.
        service: Where the control service is.
    """
    if not yes:
        raise ConfigError(
            "cli.not_sure",
            f"the configuration would become what revision {revision} was",
            cure="look at `waxtap list revisions`, then add --yes",
        )
    service = service or Service()
    with service.channel() as channel:
        answer = cdc_pb2_grpc.ConfigServiceStub(channel).RollBack(
            cdc.RollBackRequest(
                revision=revision,
                server_objects=DISPOSALS[server_objects],
                stream=DISPOSALS[stream],
            )
        )
    if output != "table":
        show(plain(answer), output)
        return
    _show_left_behind(answer.left_behind)
    print(f"rolled back, as revision {answer.revision}")


def _plan(channel: grpc.Channel, text: str) -> cdc.PlanResponse:
    return cdc_pb2_grpc.ConfigServiceStub(channel).Plan(cdc.PlanRequest(yaml=text))


def _show_plan(found: cdc.PlanResponse, output: Format) -> None:
    if output != "table":
        show(plain(found), output)
        return
    out = console()
    for change in found.changes:
        out.print(f"{_ACTIONS[change.action]} {change.name}", style="bold", highlight=False)
        for line in change.diff.splitlines()[2:]:
            style = {"+": "green", "-": "red"}.get(line[:1], "dim")
            out.print(f"  {line}", style=style, highlight=False, soft_wrap=True)
    for what, flows in (
        ("starts", found.started_flows),
        ("stops", found.stopped_flows),
        ("restarts", found.restarted_flows),
    ):
        for flow in flows:
            out.print(f"{what} {flow}", highlight=False)
    _show_left_behind(found.left_behind)
    if not found.changes:
        out.print("nothing to change")
    out.print(f"hash {found.hash}", highlight=False)


def _show_left_behind(sources: Iterable[cdc.LeftBehind]) -> None:
    for left in sources:
        stays = [*left.server_objects, *([f"stream {left.stream}"] if left.stream else [])]
        console().print(
            f"leaves of {left.name}: {', '.join(stays)} → {left.cure}",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )


def _text(file: Path | None) -> str:
    path = file or Path(os.environ.get("WAXTAP_CONFIG", "waxtap.yaml"))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            "config.unreadable",
            f"the configuration cannot be read: {reason}",
            where=str(path),
            cure="name the file: --file waxtap.yaml",
        ) from None
