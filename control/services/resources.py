"""Create, get, list, update and delete, alike for every kind of resource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, cast

import grpc
from google.protobuf.empty_pb2 import Empty
from msgspec.structs import replace

from connectors.errors import ConfigError
from control.server.statuses import ApiError, invalid
from control.services.paging import page
from control.services.places import in_request
from control.services.resource_names import existing, read_name
from control.specs.checking import readers
from control.specs.editing import Change
from control.specs.fields import configs
from control.specs.kinds import R_co, entries, etag, replaced
from control.specs.masks import merge
from control.specs.reading import to_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from control.specs.document import Disposal, Document
    from control.specs.editing import Asked, Editing
    from control.specs.fields import Resource
    from control.specs.kinds import Kind
    from control.specs.store import Stored


class Listed(NamedTuple, Generic[R_co]):
    """A page of resources, the token of the next one, and how many there are in all."""

    resources: list[R_co]
    next_page_token: str
    total_size: int


@dataclass(frozen=True)
class Resources(Generic[R_co]):
    """The standard methods (AIP-131 to 135) of one kind. Blocks.

    Args:
        kind: Of the resources.
        editing: Carries out changes.
    """

    kind: Kind[R_co]
    editing: Editing

    def get(self, stored: Stored, name: str) -> R_co:
        """A resource. Raises ApiError: there is none."""
        return self.kind.resource(stored.document, existing(self.kind, stored.tree, name))

    def list_(self, stored: Stored, size: int, token: str) -> Listed[R_co]:
        """A page of them, by name. Raises ApiError: size or token are wrong."""
        names = sorted(entries(stored.tree, self.kind.section))
        chosen, more = page(names, str, self.kind.section, size, token)
        shown = [self.kind.resource(stored.document, name) for name in chosen]
        return Listed(shown, more, len(names))

    def create(self, request: Asked, name: str, given: Resource) -> bytes:
        """Add one; returns it, serialized.

        Raises:
            ApiError: There is one of that name, or one that is not yet disposed of.
            ConfigError: It is not right.
        """
        kind = self.kind

        def change(base: Stored) -> Change:
            if name in entries(base.tree, kind.section):
                raise ApiError(
                    grpc.StatusCode.ALREADY_EXISTS,
                    "control.exists",
                    f"there is a {kind.section}/{name} already",
                    where=f"{kind.field}_id",
                )
            if kind.section == "sources" and name in base.document.disposals:
                raise ApiError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "control.disposing",
                    f"what {kind.section}/{name} has left is still being removed",
                    where=f"{kind.field}_id",
                    cure="wait, or choose another name",
                    retry=True,
                )
            return self._set(base, name, given)

        with in_request(kind, name, [_type(given)], f"{kind.field}_id"):
            return self.editing.run(request, change).answer

    def update(self, request: Asked, given: Resource, mask: Sequence[str]) -> bytes:
        """Change one; returns it, serialized.

        Raises:
            ApiError: There is none; or its etag is another one by now (ABORTED).
            ConfigError: It would not be right; or the mask is wrong.
        """
        kind = self.kind
        name = read_name(kind, given.name, f"{kind.field}.name")
        types = [_type(given)]

        def change(base: Stored) -> Change:
            existing(kind, base.tree, given.name)
            self._check_etag(base, name, given.metadata.etag, f"{kind.field}.metadata.etag")
            merged = kind.resource(base.document, name)
            merge(merged, given, mask)
            types.append(_type(merged))
            return self._set(base, name, merged)

        with in_request(kind, name, types):
            return self.editing.run(request, change).answer

    def delete(self, request: Asked, full_name: str, tag: str) -> None:
        """Delete one.

        Raises:
            ApiError: There is none; or its etag is another one by now (ABORTED).
        """
        kind = self.kind
        name = read_name(kind, full_name)

        def change(base: Stored) -> Change:
            existing(kind, base.tree, full_name)
            self._check_etag(base, name, tag, "etag")
            return Change(replaced(base.tree, kind.section, name, None), (), lambda _: Empty())

        self.editing.run(request, change)

    def delete_source(self, request: Asked, full_name: str, tag: str, disposal: Disposal) -> None:
        """Delete a source that nobody names, and note what is to be removed of it.

        One that is deleted already, while what it has left is not removed yet, takes the new word
        on that.

        Args:
            request: Whose.
            full_name: Of the source.
            tag: Its etag; empty: whatever it is.
            disposal: What goes; its `entry` is filled in here.

        Raises:
            ApiError: There is none, or it is in use (FAILED_PRECONDITION), or its etag is another.
        """
        kind = self.kind
        name = read_name(kind, full_name)
        goes = disposal.server_objects or disposal.stream

        def change(base: Stored) -> Change:
            left = base.document.disposals.get(name)
            if left is None:
                existing(kind, base.tree, full_name)
                self._check_etag(base, name, tag, "etag")
                self._check_unused(base, name)
            entry = left.entry if left else entries(base.tree, kind.section)[name]
            wanted = replace(disposal, entry=cast("dict[str, object]", entry))
            return Change(
                replaced(base.tree, kind.section, name, None),
                (),
                lambda _: Empty(),
                {name: wanted} if goes else {},
                () if goes else (name,),
            )

        self.editing.run(request, change)

    def _set(self, base: Stored, name: str, given: Resource) -> Change:
        kind = self.kind

        def answer(document: Document) -> Resource:
            return kind.resource(document, name)

        try:
            entry = to_tree(given)
        except ConfigError as error:
            error.where = f"{kind.field}.{error.where}"
            raise
        tree = replaced(base.tree, kind.section, name, entry)
        return Change(tree, {(kind.section, name)}, answer)

    def _check_etag(self, base: Stored, name: str, given: str, where: str) -> None:
        full_name = f"{self.kind.section}/{name}"
        if given and given != etag(base.metadata[full_name], full_name):
            raise ApiError(
                grpc.StatusCode.ABORTED,
                "control.etag",
                f"{full_name} has been changed since",
                where=where,
                cure=f"get it again, and decide anew; {base.metadata[full_name].author} changed it "
                f"at {base.metadata[full_name].updated}",
            )

    def _check_unused(self, base: Stored, name: str) -> None:
        users = readers(base.tree, name)
        if users:
            raise ApiError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "control.in_use",
                f"{self.kind.section}/{name} is named by {', '.join(users)}",
                where="name",
                cure="take it out of their `sources`, or delete them first",
            )


def require_given(given: Resource, field: str, *, is_given: bool, whole: bool = True) -> None:
    """Check that a request holds a resource.

    Args:
        given: The resource.
        field: The request's field that holds it.
        is_given: Whether that is set.
        whole: Whether it must say which connector it is for, if it is of such a kind.

    Raises:
        ApiError: It does not.
    """
    if not is_given:
        raise invalid("control.missing", "it is not given", where=field)
    if whole and configs(given) and not _type(given):
        raise invalid(
            "config.unknown_type",
            "no connector is chosen",
            where=field,
            cure=f"set one of {', '.join(configs(given))}",
        )


def _type(given: Resource) -> str:
    for name in configs(given):
        if given.HasField(name):  # type: ignore[arg-type]
            return name
    return ""
