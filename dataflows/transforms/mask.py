"""`mask`: what a column says is hidden; null stays null."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from dataflows.transforms.columns import Name
from dataflows.transforms.fit import NOTHING, Fit, edit_rows, present, refuse_key
from dataflows.transforms.kinds import column_of, text_of
from dataflows.transforms.record import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from connectors.contracts.changes import TableSchema
    from dataflows.transforms.record import Row

_REDACTED = msgspec.Raw(b'"***"')
# Four characters of fewer than these would tell most of the value.
_LAST4_FROM = 8


class MaskSpec(BaseModel):
    """Hide what columns say."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    fields: tuple[Name, ...] = Field(min_length=1)
    method: Literal["sha256", "redact", "last4"] = Field(default="redact", alias="with")
    salt: SecretStr | None = Field(default=None, description="for sha256; a reference to a secret")

    @model_validator(mode="after")
    def _salted(self) -> MaskSpec:
        if (self.method == "sha256") != (self.salt is not None and bool(self.salt_text)):
            raise ValueError("`salt` belongs to `with: sha256`, and that needs one")
        return self

    @property
    def salt_text(self) -> str:
        """The salt; empty without one."""
        return self.salt.get_secret_value() if self.salt else ""


class Mask:
    """`mask`: the column becomes a text.

    `sha256` is SHA-256 of the salt followed by the value's text, in 64 hex digits, so that equal
    values stay equal; it may mask columns of the key, the others would make one row of many.
    """

    def __init__(self, spec: MaskSpec) -> None:
        self._names = frozenset(spec.fields)
        self._method = spec.method
        self._hide = _hiding(spec)

    def fit(self, table: TableSchema) -> Fit:
        """As `Transform.fit`."""
        if self._method != "sha256":
            refuse_key(table, self._names, "only sha256 can mask it")
        names = tuple(column.name for column in present(table, self._names))
        if not names:
            return NOTHING
        hide = self._hide

        def edit(row: Row, absent: Collection[str]) -> Row:
            row = row.copy()
            for name in names:
                if name in row and name not in absent:
                    value = bytes(row[name])
                    if value != b"null":
                        row[name] = hide(value)
            return row

        columns = tuple(
            column_of(table, column.name, "string") if column.name in names else column
            for column in table.columns
        )
        return edit_rows(
            msgspec.structs.replace(table, columns=columns),
            edit,
            edits_key=not self._names.isdisjoint(table.key),
            json_nulls=dict.fromkeys(names, ()),
        )


def _hiding(spec: MaskSpec) -> Callable[[bytes], msgspec.Raw]:
    salted = sha256(spec.salt_text.encode())

    def hashed(value: bytes) -> msgspec.Raw:
        digest = salted.copy()
        if value[:1] == b'"' and b"\\" not in value:  # a text without escapes: as it is
            digest.update(value[1:-1])
        else:
            digest.update(text_of(value).encode())
        return msgspec.Raw(f'"{digest.hexdigest()}"'.encode())

    def last4(value: bytes) -> msgspec.Raw:
        text = text_of(value)
        return msgspec.Raw(encode("****" + (text[-4:] if len(text) >= _LAST4_FROM else "")))

    return {"sha256": hashed, "last4": last4, "redact": lambda _: _REDACTED}[spec.method]
