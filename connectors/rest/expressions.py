"""JMESPath expressions, compiled when the configuration is read.

A path that only names members, such as `data.items`, is followed in the JSON text itself: what it
leads to is never decoded as a whole. Any other expression sees the decoded answer.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar, cast

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError

from connectors.errors import RetryableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EXACTLY = msgspec.json.Decoder(float_hook=Decimal)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_RAW = msgspec.json.Decoder(msgspec.Raw)

_Text = bytes | bytearray | msgspec.Raw
_Read = TypeVar("_Read")


class ExpressionError(Exception):
    """An expression cannot be applied to an answer; the message says why."""


class Document:
    """One answer's JSON.

    Args:
        text: UTF-8; stays in memory as long as the document.

    Raises:
        RetryableError: `rest.invalid_json`.
    """

    def __init__(self, text: bytes | bytearray) -> None:
        self.text = text
        self._decoded: object = None
        self._whole = False
        # Says at once whether all of it has the form of JSON; texts and numbers come later.
        _parsed(_RAW.decode, text)

    @property
    def decoded(self) -> object:
        """All of it; numbers that are not whole are `Decimal`.

        Raises:
            RetryableError: `rest.invalid_json`.
        """
        if not self._whole:
            self._decoded, self._whole = _exactly(self.text), True
        return self._decoded


class Expression:
    """A compiled expression.

    Args:
        text: JMESPath.

    Raises:
        ValueError: It is malformed; the message says where.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._compiled = jmespath.compile(text)
        except JMESPathError as error:
            problem = " ".join(str(error).split())
            raise ValueError(f"no JMESPath expression: {problem}") from None
        self._names = _names(cast("dict[str, object]", self._compiled.parsed))

    def value(self, document: Document) -> object:
        """What it finds, decoded; None: nothing.

        Raises:
            ExpressionError: It cannot be applied.
            RetryableError: `rest.invalid_json`.
        """
        if self._names is not None:
            found = self._follow(document, self._names)
            return None if found is None else _exactly(found)
        decoded = document.decoded
        try:
            return cast("object", self._compiled.search(decoded))
        except JMESPathError as error:
            raise ExpressionError(" ".join(str(error).split())) from None
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            # The library lets through what Python says of values that cannot be compared.
            raise ExpressionError(f"it cannot be applied to the answer: {error}") from None

    def items(self, document: Document) -> list[object] | list[msgspec.Raw] | None:
        """The list that it finds: of JSON texts where that can be, else decoded.

        Returns:
            None where it finds something that is no list.
        """
        if self._names is None:
            found = self.value(document)
            return found if isinstance(found, list) else None
        text = self._follow(document, self._names)
        if text is None:
            return None
        try:
            return _parsed(_LIST.decode, text)
        except msgspec.ValidationError:
            return None

    @staticmethod
    def _follow(document: Document, names: Sequence[str]) -> _Text | None:
        text: _Text = document.text
        for name in names:
            try:
                members = _parsed(_MEMBERS.decode, text)
            except msgspec.ValidationError:
                return None
            if name not in members:
                return None
            text = members[name]
        return text


def check(text: str) -> str:
    """Pydantic's validator of an expression; empty ones are none. Raises ValueError."""
    if text:
        Expression(text)
    return text


def decode(item: object) -> object:
    """An item of `Expression.items` as an object. Raises RetryableError: `rest.invalid_json`."""
    return _exactly(item) if isinstance(item, msgspec.Raw) else item


def invalid(error: Exception) -> RetryableError:
    """The error of an answer that is no JSON, or none that can be taken."""
    told = str(error) if isinstance(error, msgspec.MsgspecError | UnicodeError) else ""
    if isinstance(error, RecursionError):
        told = "it is nested too deeply"
    return RetryableError(
        "rest.invalid_json",
        f"an answer is no JSON: {told or 'a number in it is out of range'}",
        where="url",
        cure="look at the API",
    )


def _exactly(text: _Text) -> object:
    try:
        return _parsed(_EXACTLY.decode, text)
    except msgspec.ValidationError as error:
        # a whole number that is longer than any that Python reads
        raise invalid(error) from None


def _parsed(decode: Callable[[_Text], _Read], text: _Text) -> _Read:
    """What a decoder makes of JSON. Raises ValidationError, or RetryableError."""
    try:
        return decode(text)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeError, RecursionError, ArithmeticError) as error:
        raise invalid(error) from None


def _names(parsed: dict[str, object]) -> list[str] | None:
    """The members that an expression follows; None where it does anything else."""
    kind = parsed["type"]
    children = cast("list[dict[str, object]]", parsed["children"])
    if kind == "current":
        return []
    if kind == "field":
        return [str(parsed["value"])]
    if kind == "subexpression":
        parts = [_names(child) for child in children]
        return None if any(part is None for part in parts) else [n for p in parts if p for n in p]
    return None
