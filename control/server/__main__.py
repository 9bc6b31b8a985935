"""`python -m control.server`, the same as `waxtap serve`."""

from __future__ import annotations

import sys

from control.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["serve", *sys.argv[1:]]))
