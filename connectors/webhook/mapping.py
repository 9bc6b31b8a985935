"""From a request to rows: the body is read, and JMESPath expressions find what is wanted in it.

Free of I/O. Expressions see `{"body": …, "record": …, "headers": {…}}`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import parse_qs, quote

import jmespath
import msgspec

from connectors.json_rows import MOST_COLUMNS, decode, encode, key_text, type_of
from connectors.webhook.source_spec import LONGEST_TABLE, OpSpec, TableSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connectors.webhook.source_spec import MapSpec

    Find = Callable[[dict[str, object]], object]

# The identifiers of JMESPath that need no quotes, with dots between.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 1000
# Smaller numbers are seconds since 1970, larger ones milliseconds.
_MILLISECONDS = 100_000_000_000
# Beyond the year 9999.
_NEVER = 253_402_300_800_000
# A key travels in a header of its change, and all headers of a message together may have 64 KiB in
# JetStream.
_LONGEST_KEY = 32 * 1024
# A table's shape, with all names of its columns, is one message.
_LONGEST_COLUMN = 255
# What Python raises where values are not of the kinds that an expression works on; JMESPath's own
# errors are ValueErrors.
EXPRESSION_ERRORS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError,
                     RecursionError)  # fmt: skip


class UnmappableError(Exception):
    """A request of which no rows can be made.

    Args:
        code: Stable dotted identifier, such as `webhook.no_key`.
        message: What is wrong, without values.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


def too_many_columns() -> UnmappableError:
    """What is told of a row with more fields than a table may have columns."""
    return UnmappableError(
        "webhook.too_many_columns", f"a table would have more than {MOST_COLUMNS} columns"
    )


class Mapped(NamedTuple):
    """A row of a request.

    Attributes:
        op: `c`, `u` or `d`.
        table: The table's name.
        row: Its fields, those of the key among them.
        happened_ms: When it happened, Unix time in milliseconds; None: the request does not say.
    """

    op: str
    table: str
    row: dict[str, object]
    happened_ms: int | None


class RequestMapping:
    """What becomes of requests.

    Args:
        spec: As it is configured.
        bounded: Whether a row's fields become columns, of which there may be `MOST_COLUMNS`.

    Attributes:
        key: The names of the key's columns.
    """

    def __init__(self, spec: MapSpec, *, bounded: bool = True) -> None:
        self._bounded = bounded
        self._form_field = spec.form_field
        self._records = _finder(spec.records) if spec.records is not None else None
        self._row = _finder(spec.row)
        self._ts = _finder(spec.ts) if spec.ts is not None else None
        self._table = spec.table
        self._find_table = (
            _finder(spec.table.expression) if isinstance(spec.table, TableSpec) else None
        )
        self._op = spec.op
        self._find_op = _finder(spec.op.expression) if isinstance(spec.op, OpSpec) else None
        self.key = tuple(spec.key)
        self._find_key = (
            {name: _finder(text) for name, text in spec.key.items()}
            if isinstance(spec.key, dict)
            else {}
        )

    def rows(self, body: bytes, headers: Mapping[str, str]) -> list[Mapped]:
        """The rows of a request, in their order.

        Args:
            body: As it came.
            headers: Those that are kept; names in small letters.

        Raises:
            UnmappableError: The body cannot be read, or an expression finds something else than
                what is wanted.
        """
        whole = self._read(body, headers.get("content-type", ""))
        root: dict[str, object] = {"body": whole, "record": whole, "headers": headers}
        try:
            records = [whole] if self._records is None else self._records(root)
            if not isinstance(records, list):
                raise UnmappableError("webhook.no_records", "`records` finds no list")
            found = []
            for record in records:
                root["record"] = record
                mapped = self._map(root)
                if mapped is not None:
                    found.append(mapped)
        except EXPRESSION_ERRORS as error:
            raise UnmappableError(
                "webhook.expression", f"an expression fails: {type(error).__name__}"
            ) from None
        return found

    def _read(self, body: bytes, content_type: str) -> object:
        try:
            if content_type.partition(";")[0].strip().lower() != _FORM:
                return decode(body)
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
            if self._form_field:
                return decode(fields.get(self._form_field, [""])[0].encode())
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
            raise UnmappableError("webhook.unreadable", "the body cannot be read") from None
        return {name: each[0] if len(each) == 1 else each for name, each in fields.items()}

    def _map(self, root: dict[str, object]) -> Mapped | None:
        op = self._op_of(root)
        if op == "skip":
            return None
        row = self._row(root)
        key = {name: find(root) for name, find in self._find_key.items()}
        if row is None and op == "d":
            row = {}
        if not isinstance(row, dict):
            raise UnmappableError("webhook.no_row", "`row` finds no object")
        if key:
            row = {**{name: key[name] for name in key if name not in row}, **row, **key}
        for name in self.key:
            if type_of(row.get(name)) in (None, "json"):
                raise UnmappableError(
                    "webhook.no_key", f"the key's {name} is missing, or no scalar"
                )
        if len(key_text({name: row[name] for name in self.key})) > _LONGEST_KEY:
            raise UnmappableError("webhook.key_too_long", f"the key is over {_LONGEST_KEY} bytes")
        if self._bounded:
            _check_columns(row)
        encode(row)  # An expression may find what is no JSON.
        return Mapped(op, self._table_of(root), row, self._time_of(root))

    def _op_of(self, root: dict[str, object]) -> str:
        if self._find_op is None or not isinstance(self._op, OpSpec):
            return cast("str", self._op)
        value = self._find_op(root)
        text = value if isinstance(value, str) else encode(value).decode()
        return self._op.values.get(text, self._op.default)

    def _table_of(self, root: dict[str, object]) -> str:
        if self._find_table is None:
            return cast("str", self._table)
        name = self._find_table(root)
        if not isinstance(name, str) or not name:
            raise UnmappableError("webhook.no_table", "`table` finds no text")
        if len(quote(name, safe="")) > LONGEST_TABLE:
            raise UnmappableError(
                "webhook.table_too_long",
                f"the table's name is over {LONGEST_TABLE} characters, as a topic writes it",
            )
        return name

    def _time_of(self, root: dict[str, object]) -> int | None:
        if self._ts is None:
            return None
        value = self._ts(root)
        try:
            if isinstance(value, str):
                moment = datetime.fromisoformat(value)
                # Without a zone it is UTC, not whatever zone this host happens to be in.
                moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
                return int(moment.timestamp() * 1000)
            if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
                number = float(value)
                number *= 1 if abs(number) >= _MILLISECONDS else 1000
                return int(number) if abs(number) < _NEVER else None
        except (ValueError, OverflowError):
            return None
        return None


def _check_columns(row: dict[str, object]) -> None:
    """Raise where a row's fields cannot all be columns."""
    if len(row) > MOST_COLUMNS and sum(each is not None for each in row.values()) > MOST_COLUMNS:
        raise too_many_columns()
    # A character has four bytes at most.
    if max(map(len, row), default=0) <= _LONGEST_COLUMN // 4:
        return
    for name, value in row.items():
        if value is not None and len(name.encode()) > _LONGEST_COLUMN:
            raise UnmappableError(
                "webhook.column_too_long", f"a column's name is over {_LONGEST_COLUMN} bytes"
            )


def _finder(expression: str) -> Find:
    if _PLAIN.fullmatch(expression):
        return partial(_field, tuple(expression.split(".")))
    return cast("Find", jmespath.compile(expression).search)


def _field(names: tuple[str, ...], root: dict[str, object]) -> object:
    """What JMESPath finds for names with dots between; a tenth of its time."""
    value: object = root
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value
