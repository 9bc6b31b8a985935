"""Bulk requests free of I/O: what is sent, and what the answer says of each document."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from json import dumps
from typing import TYPE_CHECKING

from connectors.elasticsearch.plan import GENERATION_BITS
from connectors.errors import GapError, PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from connectors.elasticsearch.plan import Document

BULK_DOCUMENTS = 1000
BULK_BYTES = 4 * 1024 * 1024
PATH = "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
KIND = "application/x-ndjson"

_CONFLICT, _TOO_MANY = 409, 429
# The index is to blame, not the row: its owner can mend it, and each row would be refused.
_OF_THE_INDEX = frozenset(
    {
        "cluster_block_exception",
        "index_closed_exception",
        "index_not_found_exception",
        "security_exception",
        "unavailable_shards_exception",
    }
)
_CURRENT = re.compile(r"current version \[(\d+)\]")
# Where the server repeats what the row says.
_VALUES = re.compile(
    r" in document with id '.*?'(?=\.|,|$)|\.? ?Preview of field's value: .*|, the prefix of .*",
    re.DOTALL,
)


@dataclass(slots=True)
class Verdict:
    """What an answer says.

    Attributes:
        again: Documents to be sent again later.
        reason: Why, in the server's words.
        refused: The refusals, by sequence.
    """

    again: list[Document] = field(default_factory=list)
    reason: str = ""
    refused: dict[int, PermanentError] = field(default_factory=dict)


def body(documents: Sequence[Document], *, timed: bool) -> bytes:
    """The lines of a bulk request.

    Args:
        documents: In any order.
        timed: Their versions are times: an equal one may be written over.
    """
    kind = "external_gte" if timed else "external"
    parts: list[bytes] = []
    for document in documents:
        target, id_, version, _, _, source, _, _ = document
        action = "delete" if source is None else "index"
        line = (
            f'{{"{action}":{{"_index":{dumps(target)},"_id":{dumps(id_)},'
            f'"version":{version},"version_type":"{kind}"}}}}\n'
        )
        parts.append(line.encode())
        if source is not None:
            row = bytes(source)
            # Inside a string it would be escaped: this one is white space of a `json` value.
            if b"\n" in row or b"\r" in row:
                row = row.replace(b"\n", b" ").replace(b"\r", b" ")
            parts += (row, b"\n")
    return b"".join(parts)


def cut(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """Cut documents into bulks of a size that suits one request."""
    part: list[Document] = []
    size = 0
    for document in documents:
        length = 0 if document.source is None else len(memoryview(document.source))
        if part and (len(part) >= BULK_DOCUMENTS or size + length > BULK_BYTES):
            yield part
            part, size = [], 0
        part.append(document)
        size += length
    if part:
        yield part


def judge(
    documents: Sequence[Document], answer: Mapping[str, object], generation: int | None
) -> Verdict:
    """Read an answer.

    Args:
        documents: Which were sent.
        answer: Its JSON.
        generation: Of the versions that were sent; None: they are times.

    Raises:
        GapError: The index holds documents of a later life of the stream than is known.
    """
    verdict = Verdict()
    if answer.get("errors") is False:
        return verdict
    items = answer.get("items")
    if not isinstance(items, list) or len(items) != len(documents):
        verdict.again, verdict.reason = list(documents), "the answer is not that of a bulk request"
        return verdict
    for document, item in zip(documents, items, strict=True):
        (result,) = item.values()
        status = result["status"]
        error = result.get("error")
        if error is None:
            # A document that was to be deleted and is not there is 404.
            continue
        kind, told = error.get("type", ""), error.get("reason") or error.get("type", "")
        if status == _CONFLICT:
            if generation is not None:
                _check(document, told, generation)
        elif status == _TOO_MANY or status >= 500 or kind in _OF_THE_INDEX:
            verdict.again.append(document)
            verdict.reason = verdict.reason or f"{kind}: {told}"
        else:
            verdict.refused[document.sequence] = refusal(document, f"{kind}: {told}")
    return verdict


def refusal(document: Document, told: str) -> PermanentError:
    """The error of a document that the server refuses for good."""
    return PermanentError(
        "elasticsearch.refused",
        f"index {document.target} refuses sequence {document.sequence}: {_VALUES.sub('', told)}",
        where=document.table,
        cure="mend the row, or the index's mapping",
        sequence=document.sequence,
    )


def _check(document: Document, told: str, generation: int) -> None:
    """A conflict means that the document is there already, or a newer one of the same stream."""
    found = _CURRENT.search(told)
    if found and int(found[1]) >> GENERATION_BITS > generation:
        raise GapError(
            "elasticsearch.newer_documents",
            "the index holds documents of a later life of the stream than waxtap-offsets knows of; "
            "what the stream holds now would not be written",
            where=f"index {document.target}",
            cure="restore waxtap-offsets, or delete the index and the sink's documents in "
            "waxtap-offsets: it is filled anew",
        )
