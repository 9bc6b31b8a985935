"""`waxtap get, list, delete, check`: what is registered at the control service."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal, cast

import grpc
from cyclopts import Parameter

from connectors.errors import ConfigError
from control.cli.client import Service
from control.cli.disposal import DISPOSALS, Keep
from control.cli.output import Format, plain, show, show_messages
from control.cli.pages import pages
from control.cli.shown import COLUMNS, row
from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import cdc_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.cli.shown import Shown

Kind = Literal["sources", "sinks", "pipelines", "topics", "flows", "revisions"]

_DONE, _FAILED = 0, 1
# A source without a snapshot; a service of an earlier version.
_NONE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
_PAGE = 500


def get(name: str, *, output: Format = "yaml", service: Service | None = None) -> None:
    """Show one resource; a source with how far its first snapshot is.

    Args:
        name: Such as sources/shop, topics/db.users or flows/capture/shop.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    service = service or Service()
    kind = name.partition("/")[0]
    with service.channel() as channel:
        found = _get(channel, kind, name)
        more = _first_snapshot(channel, name) if kind == "sources" else {}
    if output == "table":
        show_messages([found], output, [row(found)], COLUMNS[kind])
    else:
        show(plain(found) | more, output)


def list_(
    kind: Kind, *, limit: int = 1000, output: Format = "table", service: Service | None = None
) -> None:
    """List resources by name, revisions from the latest one on.

    Args:
        kind: Of what.
        limit: At most so many.
        output: A table, JSON or YAML.
        service: Where the control service is.
    """
    service = service or Service()
    with service.channel() as channel:
        found: list[Shown] = []
        for each in _list(channel, kind):
            if len(found) == limit:
                print(f"there are more: --limit {2 * limit}", file=sys.stderr)
                break
            found.append(each)
    show_messages(found, output, map(row, found), COLUMNS[kind])


def delete(
    name: str,
    *,
    server_objects: Annotated[Keep | None, Parameter(name="--server-objects")] = None,
    stream: Annotated[Keep | None, Parameter(name="--stream")] = None,
    etag: str = "",
    service: Service | None = None,
) -> None:
    """Delete a resource, and thereby stop its flow.

    Args:
        name: Such as sources/shop.
        server_objects: Of a source: what becomes of the slot and the publication on its server.
        stream: Of a source: what becomes of its stream, with every message in it.
        etag: Only this version of it.
        service: Where the control service is.
    """
    service = service or Service()
    kind = name.partition("/")[0]
    if kind == "sources" and (server_objects is None or stream is None):
        raise ConfigError(
            "cli.disposal",
            "what becomes of its slot and of its stream must be said",
            where=name,
            cure="--server-objects keep|drop --stream keep|drop",
        )
    with service.channel() as channel:
        stub = cdc_pb2_grpc.ConfigServiceStub(channel)
        match kind:
            case "sources":
                stub.DeleteSource(
                    cdc.DeleteSourceRequest(
                        name=name,
                        etag=etag,
                        server_objects=DISPOSALS[server_objects or "keep"],
                        stream=DISPOSALS[stream or "keep"],
                    ),
                )
            case "sinks":
                stub.DeleteSink(cdc.DeleteSinkRequest(name=name, etag=etag))
            case "pipelines":
                stub.DeletePipeline(cdc.DeletePipelineRequest(name=name, etag=etag))
            case "topics":
                stub.DeleteTopic(cdc.DeleteTopicRequest(name=name, etag=etag))
            case _:
                raise _unknown(name)
    print(f"deleted {name}")


def check(*names: str, output: Format = "table", service: Service | None = None) -> int:
    """Look whether sources and sinks can run: runs their preflight, which changes nothing.

    Args:
        names: Such as sources/shop; all sources and sinks unless given.
        output: Text, JSON or YAML.
        service: Where the control service is.
    """
    service = service or Service()
    answers: dict[str, cdc.TestConnectionResponse] = {}
    with service.channel() as channel:
        stub = cdc_pb2_grpc.ConfigServiceStub(channel)
        wanted = list(names) or [
            each.name
            for kind in ("sources", "sinks")
            for each in _list(channel, kind)
            if not isinstance(each, cdc.Revision)
        ]
        for name in wanted:
            answers[name] = stub.TestConnection(
                cdc.TestConnectionRequest(name=name),
            )
    if output == "table":
        for name, answer in answers.items():
            print(f"{name}: {'ok' if answer.ok else 'cannot run'}")
            for one in answer.findings:
                place = f"{one.where}: " if one.where else ""
                print(f"  [{one.code}] {place}{one.message}{f' → {one.cure}' if one.cure else ''}")
    else:
        show({name: plain(answer) for name, answer in answers.items()}, output)
    return _DONE if all(answer.ok for answer in answers.values()) else _FAILED


def _first_snapshot(channel: grpc.Channel, source: str) -> dict[str, object]:
    """How far the first snapshot of a source is, if it has one."""
    stub = cdc_pb2_grpc.BackfillServiceStub(channel)
    try:
        found = stub.GetBackfill(cdc.GetBackfillRequest(name=f"{source}/backfills/initial"))
    except grpc.RpcError as error:
        # What a call of a stub raises is both, which the types do not tell.
        if cast("grpc.Call", error).code() in _NONE:
            return {}
        raise
    told = plain(found)
    del told["name"]
    return {"first_snapshot": told}


def _get(channel: grpc.Channel, kind: str, name: str) -> Shown:
    stub = cdc_pb2_grpc.ConfigServiceStub(channel)
    match kind:
        case "sources":
            return stub.GetSource(cdc.GetSourceRequest(name=name))
        case "sinks":
            return stub.GetSink(cdc.GetSinkRequest(name=name))
        case "pipelines":
            return stub.GetPipeline(cdc.GetPipelineRequest(name=name))
        case "topics":
            return stub.GetTopic(cdc.GetTopicRequest(name=name))
        case "flows":
            flows = cdc_pb2_grpc.FlowServiceStub(channel)
            return flows.GetFlow(cdc.GetFlowRequest(name=name))
    raise _unknown(name)


def _list(channel: grpc.Channel, kind: str) -> Iterator[Shown]:
    """All of a kind, page by page."""
    stub = cdc_pb2_grpc.ConfigServiceStub(channel)
    match kind:
        case "sources":
            for sources in pages(stub.ListSources, cdc.ListSourcesRequest(page_size=_PAGE)):
                yield from sources.sources
        case "sinks":
            for sinks in pages(stub.ListSinks, cdc.ListSinksRequest(page_size=_PAGE)):
                yield from sinks.sinks
        case "pipelines":
            for found in pages(stub.ListPipelines, cdc.ListPipelinesRequest(page_size=_PAGE)):
                yield from found.pipelines
        case "topics":
            for topics in pages(stub.ListTopics, cdc.ListTopicsRequest(page_size=_PAGE)):
                yield from topics.topics
        case "flows":
            list_flows = cdc_pb2_grpc.FlowServiceStub(channel).ListFlows
            for flows in pages(list_flows, cdc.ListFlowsRequest(page_size=_PAGE)):
                yield from flows.flows
        case _:
            for kept in pages(stub.ListRevisions, cdc.ListRevisionsRequest(page_size=_PAGE)):
                yield from kept.revisions


def _unknown(name: str) -> ConfigError:
    return ConfigError(
        "cli.unknown_kind",
        f"{name!r} is no name of a resource",
        cure="sources/NAME, sinks/NAME, pipelines/NAME, topics/NAME, flows/capture/NAME or"
        " flows/deliver/NAME",
    )
