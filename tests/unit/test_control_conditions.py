"""What holds of a flow, from what it counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from control.metrics.scraping import Samples
from control.supervisor import conditions as holds
from control.supervisor import logs
from control.supervisor.observer import FlowObserver
from control.supervisor.records import State, Truth

if TYPE_CHECKING:
    from pathlib import Path

_T, _F, _U = Truth.TRUE, Truth.FALSE, Truth.UNKNOWN


def _samples(*texts: str) -> Samples:
    return Samples([text_string_to_metric_families(text) for text in texts])


def _statuses(flow: str, kind: str, *texts: str) -> dict[str, Truth]:
    found = holds.found(flow, kind, _samples(*texts), "connection refused")
    assert [one.type for one in found] == holds.types_of(flow, kind)
    assert all(one.message == "" for one in found if one.status is _T)
    return {one.type: one.status for one in found}


def test_nothing_is_kept_of_a_flow_that_is_no_more(tmp_path: Path) -> None:
    observer = FlowObserver(tmp_path)

    def since() -> float:
        return observer.conditions("deliver/w", State.PAUSED, None)[0].since

    first = since()
    assert since() == first
    observer.forget("deliver/w")
    assert since() > first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('waxtap_source_open{source="s"} 1\n', [_T, _T, _U, _T, _T]),
        ('waxtap_source_open{source="s"} 0\n', [_F, _F, _U, _F, _F]),
        ("", [_F, _F, _U, _F, _F]),
        (
            'waxtap_source_open{source="s"} 1\nwaxtap_source_in_trouble{source="s"} 1\n',
            [_F, _F, _U, _F, _T],
        ),
        (
            'waxtap_source_open{source="s"} 1\nwaxtap_stream_in_trouble{stream="CDC_s"} 1\n',
            [_T, _T, _U, _T, _F],
        ),
        (
            'waxtap_source_open{source="s"} 1\nwaxtap_source_log_endangered{source="s"} 0\n',
            [_T, _T, _T, _T, _T],
        ),
        (
            'waxtap_source_open{source="s"} 1\nwaxtap_source_log_endangered{source="s"} 1\n',
            [_T, _T, _F, _T, _T],
        ),
    ],
)
def test_a_capture(text: str, expected: list[Truth]) -> None:
    assert list(_statuses("capture/s", "postgres", text).values()) == expected
    without_slot = _statuses("capture/s", "rest", text)
    assert list(without_slot) == ["Reachable", "Capturing", "Publishing"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (['waxtap_delivery_open{sink="w",stream="CDC_a"} 1\n'], [_T, _T]),
        # Every share has to be read, in whichever process.
        (
            [
                'waxtap_delivery_open{sink="w",stream="CDC_a"} 1\n',
                'waxtap_delivery_open{sink="w",stream="CDC_b"} 0\n',
            ],
            [_U, _F],
        ),
        (
            [
                'waxtap_delivery_open{sink="w",stream="CDC_a"} 1\n'
                'waxtap_sink_in_trouble{sink="w",stream="CDC_a"} 1\n'
            ],
            [_F, _F],
        ),
        ([""], [_U, _F]),
    ],
)
def test_a_delivery(texts: list[str], expected: list[Truth]) -> None:
    assert list(_statuses("deliver/w", "webhook", *texts).values()) == expected


def test_a_condition_is_as_old_as_its_status() -> None:
    first = holds.since(holds.not_answering("deliver/w", "webhook"), (), 100.0)
    assert {one.since for one in first} == {100.0}
    running = holds.found(
        "deliver/w", "webhook", _samples('waxtap_delivery_open{sink="w",stream="a"} 1\n'), ""
    )
    second = holds.since(running, first, 200.0)
    third = holds.since(running, second, 300.0)
    assert {one.since for one in second} == {200.0}
    assert third == second
    stopped = holds.not_running("deliver/w", "webhook", "Paused", "it does not run")
    fourth = holds.since(stopped, third, 400.0)
    assert [(one.status, one.since, one.reason) for one in fourth] == [
        (_U, 400.0, "Paused"),
        (_F, 400.0, "Paused"),
    ]


def test_the_last_words_are_the_last_error_or_the_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert logs.last_error(log) == ""
    log.write_text("Traceback\nValueError: nonsense\n\n")
    assert logs.last_error(log) == "ValueError: nonsense"
    told = {"level": "error", "event": "gone", "code": "a.b", "where": "slot x", "cure": "make it"}
    log.write_text(f"thread panicked\n{json.dumps(told)}\nthread panicked again\n")
    assert logs.last_error(log) == "[a.b] slot x: gone → make it"


def test_the_last_words_of_a_run_are_none_of_an_earlier_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    refused = {"level": "error", "event": "gone", "timestamp": "2026-11-27T10:00:00Z"}
    began = {"level": "info", "event": "capturing", "timestamp": "2026-11-27T10:00:10Z"}
    log.write_text(f"{json.dumps(refused)}\n{json.dumps(began)}\n")
    second = datetime(2026, 11, 27, 10, 0, 5, tzinfo=UTC).timestamp()
    assert logs.last_error(log, second) == ""
    assert logs.last_error(log, second - 60) == "gone"
    with log.open("a") as more:
        more.write("Fatal Python error: Segmentation fault\n")
    assert logs.last_error(log, second) == "Fatal Python error: Segmentation fault"


def test_a_warning_of_an_earlier_run_is_no_trouble_of_this_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    told = {
        "level": "warning",
        "event": "capture cannot start yet, retrying",
        "reason": "refused",
        "timestamp": "2026-01-01T00:00:10Z",
    }
    log.write_text(json.dumps(told) + "\n" + json.dumps({"level": "info", "event": "x"}) + "\n")
    at = 1767225610.0
    assert logs.last_trouble(log, at - 1) == "capture cannot start yet, retrying: refused"
    assert logs.last_trouble(log, at + 1) == ""


def test_a_log_that_grows_is_kept_small_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert not logs.rotate(log, 100)
        writer.write(b"y")
        assert logs.rotate(log, 100)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "log.1").read_bytes() == b"x" * 100 + b"y"
