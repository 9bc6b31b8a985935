"""The shapes that tables had, version by version, over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import override

from control.explorer.page_tokens import question_digest
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.server.statuses import invalid, not_found
from control.services.message_filters import check_source
from control.services.moments import timestamp
from control.services.paging import bounded, page

if TYPE_CHECKING:
    import grpc

    from connectors.contracts.changes import TableSchema
    from connectors.jetstream.shape_versions import TableVersions, Version
    from control.explorer.explorer import Explorer
    from control.services.calls import Workers

    _Context = grpc.aio.ServicerContext[object, object]

_MILLISECOND = 1_000_000


class _Entry(NamedTuple):
    table: TableVersions
    version: Version

    @property
    def key(self) -> str:
        """Sorts as the list does."""
        table = self.table
        return f"{table.source} {table.schema} {table.name} {self.version.number:08}"


class SchemaService(cdc_pb2_grpc.SchemaServiceServicer):
    """The shapes that tables had.

    Args:
        explorer: Reads what is stored.
        workers: Where work is done.
    """

    def __init__(self, explorer: Explorer, workers: Workers) -> None:
        self._explorer, self._workers = explorer, workers

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        cdc_pb2_grpc.add_SchemaServiceServicer_to_server(self, server)

    @override
    async def ListSchemas(
        self, request: cdc_pb2.ListSchemasRequest, context: _Context
    ) -> cdc_pb2.ListSchemasResponse:
        """By source, schema, table and version."""
        check_source(request.source, "source")

        def work() -> cdc_pb2.ListSchemasResponse:
            if request.source:
                self._check_known(request.source)
            kind = question_digest("schemas", request.source, request.table)
            found = [
                _Entry(table, version)
                for table in self._explorer.schemas(request.source, request.table)
                for version in table.versions
            ]
            chosen, following = page(
                sorted(found, key=lambda entry: entry.key),
                lambda entry: entry.key,
                kind,
                request.page_size,
                request.page_token,
            )
            items, token = bounded(
                kind, ((entry.key, self._schema(entry)) for entry in chosen), following
            )
            return cdc_pb2.ListSchemasResponse(schemas=items, next_page_token=token)

        return await self._workers.run(work)

    @override
    async def GetSchema(
        self, request: cdc_pb2.GetSchemaRequest, context: _Context
    ) -> cdc_pb2.Schema:
        """One version, the latest unless another one is asked for."""
        for name, value in (("source", request.source), ("table", request.table)):
            if not value:
                raise invalid("control.missing", f"name the {name}", where=name)
        check_source(request.source, "source")
        if request.version < 0:
            raise invalid("control.version", "versions begin at 1", where="version")

        def work() -> cdc_pb2.Schema:
            self._check_known(request.source)
            tables = self._explorer.schemas(request.source, request.table)
            if len(tables) > 1:
                names = ", ".join(f"{each.schema}.{each.name}" for each in tables)
                raise invalid("control.table", f"it may be any of {names}", where="table")
            for table in tables:
                for version in reversed(table.versions):
                    if request.version in (0, version.number):
                        return self._schema(_Entry(table, version))
            wanted = f"/versions/{request.version}" if request.version else ""
            raise not_found(f"sources/{request.source}/tables/{request.table}{wanted}")

        return await self._workers.run(work)

    def _check_known(self, source: str) -> None:
        if source not in self._explorer.sources():
            raise not_found(f"sources/{source}")

    def _schema(self, entry: _Entry) -> cdc_pb2.Schema:
        table, version = entry
        return _message(table, version, self._explorer.shape(version.hash))


def _message(table: TableVersions, version: Version, shape: TableSchema) -> cdc_pb2.Schema:
    return cdc_pb2.Schema(
        source=table.source,
        schema=table.schema,
        table=table.name,
        version=version.number,
        hash=version.hash,
        first_position=version.position,
        capture_time=timestamp(version.time * _MILLISECOND),
        columns=[
            cdc_pb2.SchemaColumn(name=column.name, type=column.type) for column in shape.columns
        ],
        key=shape.key,
        dialect=shape.dialect,
    )
