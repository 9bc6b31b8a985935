"""What is wrong is said before anything starts."""

from __future__ import annotations

import sys

import pytest

from connectors.errors import ConfigError
from dataflows.main import build
from dataflows.spec import parse

_GOOD = "host=h dbname=d password=s3cret-word"


@pytest.mark.parametrize("bad", ["nonsense s3cret-word", "pasword=s3cret-word", "host"])
@pytest.mark.parametrize(
    ("place", "flow"), [("sources.shop.dsn", "capture/shop"), ("sinks.out.dsn", "deliver/out")]
)
def test_a_malformed_dsn_is_named_and_not_shown(bad: str, place: str, flow: str) -> None:
    dsn = {"sources.shop.dsn": _GOOD, "sinks.out.dsn": _GOOD} | {place: bad}
    config = parse(
        {
            "nats": {"url": "nats://127.0.0.1:4222"},
            "sources": {"shop": {"type": "postgres", "dsn": dsn["sources.shop.dsn"]}},
            "sinks": {
                "out": {"type": "postgres", "dsn": dsn["sinks.out.dsn"], "topics": ["*"]},
            },
        },
        {},
    )
    with pytest.raises(ConfigError) as caught:
        build(config, flow)
    assert (caught.value.code, caught.value.where) == ("postgres.dsn", place)
    assert "s3cret-word" not in str(caught.value)


def test_a_flow_that_does_not_exist_is_answered_with_those_that_do() -> None:
    tree = {
        "nats": {},
        "sources": {"shop": {"type": "postgres", "dsn": _GOOD}},
    }
    with pytest.raises(ConfigError) as caught:
        build(parse(tree, {}), "capture/shopp")
    assert "capture/shop" in caught.value.cure


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("connectors.webhook")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpcore", None)
    tree = {
        "nats": {},
        "sources": {"shop": {"type": "postgres", "dsn": _GOOD}},
        "sinks": {"hook": {"type": "webhook", "url": "https://x.example", "topics": ["*"]}},
    }
    with pytest.raises(ConfigError) as caught:
        build(parse(tree, {}), "deliver/hook")
    assert caught.value.code == "config.extra_missing"
    assert "waxtap[webhook]" in caught.value.cure
