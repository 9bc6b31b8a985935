"""Run as a process: print `open`, then the id of each row that a source captures.

Arguments: the source's name, how many rows. The DSN comes from the environment.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing

from tests.integration.postgres_capture import ids, make_source


def main() -> None:
    name, count = sys.argv[1], int(sys.argv[2])
    with closing(make_source(os.environ["DSN"], name).open(None)) as reader:
        print("open", flush=True)
        while count:
            chunk = reader.read()
            if chunk is None:
                continue
            for number in ids(chunk.changes):
                print(number, flush=True)
            count -= len(chunk.changes)


if __name__ == "__main__":
    main()
