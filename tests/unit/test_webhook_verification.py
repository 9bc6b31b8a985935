"""Who is believed, and who is not."""

from __future__ import annotations

import hmac
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from connectors.webhook.signatures import key_of, signature
from connectors.webhook.verification import (
    BearerToken,
    GithubSignature,
    StandardWebhooks,
    StripeSignature,
)

OLD, NEW = ("whsec_" + b64encode(bytes([n]) * 32).decode() for n in (1, 2))
NOW = 1_700_000_000
BODY = b'{"id":1}'


def standard(*secrets: str, body: bytes = BODY, at: int = NOW) -> dict[str, str]:
    keys = [key_of(secret) for secret in secrets]
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(at),
        "webhook-signature": signature(keys, "msg_1", at, body),
    }


def test_standard_webhooks_accepts_any_active_secret_among_any_signatures() -> None:
    both = StandardWebhooks([key_of(OLD), key_of(NEW)], 300)
    only = StandardWebhooks([key_of(NEW)], 300)
    assert not both.refusal(standard(OLD), BODY, NOW)
    assert not both.refusal(standard(NEW), BODY, NOW)
    assert not only.refusal(standard(OLD, NEW), BODY, NOW)
    assert only.refusal(standard(OLD), BODY, NOW)


def test_the_reference_library_signs_what_is_believed() -> None:
    from datetime import UTC, datetime

    signed = Webhook(OLD).sign("msg_1", datetime.fromtimestamp(NOW, UTC), BODY.decode())
    headers = standard(NEW) | {"webhook-signature": signed}
    assert not StandardWebhooks([key_of(OLD)], 300).refusal(headers, BODY, NOW)


@pytest.mark.parametrize("shift", [-301, 301, -100_000])
def test_a_stale_or_future_timestamp_is_refused_although_it_is_signed(shift: int) -> None:
    judge = StandardWebhooks([key_of(OLD)], 300)
    assert "timestamp" in judge.refusal(standard(OLD, at=NOW + shift), BODY, NOW)
    assert not judge.refusal(standard(OLD, at=NOW + shift), BODY, NOW + shift)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(missing: str) -> None:
    headers = standard(OLD)
    del headers[missing]
    assert "missing" in StandardWebhooks([key_of(OLD)], 300).refusal(headers, BODY, NOW)


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(NOW + 1)},
        {"webhook-timestamp": "１７"},
        {"webhook-timestamp": "1e9"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,not base64 ü"},
        {"webhook-signature": "v2," + "A" * 44},
        {"webhook-signature": "," * 100_000},
    ],
)
def test_whatever_was_changed_is_refused(changed: dict[str, str]) -> None:
    assert StandardWebhooks([key_of(OLD)], 300).refusal(standard(OLD) | changed, BODY, NOW)


@given(st.text(alphabet=st.characters(codec="latin-1")), st.binary())
def test_nothing_but_a_signature_is_believed(text: str, body: bytes) -> None:
    names = ("webhook-signature", "x-hub-signature-256", "stripe-signature", "authorization")
    headers = standard(OLD, body=b"another") | dict.fromkeys(names, text)
    for judge in (
        StandardWebhooks([key_of(OLD)], 300),
        GithubSignature([b"secret"]),
        StripeSignature([b"secret"], 300),
        BearerToken([b"a-token-that-is-not-guessed"]),
    ):
        assert judge.refusal(headers, body, NOW)


def test_github_signs_the_body_alone() -> None:
    judge = GithubSignature([b"first", b"It's a Secret to Everybody"])
    # The example of GitHub's documentation.
    given_ = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert not judge.refusal({"x-hub-signature-256": given_}, b"Hello, World!", NOW)
    assert judge.refusal({"x-hub-signature-256": given_}, b"Hello, World?", NOW)
    assert judge.refusal({"x-hub-signature-256": given_.replace("sha256", "sha1")}, b"", NOW)
    assert judge.refusal({}, b"Hello, World!", NOW)


def test_stripe_signs_time_and_body_with_the_secret_as_it_stands() -> None:
    judge = StripeSignature([b"whsec_old", b"whsec_new"], 300)
    good = hmac.digest(b"whsec_new", b"%d.%b" % (NOW, BODY), "sha256").hex()
    wrong = "00" * 32
    for text in (f"t={NOW},v1={good}", f"t={NOW}, v0={wrong}, v1={wrong},v1={good}"):
        assert not judge.refusal({"stripe-signature": text}, BODY, NOW)
    for text in (
        f"t={NOW},v1={wrong}",
        f"t={NOW},v0={good}",
        f"v1={good}",
        f"t={NOW + 1},v1={good}",
        "",
    ):
        assert judge.refusal({"stripe-signature": text}, BODY, NOW)
    assert "timestamp" in judge.refusal({"stripe-signature": f"t={NOW},v1={good}"}, BODY, NOW + 301)


def test_a_token_from_a_file_ends_with_a_line() -> None:
    judge = BearerToken([b"one\n"])
    assert not judge.refusal({"authorization": "Bearer one"}, b"", 0)
    assert judge.refusal({"authorization": "Bearer on"}, b"", 0)


def test_a_bearer_token_is_one_of_those_that_are_good() -> None:
    judge = BearerToken([b"one", b"two"])
    assert not judge.refusal({"authorization": "Bearer two"}, b"", NOW)
    assert not judge.refusal({"authorization": "bearer one"}, b"", NOW)
    for text in ("Bearer three", "Bearer ", "Basic one", "one", ""):
        assert judge.refusal({"authorization": text}, b"", NOW)
