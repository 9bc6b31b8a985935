"""`waxtap schemas`: the shapes that tables had, version by version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import ConfigError
from control.cli.client import Service
from control.cli.output import Format, console, plain, show, show_messages
from control.cli.pages import pages
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DONE = 0
_LIST = ("source", "table", "version", "since", "captured", "columns", "key")
_COLUMNS = ("column", "type", "key")


def schemas(
    source: str = "",
    table: str = "",
    *,
    version: int = 0,
    diff: int = 0,
    output: Format = "table",
    service: Service | None = None,
) -> int:
    """List the versions of tables' shapes, show one, or what changed between two.

    Args:
        source: One source only.
        table: One table only, as `table` or `schema.table`.
        version: Show this version's columns.
        diff: With --version: what changed from this version to that one.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    if version and not (source and table):
        raise ConfigError("cli.table", "a version is one of a table: name source and table")
    if diff and not version:
        raise ConfigError("cli.version", "name the version to compare with: --version")
    with (service or Service()).channel() as channel:
        stub = cdc_pb2_grpc.SchemaServiceStub(channel)
        if not version:
            request = cdc_pb2.ListSchemasRequest(source=source, table=table)
            found = [each for page in pages(stub.ListSchemas, request) for each in page.schemas]
            show_messages(found, output, map(_row, found), _LIST)
            return _DONE
        wanted = cdc_pb2.GetSchemaRequest(source=source, table=table, version=version)
        one = stub.GetSchema(wanted)
        if diff:
            wanted.version = diff
            _differences(stub.GetSchema(wanted), one, output)
            return _DONE
    if output == "table":
        show_messages([one], output, _rows(one), _COLUMNS)
    else:
        show(plain(one), output)
    return _DONE


def _row(schema: cdc_pb2.Schema) -> Mapping[str, object]:
    return {
        "source": schema.source,
        "table": f"{schema.schema}.{schema.table}",
        "version": schema.version,
        "since": schema.first_position,
        "captured": schema.capture_time.ToJsonString(),
        "columns": ", ".join(f"{column.name} {column.type}" for column in schema.columns),
        "key": ", ".join(schema.key),
    }


def _rows(schema: cdc_pb2.Schema) -> Iterator[Mapping[str, object]]:
    for column in schema.columns:
        key = "yes" if column.name in schema.key else ""
        yield {"column": column.name, "type": column.type, "key": key}


def _differences(old: cdc_pb2.Schema, new: cdc_pb2.Schema, output: str) -> None:
    before = {column.name: column.type for column in old.columns}
    after = {column.name: column.type for column in new.columns}
    told = [f"+ {name} {type_}" for name, type_ in after.items() if name not in before]
    told += [f"- {name} {type_}" for name, type_ in before.items() if name not in after]
    told += [
        f"~ {name} {before[name]} → {type_}"
        for name, type_ in after.items()
        if name in before and before[name] != type_
    ]
    if old.key != new.key:
        told.append(f"~ key ({', '.join(old.key)}) → ({', '.join(new.key)})")
    if output == "table":
        for line in told:
            console().print(line, highlight=False)
        return
    show(told, "json" if output == "json" else "yaml")
