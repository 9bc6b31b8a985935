"""The SQL that brings rows, given as JSON, into a table of the target.

Free of I/O. Each statement takes whole rows as one JSON array: the server takes them apart
(`json_to_recordset`), so that a value reaches the input function of its type exactly as the source
wrote it, and our side never decodes it. Parameters are positional (`$1`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Field:
    """A column as it is written.

    Attributes:
        name: Its name in the envelope and in the target.
        kind: How its values appear in the envelope (`contracts.Column.json`).
        type: Its type in the target, schema-qualified where needed.
        fixed: Generated always as identity: may be inserted, but not updated.
        json_null: A null in the envelope is the JSON null, not an SQL NULL.
    """

    name: str
    kind: str
    type: str
    fixed: bool = False
    json_null: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """What is written of one shape of one table.

    Attributes:
        schema: Of the target table.
        name: Of the target table.
        key: Columns that identify a row; empty for a history table.
        fields: All that is written, the key's among them.
        deleted: The one of them that marks deleted rows; empty: there is none.
    """

    schema: str
    name: str
    key: tuple[str, ...]
    fields: tuple[Field, ...]
    deleted: str = ""

    def without(self, missing: Iterable[str]) -> Form:
        """The form for rows that lack the values of some columns."""
        absent = frozenset(missing).difference(self.key)
        fields = tuple(field for field in self.fields if field.name not in absent)
        return replace(self, fields=fields)

    def with_json_nulls(self, names: Iterable[str]) -> Form:
        """The form for rows in which a null of these columns is the JSON null."""
        nulls = frozenset(names)
        if not nulls:
            return self
        fields = tuple(
            replace(field, json_null=True) if field.name in nulls else field
            for field in self.fields
        )
        return replace(self, fields=fields)

    @property
    def table(self) -> sql.Identifier:
        """The table's qualified name."""
        return sql.Identifier(self.schema, self.name)

    @property
    def key_fields(self) -> tuple[Field, ...]:
        """The key's columns, in the order of the columns."""
        by_name = {field.name: field for field in self.fields}
        # A key has no SQL NULL, and not every row that names a key tells of its JSON nulls.
        return tuple(replace(by_name[name], json_null=True) for name in self.key)

    @property
    def updated(self) -> tuple[Field, ...]:
        """The columns that an update of a row sets."""
        return tuple(f for f in self.fields if f.name not in self.key and not f.fixed)


def insert(form: Form) -> bytes:
    """Insert rows ($1: JSON array), whatever is there."""
    return _render(
        sql.SQL("{insert} SELECT {values} FROM {rows}").format(
            insert=_insert(form),
            values=_list(_value(field, "x") for field in form.fields),
            rows=_rows(form.fields, "$1", "x"),
        )
    )


def upsert(form: Form) -> bytes:
    """Insert rows ($1: JSON array), or overwrite the ones with the same key."""
    action: sql.Composable = sql.SQL("NOTHING")
    if form.updated:
        action = sql.SQL("UPDATE SET {}").format(
            _list(
                sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(field.name))
                for field in form.updated
            )
        )
    return _render(
        sql.SQL("{insert} SELECT {values} FROM {rows} ON CONFLICT ({key}) DO {action}").format(
            insert=_insert(form),
            values=_list(_value(field, "x") for field in form.fields),
            rows=_rows(form.fields, "$1", "x"),
            key=_list(map(sql.Identifier, form.key)),
            action=action,
        )
    )


def update(form: Form) -> bytes | None:
    """Overwrite the form's columns of rows ($1) that exist; None when there is nothing to set."""
    if not form.updated:
        return None
    return _render(
        sql.SQL("UPDATE {table} AS t SET {sets} FROM {rows} WHERE {same}").format(
            table=form.table,
            sets=_sets(form.updated, "x"),
            rows=_rows(form.fields, "$1", "x"),
            same=_same(form.key_fields, "x"),
        )
    )


