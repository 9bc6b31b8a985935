"""Who may ask: a file of names, roles, and what each of them is known by.

    callers:
      - {name: ann, role: admin, sha256: 5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8}
      - {name: ci, role: operator, token: "${CI_TOKEN}"}
      - {name: console.example.com, role: viewer, certificate: true}

A token is known by its SHA-256 digest, or by a reference to it; never by itself. Tokens are to be
made by a machine (`openssl rand -hex 32`): a digest protects no word that can be guessed. A
certificate is one that the authority of `--client-ca` has signed, for this name.
"""  # noqa: E501 - a digest is that long

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from connectors.errors import ConfigError
from control.server.callers import Caller, Role
from control.specs.secrets import check_secrets
from dataflows.configuration import references
from dataflows.configuration.document import read

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

_SHORTEST = 20
_ROLES = {"viewer": Role.VIEWER, "operator": Role.OPERATOR, "admin": Role.ADMIN}


class CallerSpec(BaseModel):
    """One who may ask."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    role: Literal["viewer", "operator", "admin"]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    token: SecretStr | None = None
    certificate: Literal[True] | None = None

    @model_validator(mode="after")
    def _known(self) -> CallerSpec:
        if sum(way is not None for way in (self.sha256, self.token, self.certificate)) != 1:
            raise ValueError("one of sha256, token and certificate")
        if self.token is not None and len(self.token.get_secret_value()) < _SHORTEST:
            raise ValueError(f"a token has {_SHORTEST} characters or more: openssl rand -hex 32")
        return self


class CallersSpec(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    callers: Annotated[tuple[CallerSpec, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Callers:
    """Everybody who may ask.

    Attributes:
        digests: Of tokens, with whose they are.
        certificates: By the name that a certificate is for.
    """

    digests: tuple[tuple[bytes, Caller], ...]
    certificates: Mapping[str, Caller]

    def of_token(self, token: str) -> Caller | None:
        """Whose token it is; takes as long whether it is somebody's or not."""
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for known, caller in self.digests:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def of_certificate(self, names: Collection[str]) -> Caller | None:
        """Who it is that a verified certificate names."""
        return next((self.certificates[name] for name in names if name in self.certificates), None)


def load(path: Path, environment: Mapping[str, str]) -> Callers:
    """Read the file.

    Raises:
        ConfigError: It cannot be read, is wrong, or holds a token that is written out.
    """
    tree = read(path)
    entries = tree.get("callers") if isinstance(tree, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        check_secrets(CallerSpec, entry, f"callers.{index}")
    try:
        spec = CallersSpec.model_validate(references.resolve(tree, environment))
    except ValidationError as error:
        # Never the input itself: it may hold a secret.
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise ConfigError(
            "control.callers",
            first["msg"].removeprefix("Value error, "),
            where=".".join([str(path), *map(str, first["loc"])]),
            cure="docs/security.md shows how the file is written",
        ) from None
    digests: list[tuple[bytes, Caller]] = []
    certificates: dict[str, Caller] = {}
    for one in spec.callers:
        caller = Caller(one.name, _ROLES[one.role])
        if one.certificate:
            certificates[one.name] = caller
        elif one.token is not None:
            digest = hashlib.sha256(one.token.get_secret_value().encode()).digest()
            digests.append((digest, caller))
        elif one.sha256 is not None:
            digests.append((bytes.fromhex(one.sha256), caller))
    return Callers(tuple(digests), certificates)
