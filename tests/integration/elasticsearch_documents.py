"""Changes and documents for the tests of the Elasticsearch sink."""

from __future__ import annotations

import secrets
import threading
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from connectors.contracts.changes import UNAVAILABLE, Column, Delivered, TableSchema
from connectors.contracts.sink import Batch, Claim, Share
from connectors.elasticsearch.sink import ElasticsearchSink
from connectors.elasticsearch.spec import SinkSpec
from tests.contract.context import sink_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.servers.elasticsearch import ElasticsearchNode

ID = Column("id", "bigint", "number")
CREATED = "2026-01-02T03:04:05Z"


def shape(name: str, *columns: Column, key: tuple[str, ...] = ("id",)) -> TableSchema:
    return TableSchema("shop", "public", name, columns, key)


ITEMS = shape("items", ID, Column("a", "text"), Column("b", "text"))


@dataclass
class Place:
    """A stream and indices of names of one's own on a node.

    Attributes:
        node: Where.
        url: Where the sink connects; the node's own, or a proxy's.
        name: The sink's, and what indices and streams are named by.
    """

    node: ElasticsearchNode
    url: str = ""
    name: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    stop: threading.Event = field(default_factory=threading.Event)
    sequence: int = 0

    @property
    def share(self) -> Share:
        return Share(self.name, f"CDC_{self.name}", CREATED, (f"CDC.{self.name}.db.items.0",))

    def sink(self, **settings: object) -> ElasticsearchSink:
        given = {
            "type": "elasticsearch",
            "url": self.url or self.node.url,
            "index": f"{self.name}-{{table}}",
            "settings": {"number_of_replicas": 0},
            **settings,
        }
        return ElasticsearchSink(self.name, SinkSpec.model_validate(given), sink_context(self.stop))

    def change(
        self,
        op: str,
        row: dict[str, Any] | bytes | None = None,
        *,
        table: TableSchema = ITEMS,
        key: dict[str, Any] | None = None,
        before: dict[str, Any] | None = None,
        missing: tuple[str, ...] = (),
        ts_ms: int | None = None,
    ) -> Delivered:
        """The next change; `key` is taken from the row unless it is given."""
        self.sequence += 1
        after: object = msgspec.Raw(row) if isinstance(row, bytes) else row
        if isinstance(row, dict):
            after = {**row, **dict.fromkeys(missing, UNAVAILABLE)}
            key = key or {name: row[name] for name in table.key} or None
        envelope = {
            "before": before,
            "after": after,
            "source": {"name": "shop", "schema": table.schema, "table": table.name},
            "op": op,
            "ts_ms": self.sequence if ts_ms is None else ts_ms,
            "transaction": None,
        }
        return Delivered(
            sequence=self.sequence,
            subject=self.share.subjects[0],
            position=f"{self.sequence:016X}",
            key=msgspec.json.encode(key).decode() if key else None,
            table=table,
            transaction="",
            last=True,
            envelope=msgspec.json.encode(envelope),
            unavailable=missing,
        )

    def deliver(self, *changes: Delivered, claim: Claim | None = None, **settings: object) -> None:
        """Write the changes as one batch behind a new claim, and flush."""
        sink = self.sink(**settings)
        claim = claim or sink.claim(self.share)
        with closing(sink.open(claim)) as writer:
            writer.write(batch(claim, changes))
            writer.flush()

    def documents(self, table: str = "items") -> dict[str, dict[str, Any]]:
        """Every document of a table's index by its id."""
        index = f"{self.name}-{table}"
        status, answer = self.node.request("POST", f"/{index}/_refresh")
        if status == 404:
            return {}
        assert status == 200, answer
        status, answer = self.node.request("POST", f"/{index}/_search", {"size": 10000})
        assert status == 200, answer
        return {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}

    def version(self, id_: str, table: str = "items") -> int:
        path = f"/{self.name}-{table}/_doc/{quote(id_, safe='')}"
        status, answer = self.node.request("GET", path)
        assert status == 200, answer
        return int(answer["_version"])

    def offset(self) -> int:
        return self.sink(url=self.node.url).claim(self.share).offsets[self.share.subjects[0]]


def batch(claim: Claim, changes: Sequence[Delivered]) -> Batch:
    return Batch(claim, list(changes), changes[-1].sequence)
