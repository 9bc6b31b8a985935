"""`python -m dataflows.remove <source>`: drop what a source created on its server.

A replication slot holds the server's log back until somebody reads it, so a source that is given up
has to be removed. Nothing else ever drops a slot or a publication. The source's stream stays.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from connectors.errors import ConfigError, WaxtapError
from dataflows import reporting
from dataflows.capture_source import connector
from dataflows.configuration.places import placing
from dataflows.spec import load


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status: 0, or 2 when nothing could be dropped."""
    parser = argparse.ArgumentParser(prog="python -m dataflows.remove", description=__doc__)
    parser.add_argument("source", help="the source's name in $WAXTAP_CONFIG (default waxtap.yaml)")
    name = parser.parse_args(arguments).source
    reporting.configure(os.environ)
    try:
        config = load(Path(os.environ.get("WAXTAP_CONFIG", "waxtap.yaml")), os.environ)
        if name not in config.sources:
            raise ConfigError(
                "config.unknown_source",
                f"there is no source {name!r}",
                where="sources",
                cure=f"known: {', '.join(config.sources)}",
            )
        source = config.sources[name]
        with placing(f"sources.{name}", type(source.spec).model_fields):
            dropped = connector(config.nats, source, source.accept).drop()
    except WaxtapError as error:
        reporting.report(error)
        return 2
    sys.stdout.write("".join(f"dropped {what}\n" for what in dropped) or "nothing to drop\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
