"""Processes of a control service that is no more, on the same machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from control.supervisor.folder import FlowFolder

if TYPE_CHECKING:
    from control.supervisor.records import Service

log = structlog.get_logger()

_GONE_WITHIN = 5.0


def flow_folder(flows: Path, flow: str) -> FlowFolder:
    """The folder of a flow below the `flows` of a state folder."""
    return FlowFolder(flows / flow.replace("/", "."))


def end_orphans(dead: Service, flow: str) -> bool:
    """Kill what a dead service has left of a flow; to be called on the same host only.

    Returns:
        Whether all of it is gone.
    """
    folder = flow_folder(Path(dead.folder) / "flows", flow)
    run = folder.read_run()
    left = {member for member in run.members if member.alive()} if run else set()
    left |= set(folder.holders())
    for member in left:
        member.signal(signal.SIGKILL)
    if left:
        log.warning("processes of a dead control service ended", flow=flow, processes=len(left))
    return all(member.end(_GONE_WITHIN) for member in left)