def insert_absent(form: Form) -> bytes:
    """Insert those rows ($1) whose key is not there yet.

    `ON CONFLICT` would not do: NOT NULL is checked before it, also on columns that the form lacks.
    """
    return _render(
        sql.SQL(
            "{insert} SELECT {values} FROM {rows}"
            " WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {same})"
        ).format(
            insert=_insert(form),
            values=_list(_value(field, "x") for field in form.fields),
            rows=_rows(form.fields, "$1", "x"),
            table=form.table,
            same=_same(form.key_fields, "x"),
        )
    )


def delete(form: Form) -> bytes:
    """Delete the rows of some keys ($1: JSON array of key objects), or mark them as deleted."""
    if form.deleted:
        mark = next(field for field in form.fields if field.name == form.deleted)
        return _render(
            sql.SQL("UPDATE {table} AS t SET {sets} FROM {rows} WHERE {same} AND {alive}").format(
                table=form.table,
                sets=_sets([mark], "x"),
                rows=_rows((*form.key_fields, mark), "$1", "x"),
                same=_same(form.key_fields, "x"),
                alive=_alive(form),
            )
        )
    return _render(
        sql.SQL("DELETE FROM {table} AS t USING {rows} WHERE {same}").format(
            table=form.table,
            rows=_rows(form.key_fields, "$1", "x"),
            same=_same(form.key_fields, "x"),
        )
    )


def clear_way(form: Form) -> bytes:
    """Delete the row that stands at the new key ($2) of a row that is about to move from $1."""
    return _render(
        sql.SQL(
            "DELETE FROM {table} AS t USING {new} WHERE {same}"
            " AND EXISTS (SELECT FROM {table} AS t, {old} WHERE {moving})"
        ).format(
            table=form.table,
            new=_rows(form.key_fields, "$2", "n"),
            same=_same(form.key_fields, "n"),
            old=_rows(form.key_fields, "$1", "o"),
            moving=_same(form.key_fields, "o"),
        )
    )


def move(form: Form) -> bytes:
    """Overwrite the row with the old key ($1), key included, by the new row ($2)."""
    settable = tuple(field for field in form.fields if not field.fixed)
    return _render(
        sql.SQL("UPDATE {table} AS t SET {sets} FROM {new}, {old} WHERE {same}").format(
            table=form.table,
            sets=_sets(settable, "n"),
            new=_rows(form.fields, "$2", "n"),
            old=_rows(form.key_fields, "$1", "o"),
            same=_same(form.key_fields, "o"),
        )
    )


def truncate(forms: Sequence[Form]) -> bytes:
    """Empty tables together, as foreign keys between them demand."""
    return _render(sql.SQL("TRUNCATE TABLE {}").format(_list(form.table for form in forms)))


def mark_all(form: Form) -> bytes:
    """Mark every row of a table as deleted at a time ($1)."""
    return _render(
        sql.SQL("UPDATE {} AS t SET {} = $1 WHERE {}").format(
            form.table, sql.Identifier(form.deleted), _alive(form)
        )
    )


def _alive(form: Form) -> sql.Composed:
    return sql.SQL("{} IS NULL").format(sql.Identifier("t", form.deleted))


def _insert(form: Form) -> sql.Composed:
    override = " OVERRIDING SYSTEM VALUE" if any(field.fixed for field in form.fields) else ""
    return sql.SQL("INSERT INTO {} ({}){}").format(
        form.table,
        _list(sql.Identifier(field.name) for field in form.fields),
        sql.SQL(override),
    )


def _rows(fields: Sequence[Field], parameter: str, alias: str) -> sql.Composed:
    """`FROM` item that yields the fields of a JSON array's objects.

    `json_to_recordset` would hand on a JSON string without its escapes, so that a `json` column
    takes its value from the row's own text instead (`_value`).
    """
    columns = _list(
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(_declared(field)))
        for field in fields
    )
    template = "json_to_recordset({p}::json) AS {x} ({columns})"
    if any(_verbatim(field) for field in fields):
        template = (
            "json_array_elements({p}::json) AS {doc} (doc),"
            " json_to_record({doc}.doc) AS {x} ({columns})"
        )
    return sql.SQL(template).format(
        p=sql.SQL(parameter),
        x=sql.Identifier(alias),
        doc=sql.Identifier(f"{alias}_doc"),
        columns=columns,
    )


