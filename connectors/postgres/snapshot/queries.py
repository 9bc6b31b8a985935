"""The statement that reads one chunk of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, LiteralString, NamedTuple

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from connectors.postgres.snapshot.tables import Described, KeyColumn

# How many pages of a table without a key are looked at in one statement.
PAGES = 2048

_BUILT_IN = "pg_catalog"


def by_key(
    described: Described,
    after: Sequence[str],
    until: Sequence[str],
    limit: int,
    *,
    partitioned: bool,
) -> sql.Composed:
    """Reads at most `limit` rows whose key follows `after`, in the key's order.

    The comparison is the index' own, so that what it says and the order of rows agree whatever the
    type and its collation.

    Args:
        described: The table.
        after: A key; empty: from the first row.
        until: The last key that is wanted; empty: up to the last row.
        limit: Of rows.
        partitioned: Whether partitions are to be read as well.
    """
    conditions = _filter(described)
    if after:
        conditions.append(_compared(described.key, ">", after))
    if until:
        conditions.append(_compared(described.key, "<=", until))
    return sql.SQL("COPY (SELECT {} FROM {} {} ORDER BY {} LIMIT {}) TO STDOUT").format(
        _columns(described),
        _from((described.relation.schema, described.relation.name), partitioned),
        _where(conditions),
        _ordered(described),
        sql.Literal(limit),
    )


def bound(
    described: Described, after: Sequence[str], limit: int, *, partitioned: bool
) -> sql.Composed:
    """Reads the key of the `limit`-th row behind `after`, and of the one behind it.

    The publication's condition does not count: the index alone can answer this.
    """
    return sql.SQL("COPY (SELECT {} FROM {} {} ORDER BY {} OFFSET {} LIMIT 2) TO STDOUT").format(
        sql.SQL(", ").join(sql.Identifier(column.name) for column in described.key),
        _from((described.relation.schema, described.relation.name), partitioned),
        _where([_compared(described.key, ">", after)] if after else []),
        _ordered(described),
        sql.Literal(limit - 1),
    )


def by_place(
    relation: tuple[str, str], described: Described, after: str, end: int, limit: int
) -> sql.Composed:
    """Reads at most `limit` rows of the pages before `end` that lie behind `after`, as they lie.

    The row's place comes before its columns.

    Args:
        relation: Schema and name of what holds the rows.
        described: The table.
        after: A `ctid`.
        end: A page's number.
        limit: Of rows.
    """
    conditions: list[sql.Composable] = [
        *_filter(described),
        sql.SQL("ctid OPERATOR(pg_catalog.>) {}::pg_catalog.tid").format(sql.Literal(after)),
        sql.SQL("ctid OPERATOR(pg_catalog.<) {}::pg_catalog.tid").format(sql.Literal(f"({end},0)")),
    ]
    return sql.SQL("COPY (SELECT ctid, {} FROM ONLY {} {} LIMIT {}) TO STDOUT").format(
        _columns(described), sql.Identifier(*relation), _where(conditions), sql.Literal(limit)
    )


def by_keys(
    described: Described,
    columns: Sequence[str],
    types: Mapping[str, str],
    keys: Sequence[Sequence[str]],
    *,
    partitioned: bool,
) -> sql.Composed:
    """Reads these columns of the rows that have one of the keys, in no order.

    Args:
        described: The table.
        columns: Their names.
        types: Those of the key's columns, as DDL writes them.
        keys: At least one; values in the key's own order.
        partitioned: Reading the table reads its partitions.
    """
    relation, key = described.relation, described.key
    first, *others = keys
    # The first row tells the types of all.
    typed = sql.SQL(", ").join(
        sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(types[column.name]))
        for column, value in zip(key, first, strict=True)
    )
    values = [typed, *(_list(sql.Literal(value) for value in each) for each in others)]
    names = [sql.Identifier(f"waxtap_key_{place}") for place in range(len(key))]
    equal = sql.SQL(" AND ").join(
        sql.SQL("t.{} {} k.{}").format(sql.Identifier(column.name), _operator(column, "="), name)
        for column, name in zip(key, names, strict=True)
    )
    return sql.SQL("COPY (SELECT {} FROM {} AS t, (VALUES {}) AS k ({}) {}) TO STDOUT").format(
        _list(sql.SQL("t.{}").format(sql.Identifier(column)) for column in columns),
        _from((relation.schema, relation.name), partitioned),
        sql.SQL(", ").join(sql.SQL("({})").format(each) for each in values),
        _list(names),
        _where([*_filter(described), equal]),
    )


class Explained(NamedTuple):
    """What a condition is tried with.

    Attributes:
        check: Can be prepared only if the condition is one, and nothing but one.
        explain: Tells how many rows fulfil it; only for what `check` was prepared with.
    """

    check: str
    explain: str


def explained(relation: tuple[str, str], condition: str, *, partitioned: bool) -> Explained:
    """Statements that try a condition which somebody has written.

    What stands in brackets and in parentheses at once can end neither of them, so that nothing
    but an expression fits: no further statement, and no UNION with another table.
    """
    source = _from(relation, partitioned).as_string()
    return Explained(
        # The condition is SQL by intent.
        f"SELECT ARRAY[\n{condition}\n]::boolean[] FROM {source} WHERE (\n{condition}\n)",  # noqa: S608
        f"EXPLAIN (FORMAT JSON) SELECT FROM {source} WHERE (\n{condition}\n)",
    )


def exists(relation: tuple[str, str], *, partitioned: bool) -> sql.Composed:
    """Tells whether there is a row at all."""
    return sql.SQL("SELECT EXISTS (SELECT FROM {})").format(_from(relation, partitioned))


def _columns(described: Described) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in described.relation.columns)


def _from(relation: tuple[str, str], partitioned: bool) -> sql.Composed:
    # A table's inheritance children are published on their own account.
    return sql.SQL("" if partitioned else "ONLY ") + sql.Identifier(*relation)


def _filter(described: Described) -> list[sql.Composable]:
    if not described.row_filter:
        return []
    # The server's own text, printed with every name qualified.
    return [sql.SQL("({})").format(sql.SQL(described.row_filter))]


def _where(conditions: Sequence[sql.Composable]) -> sql.Composable:
    if not conditions:
        return sql.SQL("")
    return sql.SQL("WHERE ") + sql.SQL(" AND ").join(conditions)


def _operator(column: KeyColumn, name: LiteralString) -> sql.Composable:
    return sql.SQL("OPERATOR({}." + name + ")").format(sql.Identifier(column.operators))


def _ordered(described: Described) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.Identifier(column.name)
        if column.operators == _BUILT_IN
        else sql.SQL("{} USING {}").format(sql.Identifier(column.name), _operator(column, "<"))
        for column in described.key
    )


def _compared(
    key: Sequence[KeyColumn], comparison: Literal[">", "<="], values: Sequence[str]
) -> sql.Composable:
    columns = [sql.Identifier(column.name) for column in key]
    literals = [sql.Literal(value) for value in values]
    if all(column.operators == _BUILT_IN for column in key):
        return sql.SQL("({}) OPERATOR(pg_catalog." + comparison + ") ({})").format(
            _list(columns), _list(literals)
        )
    # One operator for all columns is all that a comparison of rows has.
    choices: list[sql.Composable] = []
    for place, column in enumerate(key):
        parts = [
            sql.SQL("{} {} {}").format(columns[i], _operator(key[i], "="), literals[i])
            for i in range(place)
        ]
        last = place == len(key) - 1
        operator = comparison if last else ">" if comparison == ">" else "<"
        parts.append(
            sql.SQL("{} {} {}").format(columns[place], _operator(column, operator), literals[place])
        )
        choices.append(sql.SQL(" AND ").join(parts))
    return sql.SQL("(({}))").format(sql.SQL(") OR (").join(choices))


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)
