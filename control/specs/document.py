"""The document that holds the whole configuration, as it lies in its bucket.

JSON, compressed by zlib where that is worth it. What it holds: the tree of `waxtap.yaml` without
`nats`, its references unresolved; what is known of each resource; who made this revision, when, and
what it changed; and the answers to requests of the last hour, so that one that is repeated is
carried out once, whatever service it reaches.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgspec

from connectors.errors import GapError

if TYPE_CHECKING:
    from collections.abc import Mapping

Tree = dict[str, object]

# Each entry of these is a resource, such as `sources/shop`.
SECTIONS = ("sources", "topics", "pipelines", "sinks")
# Each of these is one as a whole: `settings/dead_letters`.
SETTINGS = ("python_transforms", "dead_letters")

_COMPRESS_FROM = 4096
_ZLIB = b"\x78"
_FAST = 1
_FORMAT = 1


class ResourceMeta(msgspec.Struct, frozen=True):
    """What is known of a resource beside its settings.

    Attributes:
        generation: Counts the changes of its settings, from 1.
        created: When it was created (RFC 3339).
        updated: When it was changed last (RFC 3339).
        author: Who changed it last.
    """

    generation: int
    created: str
    updated: str
    author: str


class Difference(msgspec.Struct, frozen=True):
    """What became of a resource.

    Attributes:
        name: Such as `sources/shop` or `settings/dead_letters`.
        action: `create`, `update` or `delete`.
        diff: A unified diff of its settings as YAML.
    """

    name: str
    action: str
    diff: str


class Answered(msgspec.Struct, frozen=True):
    """A request that was carried out.

    Attributes:
        request: A digest of the request: the same id on another request is a mistake.
        time: When (seconds since 1970).
        answer: What was answered, serialized.
    """

    request: str
    time: float
    answer: bytes


class Disposal(msgspec.Struct, frozen=True):
    """What has to be removed of a source that was deleted, once its flow has stopped.

    Attributes:
        entry: Its settings, as they were.
        server_objects: Whether its slot and what else it made on its server goes.
        stream: Whether its stream goes, with every message in it.
        created: When that stream was created; empty: unknown. One made later is another one.
        claimed: Until when (seconds since 1970) a service sees to it; 0: none does.
    """

    entry: dict[str, object]
    server_objects: bool
    stream: bool
    created: str = ""
    claimed: float = 0.0


class Document(msgspec.Struct, frozen=True):
    """A revision of the configuration.

    Attributes:
        tree: The sections of `waxtap.yaml`, without `nats`.
        metadata: By resource.
        author: Who made this revision.
        time: When (RFC 3339).
        changes: What it changed.
        requests: Answers of the last hour, by the ids of the requests.
        disposals: By the names of sources that were deleted.
        format: Of the document.
    """

    tree: Tree
    metadata: dict[str, ResourceMeta]
    author: str = ""
    time: str = ""
    changes: tuple[Difference, ...] = ()
    requests: dict[str, Answered] = {}
    disposals: dict[str, Disposal] = {}
    format: int = _FORMAT


EMPTY = Document({}, {})

_decode = msgspec.json.Decoder(Document).decode


def encode(document: Document) -> bytes:
    """The bytes that are stored; `decode` reads them back."""
    data = msgspec.json.encode(document)
    return zlib.compress(data, _FAST) if len(data) >= _COMPRESS_FROM else data


def decode(data: bytes, where: str) -> Document:
    """Read what `encode` wrote.

    Raises:
        GapError: It is something else.
    """
    try:
        document = _decode(zlib.decompress(data) if data[:1] == _ZLIB else data)
    except (msgspec.MsgspecError, zlib.error) as error:
        raise _unreadable(str(error), where) from error
    if document.format != _FORMAT:
        raise _unreadable(f"it has format {document.format}, this version knows {_FORMAT}", where)
    return document


def plain(tree: Mapping[str, object]) -> Tree:
    """A tree as it comes back from the bucket: lists, mappings and JSON's scalars only."""
    copy: Tree = msgspec.json.decode(msgspec.json.encode(tree), type=dict[str, object])
    return {
        section: content
        for section, content in copy.items()
        if section in (*SECTIONS, *SETTINGS) and content
    }


def resources(tree: Mapping[str, object]) -> dict[str, object]:
    """The settings of every resource by its name."""
    found: dict[str, object] = {}
    for section in SECTIONS:
        entries = tree.get(section)
        if isinstance(entries, dict):
            found |= {f"{section}/{name}": entry for name, entry in entries.items()}
    return found | {f"settings/{name}": tree[name] for name in SETTINGS if tree.get(name)}


def _unreadable(reason: str, where: str) -> GapError:
    return GapError(
        "control.document_unreadable",
        f"the stored configuration cannot be read: {reason}",
        where=where,
        cure="use the version of Waxtap that wrote it, or restore the bucket from a backup",
    )
