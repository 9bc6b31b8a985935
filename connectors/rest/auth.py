"""Credentials of requests, and tokens that are fetched and renewed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from connectors.errors import ConfigError, RetryableError
from connectors.http_headers import is_header_value
from connectors.rest.auth_spec import ApiKeySpec, BasicSpec, BearerSpec, OAuth2Spec
from connectors.rest.http import basic

if TYPE_CHECKING:
    from connectors.rest.auth_spec import AuthSpec
    from connectors.rest.http import Http

# A token is renewed so long before it ends, or after this share of its life if that is later.
_EARLY_S = 60.0
_SHARE = 0.8


class _Token(msgspec.Struct):
    """The answer of a token endpoint (RFC 6749, 5.1)."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - no secret
    # Some servers write the number as a string.
    expires_in: float | str | None = None


class Credentials:
    """What each request carries to prove who asks.

    Args:
        spec: As configured; None: nothing.
        http: Fetches tokens.
    """

    def __init__(self, spec: AuthSpec | None, http: Http) -> None:
        self._spec, self._http = spec, http
        self._token = ""
        self._renew_at = 0.0

    async def headers(self) -> dict[str, str]:
        """The headers of a request that is sent now.

        Raises:
            ConfigError: The token endpoint refuses the client.
            RetryableError: It does not answer.
        """
        spec = self._spec
        if isinstance(spec, BearerSpec):
            return {"authorization": f"Bearer {spec.token.get_secret_value()}"}
        if isinstance(spec, BasicSpec):
            return {"authorization": basic(spec.user, spec.password.get_secret_value())}
        if isinstance(spec, ApiKeySpec) and spec.header:
            return {spec.header: spec.key.get_secret_value()}
        if isinstance(spec, OAuth2Spec):
            if not self._token or time.monotonic() >= self._renew_at:
                await self._fetch(spec)
            return {"authorization": f"Bearer {self._token}"}
        return {}

    @property
    def query(self) -> dict[str, str]:
        """The parameters of each request."""
        spec = self._spec
        if isinstance(spec, ApiKeySpec) and spec.query:
            return {spec.query: spec.key.get_secret_value()}
        return {}

    def refused(self) -> bool:
        """A request was answered with 401: whether other credentials can be had at once."""
        had, self._token = bool(self._token), ""
        return had

    async def _fetch(self, spec: OAuth2Spec) -> None:
        secret = spec.client_secret.get_secret_value()
        fields = {"grant_type": "client_credentials"}
        if spec.scope:
            fields["scope"] = spec.scope
        if spec.audience:
            fields["audience"] = spec.audience
        if spec.send == "body":
            fields |= {"client_id": spec.client_id, "client_secret": secret}
        auth = (spec.client_id, secret) if spec.send == "basic" else None
        asked = time.monotonic()
        try:
            answer = await self._http.form(spec.token_url.get_secret_value(), fields, auth)
            token = msgspec.convert(answer, _Token)
            life = None if token.expires_in is None else float(token.expires_in)
        except msgspec.ValidationError as error:
            raise RetryableError("rest.token", f"no token: {error}", where="auth") from None
        except (ValueError, OverflowError):
            raise RetryableError("rest.token", "`expires_in` is no number", where="auth") from None
        except ConfigError as error:
            # RFC 6749, 5.2: a wrong client is a 400, too
            raise self._client_refused() from error
        if token.token_type.lower() != "bearer":
            raise ConfigError(
                "rest.token", f"a token of the type {token.token_type!r}", where="auth"
            )
        if not is_header_value(token.access_token):
            # Never shown: it may be a token with a line break behind it.
            raise RetryableError(
                "rest.token",
                "the token that came can be no header: a value is visible ASCII characters on one"
                " line",
                where="auth",
                cure="look at the token endpoint",
            )
        self._token = token.access_token
        self._renew_at = (
            float("inf") if life is None else asked + max(life * _SHARE, life - _EARLY_S)
        )

    @staticmethod
    def _client_refused() -> ConfigError:
        return ConfigError(
            "rest.token_refused",
            "the token endpoint refuses the client",
            where="auth",
            cure="correct client_id, client_secret and scope",
        )
