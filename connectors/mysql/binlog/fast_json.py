"""MySQL's binary JSON to JSON text, the fast way; equals `jsonb.json_text`.

Most documents are small objects and arrays, and those of a column have the same keys: what the
table of keys and the keys behind it make of an object is remembered. Everything else goes to
`jsonb`.
"""

from __future__ import annotations

import struct
from json.encoder import encode_basestring

from connectors.mysql.binlog import jsonb
from connectors.mysql.binlog.jsonb import (
    DEEPEST,
    DOUBLE,
    INT16,
    LITERAL,
    LITERALS,
    SMALL_ARRAY,
    SMALL_OBJECT,
    STRING,
    UINT16,
    double_text,
)

# Of a table's entries: a key's place and length; a value's type and place, or the value itself.
_key_entries = struct.Struct("<HH").iter_unpack
_value_entries = struct.Struct("<BH").iter_unpack
_double = struct.Struct("<d").unpack_from

# So many tables of keys are remembered, and so many sets of keys for each; beyond that, and for
# objects that are larger than this, nothing is gained by it.
_MOST_LAYOUTS, _MOST_TEMPLATES, _MOST_BYTES = 200, 50, 1024


class _Layout(dict[bytes, str]):
    """The templates of objects with the same table of keys, by the bytes that hold the keys.

    Attributes:
        first: Where these bytes begin in the object.
        end: Where they end.

    Args:
        entries: The table of keys.
    """

    def __init__(self, entries: bytes) -> None:
        super().__init__()
        self._entries = list(_key_entries(entries))
        self.first = min(place for place, _ in self._entries)
        self.end = max(place + size for place, size in self._entries)

    def __missing__(self, keys: bytes) -> str:
        names = []
        for place, size in self._entries:
            start = place - self.first
            name = encode_basestring(str(keys[start : start + size], "latin-1"))
            names.append(name.replace("%", "%%"))
        template = "{" + ",".join(f"{name}:%s" for name in names) + "}"
        if len(keys) <= _MOST_BYTES:
            if len(self) >= _MOST_TEMPLATES:
                self.clear()
            self[keys] = template
        return template


class _Layouts(dict[bytes, _Layout]):
    """The layouts of objects, by their tables of keys."""

    def __missing__(self, entries: bytes) -> _Layout:
        layout = _Layout(entries)
        if len(entries) <= _MOST_BYTES:
            if len(self) >= _MOST_LAYOUTS:
                self.clear()
            self[entries] = layout
        return layout


_LAYOUTS = _Layouts()


def json_text(data: bytes) -> str:
    """The document as JSON, in byte text. As `jsonb.json_text`, with the same errors."""
    if data and data[0] in (SMALL_OBJECT, SMALL_ARRAY):
        return _container(data, str(data, "latin-1"), data[0], 1, 1)
    return jsonb.json_text(data)


def _container(data: bytes, text: str, kind: int, at: int, depth: int) -> str:
    """A small object or array; `text` is `data`, one character a byte."""
    count = data[at] | data[at + 1] << 8
    table = at + 4
    template = ""
    if kind == SMALL_OBJECT:
        behind = table + 4 * count
        if count:
            layout = _LAYOUTS[data[table:behind]]
            template = layout[data[at + layout.first : at + layout.end]]
        table = behind
    values = []
    for kind_, place in _value_entries(data[table : table + 3 * count]):
        start = at + place
        if kind_ == STRING and (size := data[start]) < 0x80:
            values.append(encode_basestring(text[start + 1 : start + 1 + size]))
        elif kind_ == DOUBLE:
            values.append(double_text(_double(data, start)[0]))
        elif kind_ == INT16:
            values.append(repr(place - (place >> 15 << 16)))
        elif kind_ == UINT16:
            values.append(repr(place))
        elif kind_ == LITERAL:
            values.append(LITERALS[place & 0xFF])
        elif kind_ in (SMALL_OBJECT, SMALL_ARRAY) and depth < DEEPEST:
            values.append(_container(data, text, kind_, start, depth + 1))
        else:
            values.append(jsonb.value_text(data, kind_, start, depth))
    if len(values) != count:
        raise ValueError("a document that is cut off")
    if kind == SMALL_ARRAY:
        return f"[{','.join(values)}]"
    return template % (*values,) if count else "{}"
