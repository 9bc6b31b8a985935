"""What a table says of each kind of resource."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from control.pb.cdc.v1 import cdc_pb2, config_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.timestamp_pb2 import Timestamp

Shown: TypeAlias = (
    config_pb2.Source
    | config_pb2.Sink
    | config_pb2.Pipeline
    | config_pb2.Topic
    | cdc_pb2.Flow
    | cdc_pb2.Revision
)

COLUMNS = {
    "sources": ("name", "type", "tables", "generation", "updated", "by"),
    "sinks": ("name", "type", "topics", "sources", "generation", "updated", "by"),
    "pipelines": ("name", "sources", "tables", "topic", "generation", "updated", "by"),
    "topics": ("name", "partitions", "generation", "updated", "by"),
    "flows": ("name", "state", "since", "restarts", "owner", "error"),
    "revisions": ("revision", "time", "by", "changed"),
}


def row(shown: Shown) -> dict[str, object]:
    """A table's row: its cells by the columns' names."""
    if isinstance(shown, cdc_pb2.Flow):
        return {
            "name": shown.name,
            "state": cdc_pb2.Flow.State.Name(shown.state).removeprefix("STATE_").lower(),
            "since": _time(shown.start_time) if shown.HasField("start_time") else "",
            "restarts": shown.restarts,
            "owner": shown.owner,
            "error": shown.last_error,
        }
    if isinstance(shown, cdc_pb2.Revision):
        changed = [line[6:] for line in shown.diff.splitlines() if line.startswith("+++ b/")]
        return {
            "revision": shown.revision,
            "time": _time(shown.create_time),
            "by": shown.author,
            "changed": ", ".join(changed),
        }
    cells: dict[str, object] = {
        "name": shown.name,
        "generation": shown.metadata.generation,
        "updated": _time(shown.metadata.update_time),
        "by": shown.metadata.updated_by,
    }
    if isinstance(shown, config_pb2.Topic):
        return cells | {"partitions": shown.partitions or 1}
    if isinstance(shown, config_pb2.Pipeline):
        return cells | {
            "sources": _listed(shown.sources),
            "tables": _listed(shown.tables),
            "topic": shown.topic or "each table's own",
        }
    kind = shown.WhichOneof("config") or ""
    if isinstance(shown, config_pb2.Sink):
        topics, sources = _listed(shown.topics), _listed(shown.sources)
        return cells | {"type": kind, "topics": topics, "sources": sources}
    tables: list[str] = list(getattr(getattr(shown, kind, None), "tables", ()))
    return cells | {"type": kind, "tables": _listed(tables)}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "all"


def _time(stamp: Timestamp) -> str:
    return f"{stamp.ToDatetime():%Y-%m-%d %H:%M:%S}Z"
