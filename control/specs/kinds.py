"""The kinds of resources: in which section they stand, and which message shows them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from control.pb.cdc.v1 import config_pb2
from control.specs.fields import Resource
from control.specs.reading import to_tree
from control.specs.writing import to_message

if TYPE_CHECKING:
    from control.specs.document import Document, ResourceMeta, Tree

R_co = TypeVar("R_co", bound=Resource, covariant=True)


@dataclass(frozen=True)
class Kind(Generic[R_co]):
    """A kind of resources.

    Attributes:
        section: Of `waxtap.yaml`, and the beginning of their names: `sources`.
        field: How requests call one: `source`.
        message: What shows one.
    """

    section: str
    field: str
    message: type[R_co]

    def resource(self, document: Document, name: str) -> R_co:
        """A resource of the configuration, as it is shown; `name` without the section."""
        entry = entries(document.tree, self.section)[name]
        shown = to_message(entry, self.message, f"{self.section}.{name}")
        shown.name = f"{self.section}/{name}"
        meta = document.metadata.get(shown.name)
        if meta is not None:
            _describe(shown.metadata, meta, shown.name)
        return shown


SOURCES = Kind("sources", "source", config_pb2.Source)
SINKS = Kind("sinks", "sink", config_pb2.Sink)
PIPELINES = Kind("pipelines", "pipeline", config_pb2.Pipeline)
TOPICS = Kind("topics", "topic", config_pb2.Topic)
KINDS: dict[str, Kind[Resource]] = {
    kind.section: kind for kind in (SOURCES, SINKS, PIPELINES, TOPICS)
}


def entries(tree: Tree, section: str) -> dict[str, object]:
    """The entries of a section, by their names."""
    return cast("dict[str, object]", tree.get(section) or {})


def replaced(tree: Tree, section: str, name: str, entry: object | None) -> Tree:
    """A tree in which an entry is this one; None: is no more."""
    others = {each: one for each, one in entries(tree, section).items() if each != name}
    # In its place, since the order of pipelines is theirs to choose.
    known = entries(tree, section) if name in entries(tree, section) else {**others, name: None}
    return tree | {
        section: {
            each: entry if each == name else others[each]
            for each in known
            if each != name or entry is not None
        }
    }


def canonical(tree: Tree) -> Tree:
    """A tree as it is after a way through the API's messages; what has one meaning reads alike.

    Raises:
        ConfigError: A message cannot hold it.
    """
    return tree | {
        section: {
            name: to_tree(to_message(entry, kind.message, f"{section}.{name}"))
            for name, entry in entries(tree, section).items()
        }
        for section, kind in KINDS.items()
        if tree.get(section)
    }


def etag(meta: ResourceMeta, name: str) -> str:
    """Changes with each change of the resource, and when it is made anew."""
    text = f"{name} {meta.created} {meta.generation}"
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _describe(shown: config_pb2.Metadata, meta: ResourceMeta, name: str) -> None:
    shown.etag = etag(meta, name)
    shown.generation = meta.generation
    shown.create_time.FromJsonString(meta.created)
    shown.update_time.FromJsonString(meta.updated)
    shown.updated_by = meta.author
