"""The Elasticsearch sink when its target is away, slow, busy, or answers half of what it should."""

from __future__ import annotations

import secrets
import threading
import time
from base64 import b64encode
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from connectors.errors import ConfigError, PermanentError, RetryableError
from control.servers.ports import free_port
from tests.integration.elasticsearch_documents import Place, batch
from tests.integration.http_faults import Fault, HttpFaults
from tests.integration.streams import until

if TYPE_CHECKING:
    from tests.servers.certificate import Certificate
    from tests.servers.elasticsearch import ElasticsearchFactory, ElasticsearchNode

pytestmark = pytest.mark.servers

BUSY = [Fault("status", 429), Fault("status", 503)]


@pytest.mark.parametrize(
    "faults",
    [
        BUSY * 2,
        [Fault("reset")] * 3,
        [Fault("lost")] * 3,
        [Fault("lost"), Fault("status", 429), Fault("reset"), Fault("lost"), Fault("status", 500)],
    ],
    ids=["busy", "reset", "answers lost", "all of it"],
)
def test_each_change_ends_as_it_should_whatever_a_bulk_meets(
    elasticsearch_node: ElasticsearchNode, faults: list[Fault]
) -> None:
    with HttpFaults(elasticsearch_node.url) as proxy, capture_logs() as logs:
        place = Place(elasticsearch_node, proxy.url)
        sink = place.sink()
        claim = sink.claim(place.share)
        with closing(sink.open(claim)) as writer:
            for round_ in range(6):
                if round_ == 2:
                    proxy.faults.extend(faults)
                rows = [place.change("u", {"id": n % 70, "a": f"{round_}"}) for n in range(100)]
                rows += [place.change("d", key={"id": n}) for n in range(round_)]
                writer.write(batch(claim, rows))
            writer.flush()
        assert not proxy.faults
    expected = {str(n): {"id": n, "a": "5"} for n in range(5, 70)}
    assert place.documents() == expected
    assert place.offset() == place.sequence
    told = [entry["event"] for entry in logs]
    # bulks side by side may be over their trouble one after the other
    assert told.count("target_is_in_trouble") == told.count("target_is_back") >= 1
    assert told.count("target_is_in_trouble") <= len(faults)


def test_trouble_is_told_once_with_its_cause(elasticsearch_node: ElasticsearchNode) -> None:
    with HttpFaults(elasticsearch_node.url) as proxy, capture_logs() as logs:
        place = Place(elasticsearch_node, proxy.url)
        proxy.faults.extend(BUSY * 3)
        place.deliver(place.change("c", {"id": 1, "a": "x"}))
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "target_is_in_trouble"),
        ("info", "target_is_back"),
    ]
    assert "status 429 as told" in logs[0]["reason"]
    assert logs[0]["sink"] == place.name
    assert logs[1]["attempts"] == 6


def test_a_slow_target_is_asked_again(elasticsearch_node: ElasticsearchNode) -> None:
    with HttpFaults(elasticsearch_node.url) as proxy:
        place = Place(elasticsearch_node, proxy.url)
        proxy.faults.append(Fault("silent"))
        place.deliver(place.change("c", {"id": 1, "a": "x"}), timeout="1s")
        assert place.documents() == {"1": {"id": 1, "a": "x"}}


def test_a_request_that_is_too_large_is_cut(elasticsearch_node: ElasticsearchNode) -> None:
    def limited(body: bytes) -> Fault | None:
        return Fault("status", 413) if len(body) > 20_000 else None

    with HttpFaults(elasticsearch_node.url, rule=limited) as proxy:
        place = Place(elasticsearch_node, proxy.url)
        place.deliver(*(place.change("c", {"id": n, "a": "x" * 300}) for n in range(400)))
        assert len(place.documents()) == 400
        assert proxy.met > 3
        too_large = [
            place.change("c", {"id": 401, "a": "x"}),
            place.change("c", {"id": 402, "a": "x" * 30_000}),
        ]
        with pytest.raises(PermanentError) as caught:
            place.deliver(*too_large)
    assert caught.value.sequence == 402
    assert len(place.documents()) == 401


