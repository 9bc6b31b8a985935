"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket

# Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes the port of a
# server while it is down.
_RANGE = range(15000, 32000)
_random = random.SystemRandom()
# Whoever was given one may not listen on it yet.
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now; never the same one twice in a process.

    The caller copes with another process that takes it first.

    Raises:
        OSError: No port was free.
    """
    for port in _random.sample([port for port in _RANGE if port not in _given], 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise OSError("no free port on 127.0.0.1")
