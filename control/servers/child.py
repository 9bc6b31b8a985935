"""Becomes the server: run as a script, it gives up root, ties its life to its parent, and execs.

    python -IS child.py PARENT_PID SIGNAL UID GID COMMAND ARGUMENT...

The tie is `PR_SET_PDEATHSIG` (Linux, prctl(2)): the kernel sends SIGNAL when the parent ends in
whatever way. It is set after the change of user, which would clear it, and survives the exec. A
script of its own, because the same work in a `preexec_fn` is unsafe once the parent has threads.
UID and GID are -1 to keep the user.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Exec the command; never returns."""
    parent, death_signal, uid, gid = map(int, arguments[:4])
    command = arguments[4:]
    if uid != -1:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit("the parent ended before the server began")
    # Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606 - the point of this file


if __name__ == "__main__":
    main(sys.argv[1:])
