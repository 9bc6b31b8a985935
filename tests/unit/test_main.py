"""What is wrong is said before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from connectors.errors import ConfigError
from dataflows.main import build
from dataflows.spec import parse

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.parametrize(
    ("sink", "code"),
    [
        ({"type": "webhook", "url": "https://x.example", "tls": {"ca": "{}"}}, "webhook.tls"),
        (
            {"type": "elasticsearch", "url": "https://x.example:9200", "ca": "{}"},
            "elasticsearch.ca",
        ),
    ],
)
def test_a_certificate_that_cannot_be_read_is_told_before_anything_runs(
    sink: dict[str, object], code: str, tmp_path: Path
) -> None:
    missing = str(tmp_path / "none.pem")
    sink = {
        name: {"ca": missing} if name == "tls" else missing if name == "ca" else value
        for name, value in sink.items()
    }
    tree = {
        "nats": {},
        "sources": {"shop": {"type": "postgres", "dsn": _GOOD}},
        "sinks": {"out": {**sink, "topics": ["*"]}},
    }
    with pytest.raises(ConfigError) as caught:
        build(parse(tree, {}), "deliver/out")
    assert caught.value.code == code
    assert caught.value.where.startswith("sinks.out")


def test_a_flow_that_does_not_exist_is_answered_with_those_that_do() -> None:
    tree = {
        "nats": {},
        "sources": {"shop": {"type": "postgres", "dsn": _GOOD}},
    }
    with pytest.raises(ConfigError) as caught:
        build(parse(tree, {}), "capture/shopp")
    assert "capture/shop" in caught.value.cure


def test_a_missing_extra_is_named() -> None:
    # In a process of its own: modules that are imported a second time are others than the first.
    program = """
import sys
sys.modules["httpcore"] = None
from dataflows.main import build
from dataflows.spec import parse
source = {"type": "postgres", "dsn": "host=h dbname=d"}
sink = {"type": "webhook", "url": "https://x.example", "topics": ["*"]}
tree = {"nats": {}, "sources": {"shop": source}, "sinks": {"hook": sink}}
try:
    build(parse(tree, {}), "deliver/hook")
except Exception as error:
    print(error.code, error)
"""
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith("config.extra_missing ")
    assert "waxtap[webhook]" in printed


_IMPORTED = """
import json, sys
from dataflows.main import build
from dataflows.spec import parse
build(parse(json.loads(sys.argv[1]), {}), sys.argv[2])
print(*sys.modules)
"""


def _imported_by(flow: str, **pipeline: object) -> list[str]:
    """The modules of a process that has built a flow of its own."""
    tree = {
        "nats": {},
        "sources": {"shop": {"type": "postgres", "dsn": _GOOD}},
        "pipelines": {"users": pipeline},
        "sinks": {"out": {"type": "postgres", "dsn": _GOOD, "topics": ["*"]}},
    }
    command = [sys.executable, "-c", _IMPORTED, json.dumps(tree), flow]
    done = subprocess.run(command, text=True, check=True, stdout=subprocess.PIPE)
    return done.stdout.split()


@pytest.mark.parametrize("flow", ["capture/shop", "deliver/out"])
def test_a_flow_without_expressions_does_not_pay_for_them(flow: str) -> None:
    modules = _imported_by(flow, transform=[{"rename": {"fields": {"a": "b"}}}])
    assert "dataflows.expressions" in modules
    assert not [name for name in modules if name.startswith("cel_expr_python")]


def test_a_filter_brings_its_library() -> None:
    assert "cel_expr_python.cel" in _imported_by("capture/shop", filter="op != 'd'")


def test_a_flow_imports_its_own_kind_alone() -> None:
    capture, deliver = _imported_by("capture/shop"), _imported_by("deliver/out")
    assert "dataflows.capture" in capture
    assert "dataflows.deliver" not in capture
    assert "dataflows.deliver" in deliver
    assert "dataflows.capture" not in deliver
