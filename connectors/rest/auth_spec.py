"""How a REST source proves who it is, as the configuration says it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from connectors.http_headers import check_header


class _AuthModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BearerSpec(_AuthModel):
    """`Authorization: Bearer <token>`."""

    type: Literal["bearer"]
    token: SecretStr = Field(min_length=1)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        check_header("token", self.token)
        return self


class BasicSpec(_AuthModel):
    """`Authorization: Basic …` (RFC 7617)."""

    type: Literal["basic"]
    user: str
    password: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if ":" in self.user:
            raise ValueError("user: basic authentication cannot express a colon in it")
        return self


class ApiKeySpec(_AuthModel):
    """A key in a header or in the query."""

    type: Literal["api_key"]
    key: SecretStr = Field(min_length=1)
    header: str = ""
    query: str = ""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if bool(self.header) == bool(self.query):
            raise ValueError("either `header` or `query` names where the key stands")
        if self.header:
            check_header(self.header, self.key)
        return self


class OAuth2Spec(_AuthModel):
    """OAuth 2.0 client credentials (RFC 6749, 4.4)."""

    type: Literal["oauth2"]
    token_url: SecretStr
    client_id: str
    client_secret: SecretStr
    scope: str = ""
    audience: str = Field(default="", description="what some servers ask for beside the scope")
    send: Literal["basic", "body"] = Field(
        default="basic", description="where the client's credentials stand in the token request"
    )


AuthSpec = BearerSpec | BasicSpec | ApiKeySpec | OAuth2Spec
