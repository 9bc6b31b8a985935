"""What sources that go have made: their objects on servers, and their streams. Blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

from connectors.errors import ConfigError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.stream import stream_name
from control.pb.cdc.v1 import cdc_pb2
from control.specs.connecting import source_of
from control.specs.document import Disposal
from control.specs.kinds import entries
from dataflows.spec import part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.jetstream.spec import NatsSpec
    from control.specs.document import Tree

# How what a source makes is called where its settings cannot be resolved any more.
_SOMETHING = ["what it has made there"]


class Dropped(NamedTuple):
    """Whether a source's objects on its server go with it, and its stream."""

    server_objects: bool
    stream: bool


@dataclass(frozen=True)
class LeftBehind:
    """Finds what stays of sources.

    Args:
        nats: Where their streams are.
        environment: Where references are looked up.
    """

    nats: NatsSpec
    environment: Mapping[str, str]

    def gone(self, before: Tree, after: Tree) -> dict[str, object]:
        """The settings of the sources that a configuration does not have any more, by name."""
        known, kept = entries(before, "sources"), entries(after, "sources")
        return {name: entry for name, entry in known.items() if name not in kept}

    def tell(
        self, gone: Mapping[str, object], dropped: Dropped, cure: str
    ) -> list[cdc_pb2.LeftBehind]:
        """What stays of sources that go.

        Args:
            gone: Their settings, by name.
            dropped: What does not stay.
            cure: How it can be dropped; `{name}` stands for the source's name.

        Raises:
            RetryableError: NATS does not answer.
        """
        found = []
        for name, entry in sorted(gone.items()):
            objects = [] if dropped.server_objects else self._objects(name, entry)
            stream = "" if dropped.stream or not self._created(name) else stream_name(name)
            if objects or stream:
                found.append(
                    cdc_pb2.LeftBehind(
                        name=f"sources/{name}",
                        server_objects=objects,
                        stream=stream,
                        cure=cure.format(name=name),
                    )
                )
        return found

    def disposals(self, gone: Mapping[str, object], dropped: Dropped) -> dict[str, Disposal]:
        """What is to be removed of sources that go, by name.

        Raises:
            RetryableError: NATS does not answer.
        """
        if not (dropped.server_objects or dropped.stream):
            return {}
        return {
            name: self.disposal(name, cast("dict[str, object]", entry), dropped)
            for name, entry in gone.items()
        }

    def disposal(self, name: str, entry: dict[str, object], dropped: Dropped) -> Disposal:
        """What is to be removed of one source with these settings. Raises RetryableError."""
        created = self._created(name) if dropped.stream else ""
        return Disposal(entry, dropped.server_objects, dropped.stream, created)

    def _objects(self, name: str, entry: object) -> list[str]:
        try:
            config = part({"sources": {name: entry}}, self.environment, self.nats).sources[name]
            return source_of(config, self.nats).owned()
        except ConfigError:
            return _SOMETHING

    def _created(self, name: str) -> str:
        """When a source's stream was made; empty: there is none."""
        with connect(self.nats) as connection:
            info = api.stream_info(connection, stream_name(name))
        return info.created if info else ""
