"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import fcntl
import os
import random
import socket
from functools import cache
from pathlib import Path

# Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes the port of a
# server while it is down.
_RANGE = range(15000, 32000)
_TRIES = 200
_random = random.SystemRandom()
# A process may lock again what it has locked itself.
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now.

    It stays this process's own until the process ends, also while nobody listens on it: no other
    process of the same user is given it here, so that a server can be down for a while.

    Raises:
        OSError: No port was free.
    """
    reservations = _reservations()
    candidates = [port for port in _RANGE if port not in _given]
    for port in _random.sample(candidates, min(_TRIES, len(candidates))):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                fcntl.lockf(reservations, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            except OSError:
                continue
            _given.add(port)
            return port
    raise OSError("no free port on 127.0.0.1")


@cache
def _reservations() -> int:
    """A file of which each process locks the bytes at its ports; the kernel unlocks them."""
    # One place whatever TMPDIR says, since processes with another one share the ports.
    path = Path(f"/tmp/waxtap-ports-{os.geteuid()}")  # noqa: S108 - of this user alone, no link
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
