"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket

# Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes the port of a
# server while it is down.
_RANGE = range(15000, 32000)
_random = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now; the caller copes with losing the race.

    Raises:
        OSError: No port was free.
    """
    for port in _random.sample(_RANGE, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port on 127.0.0.1")
