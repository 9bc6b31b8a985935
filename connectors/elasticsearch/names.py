r"""Names that changes have in Elasticsearch: of their index, and of their document.

An index's name is the template with its fields filled in, percent-decoded and lower-cased; each
character that an index may not have (`\ / * ? " < > | , # :`, blanks, control characters) becomes
`_`; a name that begins with `-`, `_`, `+` or `.` gets a `t` before it; one of over 255 bytes is cut
and ends in `-` and 16 hex digits of the SHA-256 of the whole.

A document's id is made of the key's values, as they stand in `Cdc-Key`: of one column the text of
a string, or the JSON of any other value; of several columns their JSON array, in ASCII without
blanks. A string that is empty or begins with `"` stays in JSON, since an id is never empty. An id
of over 512 bytes, Elasticsearch's limit, is replaced by the SHA-256 of its UTF-8 in hex digits.
"""

from __future__ import annotations

import re
from hashlib import sha256
from json import dumps
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.contracts.changes import TableSchema

_LONGEST_INDEX = 255
_LONGEST_ID = 512
_ILLEGAL = re.compile(r'[\\/*?"<>|,#:\s\x00-\x1f]')
# What msgspec does not take as the name of a field.
_ODD_NAME = re.compile(r'["\\\x00-\x1f]')


def index_name(template: str, topic: str, table: TableSchema) -> str:
    """The index of a table's changes in a topic."""
    filled = template.format(topic=topic, schema=table.schema, table=table.name)
    name = _ILLEGAL.sub("_", unquote(filled).lower())
    if not name or name[0] in "-_+.":
        name = f"t{name}"
    encoded = name.encode()
    if len(encoded) <= _LONGEST_INDEX:
        return name
    digest = sha256(encoded).hexdigest()[:16]
    return f"{encoded[: _LONGEST_INDEX - 17].decode(errors='ignore')}-{digest}"


class Identity:
    """Makes document ids of one table's keys and rows.

    Args:
        table: Has a key.
        topic: Where its changes lie.
        template: `SinkSpec.id`.
    """

    def __init__(self, table: TableSchema, topic: str, template: str) -> None:
        self._names = table.key
        self._plain = template == "{key}"
        self._template = template
        self._values = {"topic": topic, "schema": table.schema, "table": table.name}
        self._read: Callable[[str | msgspec.Raw], list[msgspec.Raw]] = self._read_odd
        if not any(_ODD_NAME.search(name) for name in table.key):
            fields: list[tuple[str, Any]] = [
                (f"k{index}", msgspec.Raw) for index in range(len(table.key))
            ]
            names = {f"k{index}": name for index, name in enumerate(table.key)}
            self._decode = msgspec.json.Decoder(msgspec.defstruct("Key", fields, rename=names))
            self._read = self._read_struct

    def of(self, row: str | msgspec.Raw) -> str:
        """The id of the row that a key or a whole row, as JSON, belongs to.

        Raises:
            msgspec.MsgspecError: A column of the key is missing, or it is no JSON.
        """
        values = self._read(row)
        if len(values) == 1:
            key = _alone(values[0])
        else:
            key = f"[{','.join(_element(value) for value in values)}]"
        return limited(key if self._plain else self.templated(key))

    def templated(self, key: str) -> str:
        """The id for what stands for `{key}`."""
        return self._template.format(key=key, **self._values)

    def _read_struct(self, row: str | msgspec.Raw) -> list[msgspec.Raw]:
        return list(msgspec.structs.astuple(self._decode.decode(row)))

    def _read_odd(self, row: str | msgspec.Raw) -> list[msgspec.Raw]:
        found = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
        lacking = [name for name in self._names if name not in found]
        if lacking:
            raise msgspec.ValidationError(f"the key's column {lacking[0]} is missing")
        return [found[name] for name in self._names]


def limited(name: str) -> str:
    """An id that Elasticsearch takes."""
    if len(name) * 4 <= _LONGEST_ID:
        return name
    encoded = name.encode()
    return name if len(encoded) <= _LONGEST_ID else sha256(encoded).hexdigest()


def _alone(value: msgspec.Raw) -> str:
    data = bytes(value)
    if data[:1] != b'"':
        return _element(value)
    text = msgspec.json.decode(data, type=str)
    return _json(text) if not text or text[0] == '"' else text


def _element(value: msgspec.Raw) -> str:
    data = bytes(value)
    # Numbers and the like as they are: decoding would change 1.50.
    return _json(msgspec.json.decode(data)) if data[:1] in (b'"', b"[", b"{") else data.decode()


def _json(value: object) -> str:
    return dumps(value, separators=(",", ":"))
