"""A target in trouble is told of once, and the metric tells it all the time."""

from __future__ import annotations

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from connectors.contracts.sink import Share
from connectors.trouble import Trouble

SHARE = Share("search", "CDC_trouble", "", ("CDC.trouble.>",))


def metric() -> float | None:
    labels = {"sink": SHARE.sink, "stream": SHARE.stream}
    return REGISTRY.get_sample_value("waxtap_sink_in_trouble", labels)


def test_one_line_each_whatever_fails_and_however_often() -> None:
    with capture_logs() as logs:
        trouble = Trouble(SHARE, "test")
        assert metric() == 0
        for who in ("one", "two", "one"):
            trouble.failed(who, "connection refused")
            assert metric() == 1
        assert trouble.over("one")
        assert metric() == 1
        assert trouble.over("two")
        assert not trouble.over("two")
    assert metric() == 0
    assert [(line["event"], line.get("reason")) for line in logs] == [
        ("target_is_in_trouble", "connection refused"),
        ("target_is_back", None),
    ]
    assert logs[1]["attempts"] == 3
    assert logs[0]["sink"] == "search"


def test_who_gives_up_is_in_no_trouble_any_more() -> None:
    trouble = Trouble(SHARE, "test")
    trouble.failed("one", "busy")
    trouble.dropped("one")
    assert metric() == 0
