"""No secret is stored: where a model has a `SecretStr`, references stand instead.

Five kinds of texts, told apart by the name of their field:

- `dsn`, a connection string: its passwords are references, what else it says may be written out,
  such as `host=db user=cdc password=${PW}` or `mysql://cdc:${PW}@db:3306/`;
- `url`, an address: what stands behind the host is references, for it may hold a token;
- `token_url`, and the `url` of a REST API, addresses that are no secret by themselves: their query
  is references;
- `query`, parameters, and texts anywhere in the `body` of a REST API: references, a small number,
  `true` or `false`;
- any other is references alone; the word of a scheme may stand before: `Bearer ${TOKEN}`.

The default of a reference, `${PW:-secret}`, is written out like any other text.
"""

from __future__ import annotations

import re
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Union, get_args, get_origin
from urllib.parse import parse_qsl

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, SecretStr

from connectors.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFERENCE = re.compile(r"(?<!\$)\$\{(?:file:[^}]+|[A-Za-z_]\w*(?::-(?P<default>[^}]*))?)\}")
# Stands for a reference while a text is taken apart; of the private use area of Unicode.
_MARK = "\ue000"
_SCHEMED = re.compile(rf"([A-Za-z]+ )?{_MARK}+")
_ADDRESS = re.compile(r"[a-z]+://[^/?#@]+")
_TOKEN_ADDRESS = re.compile(rf"[a-z]+://[^?#@]+(\?{_MARK}+)?")
# What no secret is as short as: pages have sizes.
_PARAMETER = re.compile(r"\d{1,6}|true|false")
_SECRET_NAMES = re.compile(r"pass(word|wd|phrase)?$|pwd|secret|token", re.IGNORECASE)


# The path of an API's list tells nothing, while that of a webhook often is its secret.
_RULES = {("rest", "url"): "token_url", ("postgres", "primary_dsn"): "dsn"}
# What is JSON of any form; a key stands there wherever an API wants it.
_JSON = {("rest", "body"): "query"}


def check_secrets(model: type[BaseModel], settings: object, where: str) -> None:
    """Check that settings hold no secret.

    Args:
        model: What they are checked against elsewhere; they may be wrong in other ways.
        settings: As they stand in `waxtap.yaml`, references unresolved.
        where: Their path, for errors.

    Raises:
        ConfigError: `config.plaintext_secret`; the secret is not in the message.
    """
    for name, place, text in _secrets(model, settings, where):
        if not _is_safe(name, text):
            raise ConfigError(
                "config.plaintext_secret",
                "a secret is written out, and would be stored",
                where=place,
                cure=_cure(name),
            )


def _secrets(
    model: type[BaseModel], settings: object, where: str
) -> Iterator[tuple[str, str, str]]:
    """Every secret text: its field's name, its path, and what it says."""
    if not isinstance(settings, dict):
        return
    for name, field in model.model_fields.items():
        key = field.alias or name
        if (json := _JSON.get((_type(model), key))) is not None:
            yield from _inside(settings.get(key), f"{where}.{key}", json)
        elif settings.get(key) is not None:
            rule = _RULES.get((_type(model), key), key)
            yield from _texts(field.annotation, settings[key], f"{where}.{key}", rule)


def _inside(value: object, where: str, rule: str) -> Iterator[tuple[str, str, str]]:
    """Every text within a JSON value; as `_secrets`."""
    if isinstance(value, str):
        yield rule, where, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _inside(each, f"{where}.{key}", rule)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _inside(each, f"{where}.{index}", rule)


def _type(model: type[BaseModel]) -> str:
    """The connector's type that a model is of; empty: of none."""
    field = model.model_fields.get("type")
    return str(get_args(field.annotation)[0]) if field and get_args(field.annotation) else ""


def _texts(
    annotation: object, value: object, where: str, name: str
) -> Iterator[tuple[str, str, str]]:
    """The secret texts within a value of a type; as `_secrets`."""
    inner = get_args(annotation)
    origin = get_origin(annotation)
    if annotation is SecretStr:
        if isinstance(value, str):
            yield name, where, value
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _secrets(annotation, value, where)
    elif origin is Annotated:
        yield from _texts(inner[0], value, where, name)
    elif origin in (Union, UnionType):
        for each in inner:
            yield from _texts(each, value, where, name)
    elif origin is dict and isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(inner[1], each, f"{where}.{key}", name)
    elif origin in (tuple, list):
        for index, each in enumerate(value if isinstance(value, list) else [value]):
            yield from _texts(inner[0], each, f"{where}.{index}", name)


def _is_safe(name: str, text: str) -> bool:
    marked = _REFERENCE.sub(lambda found: found["default"] or _MARK, text)
    if not marked.strip(_MARK):
        return True
    if name == "dsn":
        return _is_safe_dsn(marked)
    if name == "url":
        return not _ADDRESS.sub("", marked, count=1).strip(f"/{_MARK}")
    if name == "token_url":
        return _TOKEN_ADDRESS.fullmatch(marked) is not None
    if name == "query" and _PARAMETER.fullmatch(marked):
        return True
    return _SCHEMED.fullmatch(marked) is not None


def _is_safe_dsn(marked: str) -> bool:
    """Whether the passwords of a connection string are references."""
    if marked.startswith(("mysql://", "mariadb://")):
        rest, _, query = marked.partition("?")
        authority = rest.partition("://")[2].partition("/")[0]
        account, at, _ = authority.rpartition("@")
        if not at and authority.strip(_MARK):
            return False
        found = parse_qsl(query, keep_blank_values=True)
        found.append(("password", account.partition(":")[2]))
    else:
        try:
            found = [(key, str(value)) for key, value in conninfo_to_dict(marked).items()]
        except psycopg.ProgrammingError:
            return False
        # A password that is not encoded is taken for a part of something else.
        found += [("password", value) for key, value in found if key != "password" and "@" in value]
    return not any(value.strip(_MARK) for key, value in found if _SECRET_NAMES.search(key))


def _cure(name: str) -> str:
    if name == "dsn":
        return (
            "write a reference in place of the password: host=db user=cdc password=${DB_PASSWORD}"
        )
    if name == "url":
        return "write a reference in place of what stands behind the host: https://host${HOOK_PATH}"
    if name == "token_url":
        return "write a reference in place of its query: https://host/path?${QUERY}"
    return "write a reference: ${NAME}, or ${file:/path}"
