"""Where in a request a fault lies: `sinks.warehouse.from` of the tree is `sink.sources` there."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from connectors.errors import WaxtapError
from control.specs.fields import field_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from control.specs.fields import Resource
    from control.specs.kinds import Kind


@contextmanager
def in_request(
    kind: Kind[Resource], name: str, types: Sequence[str], id_field: str = ""
) -> Iterator[None]:
    """Give errors about a resource their place in the request that holds it.

    Args:
        kind: Of the resource.
        name: Of the resource, without the section.
        types: Of its connector, the last one counts; an empty text: it has none.
        id_field: The request's field that holds the name, if it has one of its own.
    """
    try:
        yield
    except WaxtapError as error:
        path = f"{kind.section}.{name}"
        if error.where == path:
            bad_name = error.code == "config.bad_name" and id_field
            error.where = id_field if bad_name else kind.field
        elif error.where.startswith(f"{path}."):
            rest = error.where.removeprefix(f"{path}.").split(".")
            error.where = f"{kind.field}.{field_path(kind.message, types[-1], rest)}"
        raise
