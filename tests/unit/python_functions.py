"""Functions that transforms of tests call, some of which do what they must not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dataflows.transforms.change_view import ChangeView

if TYPE_CHECKING:
    from collections.abc import Iterator


def shout(given: ChangeView) -> ChangeView | None:
    if given.after is None or given.after["email"] == "nobody":
        return None
    return replace(given, after=given.after | {"email": given.after["email"].upper(), "n": 1})


def halves(given: ChangeView) -> list[ChangeView]:
    assert given.after is not None
    return [replace(given, after=given.after | {"id": number}) for number in (1, 2)]


def hundreds(given: ChangeView) -> list[ChangeView]:
    return [given] * 101


def grows(given: ChangeView) -> ChangeView:
    assert given.after is not None
    given.after["doc"]["l"].append(3)
    return given


def soft(given: ChangeView) -> ChangeView:
    return replace(given, op="u", after={"id": 8}) if given.op == "d" else given


def forgets(given: ChangeView) -> ChangeView:
    return replace(given, after={"id": 8})


def adds(given: ChangeView) -> ChangeView:
    return replace(given, after={**(given.after or {}), "surprise": 1})


def fails(given: ChangeView) -> ChangeView:
    raise KeyError(given.after)


def wrong(_given: ChangeView) -> Any:
    return {"id": 1}


def number(_given: ChangeView) -> Any:
    return 5


def rowless(given: ChangeView) -> ChangeView:
    return replace(given, after=5)  # type: ignore[arg-type]


def endless(given: ChangeView) -> ChangeView:
    return replace(given, after=(given.after or {}) | {"id": 10**400})


def breaks_off(given: ChangeView) -> Iterator[ChangeView]:
    yield given
    raise ValueError(given.after)


def leaves(_given: ChangeView) -> None:
    raise SystemExit(0)


def blanks(given: ChangeView) -> ChangeView:
    assert given.after is not None
    given.after["email"] = "-"
    return given
