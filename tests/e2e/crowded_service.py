"""The control service with processes that only sleep in place of flows."""

from __future__ import annotations

import sys
from functools import partial
from unittest.mock import patch

from control.cli.app import run
from control.supervisor.group import Launcher

_SLEEPER = ("/bin/sh", "-c", "exec sleep 100000", "flow")

if __name__ == "__main__":
    with patch("control.server.serving.Launcher", partial(Launcher, command=_SLEEPER)):
        sys.exit(run(["serve", *sys.argv[1:]]))
