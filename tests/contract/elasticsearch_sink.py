"""The Elasticsearch sink under the sink suite."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, ClassVar

from connectors import registry
from control.servers.ports import free_port
from tests.contract.context import sink_context
from tests.integration.tcp_relay import TcpRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connectors.contracts.sink import Sink
    from control.servers.elasticsearch import ElasticsearchServer


class ElasticsearchSinkAdapter:
    """A node without indices, and a relay before it."""

    transactional: ClassVar[bool] = False

    def __init__(self, server: ElasticsearchServer) -> None:
        self._server = server
        self._index = f"items-{secrets.token_hex(4)}"
        self._relay = TcpRelay(server.port)
        self._relay.__enter__()
        self._delete()

    def sink(self) -> Sink:
        return self._sink()

    def unreachable(self) -> Sink:
        address = f"http://127.0.0.1:{free_port()}"
        return self._sink(url=address, user="waxtap", password="s3cret-word")

    def misconfigured(self) -> Mapping[str, Callable[[], Sink]]:
        return {"waxtap-offsets": self._without_right}

    def refuse(self, value: str) -> None:
        """Refuses what is at least as long as `value`, and several words.

        The analyzer cuts it into pieces and joins these into a term that is longer than Lucene
        takes.
        """
        joined = {
            "tokenizer": {
                "pieces": {"type": "standard", "max_token_length": len(value) - 1},
            },
            "filter": {"joined": {"type": "shingle", "token_separator": "_" * 33000}},
            "analyzer": {
                "refusing": {"type": "custom", "tokenizer": "pieces", "filter": ["joined"]}
            },
        }
        refusing = {
            "type": "text",
            "fields": {"refusing": {"type": "text", "analyzer": "refusing"}},
        }
        if not self._exists():
            self._ask("PUT", f"/{self._index}", {"settings": {"number_of_replicas": 0}})
        self._ask("POST", f"/{self._index}/_close")
        self._ask("PUT", f"/{self._index}/_settings", {"analysis": joined})
        self._ask("POST", f"/{self._index}/_open")
        self._ask("PUT", f"/{self._index}/_mapping", {"properties": {"value": refusing}})
        self._ask("GET", f"/_cluster/health/{self._index}?wait_for_status=yellow")

    def rows(self) -> dict[int, str]:
        if not self._exists():
            return {}
        self._ask("POST", f"/{self._index}/_refresh")
        answer = self._ask("POST", f"/{self._index}/_search", {"size": 10000})
        sources = [hit["_source"] for hit in answer["hits"]["hits"]]
        found = {source["id"]: source["value"] for source in sources}
        assert len(found) == len(sources), "the target holds an id twice"
        return found

    def cut_connections(self) -> None:
        self._relay.cut()

    def kill_server(self) -> None:
        self._server.kill()

    def start_server(self) -> None:
        self._server.start()

    def close(self) -> None:
        if not self._server.running:
            self._server.start()
        self._delete()
        self._relay.__exit__(None, None, None)

    def _sink(self, **settings: object) -> Sink:
        spec = registry.sink_spec("elasticsearch").model_validate(
            {
                "type": "elasticsearch",
                "url": f"http://127.0.0.1:{self._relay.port}",
                "index": self._index,
                "settings": {"number_of_replicas": 0},
                **settings,
            }
        )
        return registry.sink("elasticsearch", "warehouse", spec, sink_context())

    def _without_right(self) -> Sink:
        self._ask(
            "PUT",
            "/_cluster/settings",
            {"persistent": {"cluster.blocks.read_only": True}},
        )
        return self._sink()

    def _delete(self) -> None:
        self._ask(
            "PUT",
            "/_cluster/settings",
            {"persistent": {"cluster.blocks.read_only": None}},
        )
        for index in (self._index, "waxtap-offsets"):
            self._server.request("DELETE", f"/{index}?ignore_unavailable=true")

    def _exists(self) -> bool:
        return self._server.request("GET", f"/{self._index}/_mapping")[0] == 200

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        status, answer = self._server.request(method, path, body)
        assert status < 300, answer
        return answer
