"""`waxtap serve`: the control service."""

from __future__ import annotations

import asyncio
import os

from control.server.options import ServeOptions
from control.server.serving import serve as run


def serve(options: ServeOptions | None = None) -> None:
    """Run the control service until it is told to end (SIGTERM).

    Args:
        options: What it is started with.
    """
    asyncio.run(run(options or ServeOptions(), os.environ))
