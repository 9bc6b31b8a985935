"""The configuration of NATS."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from connectors.jetstream.spec import NatsSpec


def test_one_url_or_several() -> None:
    assert NatsSpec.model_validate({"url": "nats://a:4222"}).url == ("nats://a:4222",)
    assert NatsSpec.model_validate({"url": ["nats://a", "tls://b"]}).url == ("nats://a", "tls://b")


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        (90, timedelta(seconds=90)),
        ("90", timedelta(seconds=90)),
        ("36h", timedelta(hours=36)),
        ("7d", timedelta(days=7)),
        ("1.5 m", timedelta(seconds=90)),
        (0, timedelta()),
    ],
)
def test_durations(text: object, duration: timedelta) -> None:
    assert NatsSpec.model_validate({"stream": {"max_age": text}}).stream.max_age == duration


@pytest.mark.parametrize(
    ("text", "size"), [(5, 5), ("10GB", 10**10), ("512MiB", 2**29), ("1.5kb", 1500), ("7", 7)]
)
def test_sizes(text: object, size: int) -> None:
    assert NatsSpec.model_validate({"stream": {"max_bytes": text}}).stream.max_bytes == size


@pytest.mark.parametrize(
    "wrong",
    [
        {"urls": "nats://a"},
        {"url": []},
        {"url": "http://a"},
        {"url": "nats://user:secret@a"},
        {"user": "u", "token": "t"},
        {"tls": {"cert": "c.pem"}},
        {"inbox_prefix": "a b"},
        {"stream": {"max_age": "soon"}},
        {"stream": {"max_age": -1}},
        {"stream": {"max_age": True}},
        {"stream": {"max_bytes": "10 apples"}},
        {"stream": {"storage": "tape"}},
        {"stream": {"replicas": 0}},
    ],
)
def test_what_is_wrong_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NatsSpec.model_validate(wrong)


def test_secrets_are_not_shown() -> None:
    spec = NatsSpec.model_validate({"user": "u", "password": "very-secret"})
    assert "very-secret" not in f"{spec!r} {spec} {spec.shown}"


def test_equal_configurations_share_a_connection() -> None:
    one = NatsSpec.model_validate({"url": "nats://a", "password": "p", "user": "u"})
    two = NatsSpec.model_validate({"url": "nats://a", "password": "p", "user": "u"})
    assert one == two
    assert hash(one) == hash(two)