def test_a_closed_index_is_waited_for(elasticsearch_node: ElasticsearchNode) -> None:
    place = Place(elasticsearch_node)
    place.deliver(place.change("c", {"id": 1, "a": "x"}))
    index = f"/{place.name}-items"
    assert elasticsearch_node.request("POST", f"{index}/_close")[0] == 200
    with capture_logs() as logs:
        done = threading.Thread(
            target=place.deliver, args=[place.change("u", {"id": 1, "a": "y"})], daemon=True
        )
        done.start()
        until(lambda: logs, patience=60)
        assert logs[0]["event"] == "target_is_in_trouble"
        assert "closed" in logs[0]["reason"]
        assert elasticsearch_node.request("POST", f"{index}/_open")[0] == 200
        done.join(60)
        assert not done.is_alive()
    assert place.documents() == {"1": {"id": 1, "a": "y"}}


@pytest.mark.parametrize("fault", [Fault("reset"), Fault("silent")], ids=["away", "silent"])
def test_a_flow_that_stops_does_not_wait_for_a_target_in_trouble(
    elasticsearch_node: ElasticsearchNode, fault: Fault
) -> None:
    with HttpFaults(elasticsearch_node.url, rule=lambda _body: fault) as proxy:
        place = Place(elasticsearch_node, proxy.url)
        sink = place.sink()
        claim = sink.claim(place.share)
        with closing(sink.open(claim)) as writer:
            writer.write(batch(claim, [place.change("c", {"id": 1, "a": "x"})]))
            until(lambda: proxy.met, patience=60)
            place.stop.set()
            began = time.monotonic()
            with pytest.raises(RetryableError) as caught:
                writer.flush()
            assert time.monotonic() - began < 15
        assert caught.value.code == "elasticsearch.interrupted"
    assert place.offset() == 0


def test_what_is_no_elasticsearch_is_told(elasticsearch_node: ElasticsearchNode) -> None:
    place = Place(elasticsearch_node, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RetryableError) as caught:
        place.sink().claim(place.share)
    assert caught.value.code == "elasticsearch.unreachable"


@pytest.mark.slow
def test_logins_rights_and_certificates(
    elasticsearch_factory: ElasticsearchFactory, certificate: Certificate
) -> None:
    """One node with security for all of it: it takes seconds to start."""
    name = f"t{secrets.token_hex(4)}"
    rights = ["create_index", "read", "index", "delete", "manage"]
    least: dict[str, object] = {"names": ["waxtap-offsets", f"{name}-*"], "privileges": rights}
    server = elasticsearch_factory(
        password="s3cret-word",
        users={"least": [least], "nobody": []},
        certificate=(certificate.certificate, certificate.key),
    )
    place = Place(server, name=name)
    known: dict[str, Any] = {
        "ca": str(certificate.certificate),
        "user": "waxtap",
        "password": "s3cret-word",
    }

    place.deliver(place.change("c", {"id": 1, "a": "x"}), compress=True, **known)
    assert place.documents() == {"1": {"id": 1, "a": "x"}}

    def refused(**settings: object) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            place.sink(**{**known, **settings}).claim(place.share)
        assert caught.value.cure
        assert "s3cret" not in str(caught.value)
        return caught.value

    assert refused(password="s3cret-other").code == "elasticsearch.login"
    assert refused(ca="").code == "elasticsearch.certificate"

    # the node cannot make API keys, for want of a module; it refuses one that it has not made
    key = b64encode(b"an-id:s3cret-key").decode()
    assert refused(user="", password="", api_key=key).code == "elasticsearch.login"
    assert refused(user="nobody").code == "elasticsearch.rights"

    place.deliver(place.change("c", {"id": 2, "a": "y"}), **{**known, "user": "least"})
    assert set(place.documents()) == {"1", "2"}
