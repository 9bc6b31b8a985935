"""The system catalog as the decoder asks for it, over an ordinary connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from connectors.errors import RetryableError
from connectors.postgres.pgoutput.types import TypeInfo
from connectors.postgres.server import Connection, connect, rows

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

# A true array type is the one that some type names as its `typarray`; `typelem` alone is also set
# on fixed-length types such as `name` and `point`. A domain over an array is a domain.
_TYPES = """
SELECT t.oid::bigint, t.typname::text, n.nspname::text, t.typtype::text,
       coalesce((SELECT e.oid::bigint FROM pg_type e WHERE e.typarray = t.oid), 0),
       t.typdelim::text
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid = ANY (%s::oid[])
"""
# indkey counts from 0 and ends with the INCLUDE columns, which are no part of the key.
_PRIMARY_KEY = """
SELECT a.attname::text
FROM pg_index i
CROSS JOIN LATERAL generate_series(0, i.indnkeyatts - 1) AS k
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
WHERE i.indrelid = %s::oid AND i.indisprimary AND i.indisvalid
ORDER BY k
"""


class ServerCatalog:
    """Implements `types.Catalog`; types are cached, keys are not, because they change.

    Args:
        dsn: The user's connection string.
        source: The source's name.
        connection: One that is open already and is taken over.
    """

    def __init__(self, dsn: str, source: str, connection: Connection | None = None) -> None:
        self._dsn = dsn
        self._source = source
        self._connection = connection
        self._types: dict[int, TypeInfo] = {}

    def types(self, oids: Collection[int]) -> dict[int, TypeInfo]:
        """Look types up; those that no longer exist are missing from the result.

        Raises:
            RetryableError: The server cannot be reached.
        """
        missing = [oid for oid in oids if oid not in self._types]
        if missing:
            for oid, name, schema, typtype, element, delimiter in self._ask(_TYPES, missing):
                self._types[cast("int", oid)] = TypeInfo(
                    oid=cast("int", oid),
                    name=str(name),
                    schema=str(schema),
                    typtype=str(typtype),
                    element_oid=cast("int", element),
                    delimiter=str(delimiter),
                )
        return {oid: self._types[oid] for oid in oids if oid in self._types}

    def primary_key(self, relation_oid: int) -> tuple[str, ...]:
        """The columns of a table's primary key, in key order; empty when it has none.

        Raises:
            RetryableError: The server cannot be reached.
        """
        return tuple(str(name) for (name,) in self._ask(_PRIMARY_KEY, relation_oid))

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, query: str, parameter: int | Sequence[int]) -> list[tuple[object, ...]]:
        if self._connection is not None:
            try:
                return rows(self._connection, query, parameter)
            except RetryableError:
                # An idle connection may have been cut long ago: one fresh one decides.
                self.close()
        self._connection = connect(self._dsn, self._source)
        return rows(self._connection, query, parameter)
