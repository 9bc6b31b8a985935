"""Puts values that were read from a table into changes that the log brought without them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from connectors.contracts.changes import Change

if TYPE_CHECKING:
    from collections.abc import Mapping

_NULL = msgspec.Raw(b"null")


class Row(NamedTuple):
    """A row as it is now.

    Attributes:
        values: JSON by column.
        json_nulls: The columns whose value is the JSON null.
    """

    values: Mapping[str, msgspec.Raw]
    json_nulls: frozenset[str]


def row_of(read: Change) -> Row:
    """What a change that was made of a row of the table says."""
    after = _members(_members(read.envelope)["after"])
    return Row(after, frozenset(read.json_nulls))


def filled(change: Change, row: Row) -> Change:
    """The change with the values that it lacks, as far as the row has them."""
    found = [name for name in change.unavailable if name in row.values]
    if not found:
        return change
    envelope = _members(change.envelope)
    after = _members(envelope["after"])
    for name in found:
        after[name] = row.values[name]
    envelope["after"] = msgspec.Raw(msgspec.json.encode(after))
    nulls = (*change.json_nulls, *(name for name in found if name in row.json_nulls))
    return change._replace(
        envelope=msgspec.json.encode(envelope),
        unavailable=tuple(name for name in change.unavailable if name not in row.values),
        json_nulls=nulls,
    )


def key_texts(change: Change) -> dict[str, str] | None:
    """The values of a change's key as the server reads them, by column.

    None: it has no key, or one of arrays, which JSON writes otherwise than the server.
    """
    if change.key is None or change.table is None:
        return None
    forms = {column.name: column.json for column in change.table.columns}
    texts: dict[str, str] = {}
    for name, value in _members(change.key.encode()).items():
        text = _text(value, forms.get(name, "array"))
        if text is None:
            return None
        texts[name] = text
    return texts


def _text(value: msgspec.Raw, form: str) -> str | None:
    if form.startswith("array"):
        return None
    if form == "json" or not bytes(value).startswith(b'"'):
        return bytes(value).decode()
    if form == "base64":
        return "\\x" + msgspec.json.decode(value, type=bytes).hex()
    return msgspec.json.decode(value, type=str)


def _members(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(text, type=dict[str, msgspec.Raw])
