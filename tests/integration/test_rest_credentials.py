"""The REST source against a real HTTP server: who it is, and whom it believes."""

from __future__ import annotations

import base64
import ssl
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from connectors.errors import ConfigError, RetryableError
from tests.integration.rest_api import ListApi, Polled, ok
from tests.servers.receiver import Reply, Request

if TYPE_CHECKING:
    from tests.servers.certificate import Certificate

pytestmark = pytest.mark.servers


def test_credentials_are_sent(api: ListApi, polled: Polled) -> None:
    api.put(1)
    basic = base64.b64encode(b"u:p").decode()
    cases: list[tuple[dict[str, str], str, str]] = [
        ({"type": "bearer", "token": "t"}, "authorization", "Bearer t"),
        ({"type": "basic", "user": "u", "password": "p"}, "authorization", f"Basic {basic}"),
        ({"type": "api_key", "key": "k", "header": "x-key"}, "x-key", "k"),
    ]
    for auth, header, value in cases:
        polled.settings = {"auth": auth}
        polled.state.files.clear()
        with closing(polled.source().open(None)):
            assert api.requests[-1].headers[header] == value
    polled.state.files.clear()
    polled.settings = {"auth": {"type": "api_key", "key": "k", "query": "key"}, "query": {"a": "b"}}
    with closing(polled.source().open(None)):
        assert parse_qs(urlsplit(api.requests[-1].target).query) == {"key": ["k"], "a": ["b"]}


def test_a_token_is_fetched_and_renewed(api: ListApi) -> None:
    api.put(1)
    tokens: list[str] = []

    def answer(request: Request) -> Reply:
        if request.target == "/token":
            fields = parse_qs(request.body.decode())
            assert fields == {"grant_type": ["client_credentials"], "scope": ["read"]}
            assert request.headers["authorization"].startswith("Basic ")
            tokens.append(f"token-{len(tokens)}")
            return ok({"access_token": tokens[-1], "token_type": "Bearer", "expires_in": 3600})
        if request.headers["authorization"] != f"Bearer {tokens[-1]}" or request.target == "/no":
            return Reply(401)
        return api(request)

    polled = Polled(answer)
    with closing(polled):
        url = f"http://127.0.0.1:{polled.receiver.port}/token"
        auth = {"type": "oauth2", "token_url": url, "client_id": "c", "client_secret": "s"}
        polled.settings = {"auth": {**auth, "scope": "read"}}
        with polled.reading() as reader:
            polled.next(reader, 1)
            assert tokens == ["token-0"]
            tokens.append("revoked by the server")
            api.put(2)
            assert polled.next(reader, 1) == [("c", 2)]
            assert len(tokens) == 3


@pytest.mark.parametrize("token", ["s3cret\n", "s3cr\u00e9t", "", " s3cret", "s3\r\ncret: x"])
def test_a_token_that_can_be_no_header_is_never_shown(
    api: ListApi, polled: Polled, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    polled.receiver.answer = lambda request: (
        ok({"access_token": token}) if request.target == "/token" else api(request)
    )
    url = f"http://127.0.0.1:{polled.receiver.port}/token"
    auth = {"type": "oauth2", "token_url": url, "client_id": "c", "client_secret": "s"}
    polled.settings = {"auth": auth}
    with pytest.raises(RetryableError) as caught:
        polled.source().open(None)
    assert caught.value.code == "rest.token"
    assert "s3" not in str(caught.value)
    assert "s3cr" not in "".join(capsys.readouterr())
    assert api.requests == []


@pytest.mark.parametrize(
    ("life", "taken"), [("3600", True), (3600, True), (0.5, True), (None, True), ("soon", False)]
)
def test_a_tokens_life_may_be_written_as_a_string(
    api: ListApi, polled: Polled, life: object, taken: bool
) -> None:
    api.put(1)
    polled.receiver.answer = lambda request: (
        ok({"access_token": "t", "expires_in": life})
        if request.target == "/token"
        else api(request)
    )
    url = f"http://127.0.0.1:{polled.receiver.port}/token"
    auth = {"type": "oauth2", "token_url": url, "client_id": "c", "client_secret": "s"}
    polled.settings = {"auth": auth}
    assert [error.code for error in polled.source().check()] == ([] if taken else ["rest.token"])


def test_a_server_is_verified(api: ListApi, certificate: Certificate) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    api.put(1)
    polled = Polled(api, tls=context)
    with closing(polled):
        with pytest.raises(RetryableError) as caught:
            polled.source().open(None)
        assert "s3cret-word" not in str(caught.value)
        polled.settings["tls"] = {"ca": str(certificate.certificate)}
        with polled.reading() as reader:
            assert polled.next(reader, 1) == [("c", 1)]
        polled.settings["tls"] = {"ca": "/nowhere.pem"}
        with pytest.raises(ConfigError) as refused:
            polled.source().open(None)
        assert refused.value.code == "rest.tls"
