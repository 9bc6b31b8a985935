"""TestConnection: the preflight of a source or a sink, which changes nothing there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import WaxtapError
from control.pb.cdc.v1 import cdc_pb2
from control.server.statuses import invalid, not_found
from control.services.places import in_request
from control.services.resource_names import existing
from control.services.resources import require_given
from control.specs.checking import check
from control.specs.connecting import sink_of, source_of
from control.specs.kinds import KINDS, entries, replaced
from control.specs.reading import to_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.jetstream.spec import NatsSpec
    from control.specs.document import Tree

# One that is not registered has no name yet.
_UNNAMED = "unnamed"


def tested(
    request: cdc_pb2.TestConnectionRequest,
    tree: Tree,
    environment: Mapping[str, str],
    nats: NatsSpec,
) -> cdc_pb2.TestConnectionResponse:
    """What keeps a source or a sink from running.

    Args:
        request: Which.
        tree: The configuration.
        environment: Where references are looked up.
        nats: Where the streams are.

    Raises:
        ApiError: There is none, or none is given.
        ConfigError: The configuration of the one that is given is wrong.
    """
    section, name, tree = _wanted(request, tree)
    kind = KINDS[section]
    entry = entries(tree, section)[name]
    type_ = str(entry.get("type", "")) if isinstance(entry, dict) else ""
    with in_request(kind, name, [type_]):
        config = check(tree, environment, nats, {(section, name)})
    try:
        if section == "sources":
            found = source_of(config.sources[name], nats).check()
        else:
            found = sink_of(config.sinks[name], nats).check()
    except WaxtapError as error:
        found = [error]
    return cdc_pb2.TestConnectionResponse(
        ok=not found,
        findings=[
            cdc_pb2.Finding(code=one.code, message=one.message, where=one.where, cure=one.cure)
            for one in found
        ],
    )


def _wanted(request: cdc_pb2.TestConnectionRequest, tree: Tree) -> tuple[str, str, Tree]:
    """Section and name of what is meant, and a configuration that holds it."""
    match request.WhichOneof("target"):
        case "name":
            section = request.name.partition("/")[0]
            if section not in ("sources", "sinks"):
                raise not_found(request.name)
            return section, existing(KINDS[section], tree, request.name), tree
        case "source":
            require_given(request.source, "source", is_given=True)
            section, name, given = "sources", request.source.name, to_tree(request.source)
        case "sink":
            require_given(request.sink, "sink", is_given=True)
            section, name, given = "sinks", request.sink.name, to_tree(request.sink)
        case _:
            raise invalid(
                "control.missing",
                "nothing is given to test",
                where="name",
                cure="a name, a source or a sink",
            )
    short = name.partition("/")[2] or _UNNAMED
    return section, short, replaced(tree, section, short, given)
