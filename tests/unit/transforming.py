"""Puts changes through transforms, as a configuration writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import TypeAdapter

from connectors.contracts.changes import Change, Delivered, Failure
from dataflows.steps import Steps
from dataflows.transforms.spec import Transforms, make

if TYPE_CHECKING:
    from dataflows.steps import OnError

ALLOWED = ("tests.unit.python_functions:*",)


def steps(*written: Any, on_error: OnError = "dead_letter") -> Steps:
    """Transforms, as a configuration writes them."""
    specs = TypeAdapter[Any](Transforms).validate_python(written)
    return Steps("users", None, make(specs, ALLOWED, "pipelines.users.transform"), on_error)


def through(given: Change | Delivered, *written: Any) -> list[Change | Delivered]:
    return [made.change for made in steps(*written).apply(given)]


def one(given: Change | Delivered, *written: Any) -> Change | Delivered:
    [made] = through(given, *written)
    assert not made.failed
    return made


def failure(given: Change | Delivered, *written: Any) -> Failure:
    [made] = through(given, *written)
    assert made._replace(failed="", key=given.key) == given, "it is not as it came"
    return Failure.decode(made.failed)


class Rows(msgspec.Struct):
    after: dict[str, msgspec.Raw]


def python(name: str, **kinds: str) -> dict[str, Any]:
    return {"python": {"function": f"tests.unit.python_functions:{name}", "columns": kinds}}
