"""Which changes a pipeline or a sink takes: one CEL expression over each.

Only the columns that the expression names are decoded; one that looks at `op` alone leaves what
comes from a source undecoded. A column whose value the log did not carry is absent:
`has(after.bio)` is false then.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, cast

import msgspec

from connectors.contracts.changes import Change
from dataflows.expressions import Expression
from dataflows.failing import StepError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import UnionType

    from connectors.contracts.changes import Delivered

_ROWS = ("before", "after", "source")
_KINDS = ("BOOL", "DYN")
_decode_key = msgspec.json.Decoder(dict[str, Any]).decode


def check_filter(text: str) -> str:
    """Return the text of a filter. Raises ValueError, which says where and why, if it is none."""
    kind = Expression(text).type
    if kind not in _KINDS:
        raise ValueError(f"a filter is true or false, this is {kind.lower()}")
    return text


class Filter:
    """A compiled filter.

    Args:
        text: Has been checked.
    """

    def __init__(self, text: str) -> None:
        self._expression = Expression(text)
        looks = self._expression.looks
        self._key = "key" in looks
        self._rows = tuple(name for name in _ROWS if name in looks)
        fields = {"op": str} | {name: _row(looks[name]) for name in self._rows}
        self._decode = msgspec.json.Decoder(_typed_dict(fields)).decode

    def keeps(self, change: Change | Delivered) -> bool:
        """Whether the expression is true for the change.

        Raises:
            StepError: It has no value for this one.
        """
        data: dict[str, object]
        if self._rows or not isinstance(change, Change):
            data = self._decode(change.envelope)
            if change.unavailable and "after" in self._rows:
                _without(data["after"], change.unavailable)
        else:
            data = {"op": change.op}
        if self._key:
            data["key"] = None if change.key is None else _decode_key(change.key)
        try:
            result = self._expression.evaluate(data)
        except StepError as error:
            raise StepError(f"filter.{error.code}", error.message) from None
        if result is True or result is False:
            return result
        raise StepError("filter.not_boolean", "it is neither true nor false")


def _row(looks: frozenset[str] | None) -> object:
    """The type to decode a row as: whole, or the named columns only."""
    # msgspec 0.22 does not find a field of a TypedDict whose name is not ASCII.
    if looks is None or not all(name.isascii() for name in looks):
        return dict[str, Any] | None
    return _typed_dict(dict.fromkeys(looks, Any)) | None


def _typed_dict(fields: Mapping[str, object]) -> UnionType:
    """A dictionary of which only these fields are decoded, as far as they are there."""
    make = cast("Callable[..., UnionType]", typing.TypedDict)
    return make("Fields", fields, total=False)


def _without(row: object, names: tuple[str, ...]) -> None:
    if isinstance(row, dict):
        for name in names:
            row.pop(name, None)
