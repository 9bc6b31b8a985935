"""The parts of the webhook sink that do no I/O: signatures, addresses, answers, configuration."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from standardwebhooks import Webhook

from connectors.webhook.addresses import refusal
from connectors.webhook.answers import LONGEST_PAUSE, Meaning, retry_after, understand
from connectors.webhook.signatures import key_of, signature
from connectors.webhook.spec import SinkSpec

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def spec(**settings: object) -> SinkSpec:
    tree = {"type": "webhook", "url": "https://hooks.example.com/in?token=s3cret", **settings}
    return SinkSpec.model_validate(tree)


def test_the_public_vector_of_standard_webhooks() -> None:
    signed = signature(
        [key_of(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.text(), st.sampled_from([SECRET, OTHER]))
def test_the_reference_library_verifies_each_active_secret(body: str, secret: str) -> None:
    now = int(datetime.now(UTC).timestamp())
    data = body.encode("utf-8", "replace")
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signature([key_of(SECRET), key_of(OTHER)], "msg_1", now, data),
    }
    Webhook(secret).verify(data, headers, json_parse=False)


@pytest.mark.parametrize(
    "secret",
    [
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_%%%",
        SECRET + "A" * 99,
    ],
)
def test_a_malformed_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(secrets=[secret])
    for error in caught.value.errors(include_input=False):
        assert secret not in error["msg"] or secret == "whsec_"


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("::ffff:a9fe:a9fe", "link-local"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "unspecified"),  # noqa: S104 - not to be bound
        ("::", "unspecified"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("100.100.100.200", "private"),
        ("192.0.0.192", "private"),
        ("168.63.129.16", "private"),
        ("198.18.0.1", "private"),
        ("240.0.0.1", "private"),
        ("255.255.255.255", "private"),
        ("fd00:ec2::254", "private"),
        ("fec0::1", "private"),
        ("::127.0.0.1", "private"),
        ("64:ff9b:1::a9fe:a9fe", "private"),
        ("::ffff:10.0.0.1", "private"),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str, kind: str) -> None:
    assert kind in refusal(address, allow=False)
    assert kind in refusal(address, allow=())
    assert refusal(address, allow=True) == ""


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert refusal(address, allow=False) == ""


def test_a_network_that_is_allowed_allows_nothing_else() -> None:
    allow = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::7", "8.8.8.8"):
        assert refusal(address, allow) == ""
    for address in ("10.2.0.1", "127.0.0.1", "169.254.169.254", "fe80::1"):
        assert refusal(address, allow)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        *((status, Meaning.DONE) for status in (200, 201, 202, 204, 299)),
        *((status, Meaning.AGAIN) for status in (101, 408, 429, 500, 502, 503, 504, 599)),
        *((status, Meaning.REFUSED) for status in (400, 403, 404, 409, 413, 422, 451, 499)),
        *((status, Meaning.ELSEWHERE) for status in (300, 301, 302, 303, 304, 307, 308)),
        *((status, Meaning.STRANGER) for status in (401, 407)),
        (410, Meaning.GONE),
    ],
)
def test_what_a_status_means(status: int, meaning: Meaning) -> None:
    assert understand(status, {}, b"", NOW).meaning is meaning


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "99999999999999"}, LONGEST_PAUSE),
        ({"retry-after": "Tue, 24 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Tuesday, 24-Nov-26 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Tue Nov 24 12:00:30 2026"}, 30.0),
        ({"retry-after": "Tue, 24 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 2099 23:59:59 GMT"}, LONGEST_PAUSE),
        # the endpoint's own clock counts
        (
            {
                "retry-after": "Tue, 24 Nov 2026 10:00:10 GMT",
                "date": "Tue, 24 Nov 2026 10:00:00 GMT",
            },
            10.0,
        ),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "Tue, 24 Foo 2026 99:00:30 GMT"}, None),
        ({"retry-after": "Tue, 24 Nov 99999999999 12:00:30 GMT"}, None),
        (
            {
                "retry-after": "Tue, 24 Nov 2026 12:00:30 GMT",
                "date": "Tue, 24 Nov 99999999999 12:00:00 GMT",
            },
            30.0,
        ),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.text(), st.text())
def test_no_header_breaks_retry_after(text: str, date: str) -> None:
    found = retry_after({"retry-after": text, "date": date}, NOW)
    assert found is None or 0 <= found <= LONGEST_PAUSE


def test_only_429_and_503_may_ask_for_a_pause() -> None:
    pauses = {s: understand(s, {"retry-after": "7"}, b"", NOW).pause for s in (429, 503, 500, 408)}
    assert pauses == {429: 7.0, 503: 7.0, 500: None, 408: None}


def test_an_excerpt_is_short_and_on_one_line() -> None:
    answer = understand(422, {}, b"no\x00\r\nsuch   thing\x1b[31m" + b"x" * 999, NOW)
    assert answer.excerpt.startswith("no such thing [31mx")
    assert len(answer.excerpt) == 200
    assert understand(422, {"content-encoding": "gzip"}, b"\x1f\x8b", NOW).excerpt == ""


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"url": "http://hooks.example.com/"}, "allow_http"),
        ({"url": "ftp://hooks.example.com/"}, "https"),
        ({"url": "https:///path"}, "https"),
        ({"url": "https://user:pw@hooks.example.com/"}, "auth"),
        ({"url": "https://hooks.example.com/a b"}, "ASCII"),
        ({"url": "https://hooks.example.com/\r\nX: y"}, "ASCII"),
        ({"url": "https://hooks.example.com:99999/"}, "not a URL"),
        ({"headers": {"Webhook-Id": "x"}}, "itself"),
        ({"headers": {"Content-Length": "1"}}, "itself"),
        ({"headers": {"X Y": "1"}}, "no name"),
        ({"headers": {"X": "a\r\nY: b"}}, "one line"),
        ({"headers": {"X": "1", "x": "2"}}, "twice"),
        ({"headers": {"Authorization": "x"}, "auth": {"bearer": "y"}}, "either"),
        ({"auth": {"bearer": "x", "user": "y"}}, "either"),
        ({"auth": {}}, "either"),
        ({"auth": {"user": "a:b", "password": "c"}}, "colon"),
        ({"tls": {"cert": "x.pem"}}, "belong together"),
        ({"allow_private": ["10.1.2.3/8"]}, "network"),
        ({"allow_private": "yes"}, "network"),
        ({"parallelism": 0}, "greater"),
        ({"max_body": "1"}, "greater"),
        ({"timeout": 0}, "greater"),
        ({"verify": False}, "Extra"),
    ],
)
def test_what_the_configuration_refuses(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**settings)
    told = " ".join(error["msg"] for error in caught.value.errors(include_input=False))
    assert word in told
    assert "s3cret" not in told


def test_secrets_are_not_shown() -> None:
    made = spec(secrets=[SECRET], auth={"bearer": "s3cret-1"}, headers={"X-Key": "s3cret-2"})
    shown = f"{made!r} {made} {made.model_dump_json()}"
    assert "s3cret" not in shown
    assert SECRET not in shown
    assert made.shown == "https://hooks.example.com"


def test_networks_and_durations_are_read() -> None:
    made = spec(allow_private=["10.1.0.0/16", "fd00::/8"], timeout="90s", max_body="2MiB")
    assert made.allow_private == (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    assert made.timeout.total_seconds() == 90
    assert made.max_body == 2 * 1024 * 1024
    assert spec(allow_private=True).allow_private is True
