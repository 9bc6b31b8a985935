"""The explorer's part of the control service by itself: `python -m bench.explorer_service`.

Takes the URL of the NATS server, and the file into which the address of the API is written.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from connectors.jetstream.spec import NatsSpec
from control.explorer.explorer import Explorer
from control.server.assembly import ControlServer
from control.services.calls import Workers
from control.services.message_service import MessageService


@dataclass(frozen=True, slots=True)
class _Nothing:
    """A configuration without sinks."""

    revision: int = 1
    tree: Mapping[str, object] = field(default_factory=dict)

    def read(self) -> _Nothing:
        return self


async def serve(url: str, address: Path) -> None:
    """Answer until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    explorer, workers = Explorer(NatsSpec(url=(url,)), _Nothing(), os.environ), Workers()
    server = ControlServer("127.0.0.1:0", [MessageService(explorer, workers).register])
    await server.start()
    part = address.with_suffix(".part")
    part.write_text(f"127.0.0.1:{server.port}")
    part.rename(address)
    await stop.wait()
    await server.stop(1.0)
    workers.close()
    explorer.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