# Other types of a column that the target had before do not take the text of a JSON null.
_HOLDS_JSON = ("json", "jsonb", "text")


def _verbatim(field: Field) -> bool:
    return field.kind == "json" and field.type in ("json", "text")


def _declared(field: Field) -> str:
    """The type a value is read as before `_value` turns it into the column's."""
    if field.kind == "base64" and field.type == "bytea":
        return "text"
    if field.kind == "array:base64" and field.type == "bytea[]":
        return "json"
    if field.kind == "array:json" and field.type in ("json[]", "jsonb[]"):
        return "json"
    return field.type


# Each token of a JSON array as a token of PostgreSQL's array syntax (PostgreSQL manual, 8.15.2).
_BYTEA_ARRAY = (
    "CASE json_typeof({x}) WHEN 'string' THEN ({x} #>> '{{}}')::bytea[] ELSE"
    " (SELECT string_agg(CASE left(m[1], 1) WHEN '[' THEN '{{' WHEN ']' THEN '}}'"
    " WHEN ',' THEN ',' WHEN 'n' THEN 'NULL'"
    " ELSE '\"\\\\x' || encode(decode(btrim(m[1], '\"'), 'base64'), 'hex') || '\"' END, ''"
    " ORDER BY n) FROM regexp_matches({x}::text, '(\\[|\\]|,|null|\"[^\"]*\")', 'g')"
    " WITH ORDINALITY AS token (m, n))::bytea[] END"
)
# Lists inside the list are elements, not dimensions. A string is an array as PostgreSQL writes it.
_JSON_ARRAY = (
    "CASE json_typeof({x}) WHEN 'string' THEN ({x} #>> '{{}}')::{array}"
    " WHEN 'array' THEN ARRAY(SELECT CASE json_typeof(e) WHEN 'null' THEN NULL ELSE e::{element}"
    " END FROM json_array_elements({x}) WITH ORDINALITY AS token (e, n) ORDER BY n) END"
)


def _value(field: Field, alias: str) -> sql.Composed:
    column = sql.Identifier(alias, field.name)
    if field.kind == "base64" and field.type == "bytea":
        return sql.SQL("decode({}, 'base64')").format(column)
    if field.kind == "array:base64" and field.type == "bytea[]":
        return sql.SQL(_BYTEA_ARRAY).format(x=column)
    if field.kind == "array:json" and field.type in ("json[]", "jsonb[]"):
        return sql.SQL(_JSON_ARRAY).format(
            x=column, array=sql.SQL(field.type), element=sql.SQL(field.type[:-2])
        )
    if field.kind == "json" and field.json_null and field.type in _HOLDS_JSON:
        # `json_to_record` makes an SQL NULL of it
        return sql.SQL("COALESCE({}, 'null'::{})").format(
            _unless_null(field, alias), sql.SQL(field.type)
        )
    return _unless_null(field, alias)


def _unless_null(field: Field, alias: str) -> sql.Composed:
    column = sql.Identifier(alias, field.name)
    if _verbatim(field):
        doc = sql.Identifier(f"{alias}_doc", "doc")
        raw = sql.SQL("({} -> {})").format(doc, sql.Literal(field.name))
        return sql.SQL(
            "CASE json_typeof({raw}) WHEN 'null' THEN NULL ELSE {raw}::{type} END"
        ).format(raw=raw, type=sql.SQL(field.type))
    return sql.Composed([column])


def _sets(fields: Iterable[Field], alias: str) -> sql.Composed:
    return _list(
        sql.SQL("{} = {}").format(sql.Identifier(field.name), _value(field, alias))
        for field in fields
    )


def _same(fields: Iterable[Field], alias: str) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier("t", field.name), _value(field, alias))
        for field in fields
    )


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _render(query: sql.Composed) -> bytes:
    return query.as_bytes()
