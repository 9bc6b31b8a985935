"""Command line: `python -m bench [--quick] [--only NAME ...]`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench import machine, report
from bench.fleet import fleet
from bench.settings import FULL, QUICK
from bench.suite import BENCHMARKS, Suite

_RESULT = Path(__file__).with_name("latest.json")


def main() -> int:
    """Measure, print the table, write `latest.json`; 1 when something that could run failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Waxtap.")
    parser.add_argument("--quick", action="store_true", help="smaller runs, some minutes")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=BENCHMARKS,
        default=BENCHMARKS,
        metavar="NAME",
        help="some of: " + ", ".join(BENCHMARKS),
    )
    arguments = parser.parse_args()
    settings = QUICK if arguments.quick else FULL
    started = time.monotonic()

    def tell(text: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {text}", file=sys.stderr, flush=True)

    with fleet() as servers:
        facts = machine.facts(servers, settings)
        suite = Suite(servers, settings, arguments.only, tell)
        suite.run()
    print(report.table(suite.samples, suite.skipped, facts))
    _RESULT.write_text(report.latest_json(suite.samples))
    tell(f"written: {_RESULT}")
    return 1 if suite.failed else 0


if __name__ == "__main__":
    sys.exit(main())
