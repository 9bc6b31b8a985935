"""Stands in for a flow's process: notes that it has started, and lives until it is told to end.

What it does depends on its name: `…refuse…` exits with 2, `…crash…` with 1, `…stubborn…` does not
end when it is asked to.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time


def main() -> None:
    name = os.environ["WAXTAP_FLOW"]
    with open("starts", "a") as starts:  # noqa: PTH123 - no import more than needed
        starts.write(f"{os.getpid()}\n")
    if "refuse" in name or "crash" in name:
        words = {"level": "error", "event": "no such table", "code": "a.code", "where": "tables"}
        sys.stderr.write(json.dumps(words) + "\n")
        sys.exit(2 if "refuse" in name else 1)
    if "stubborn" in name:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
