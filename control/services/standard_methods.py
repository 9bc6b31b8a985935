"""The standard methods (AIP-131 to 135) of one kind of resources, as requests ask for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from control.server.callers import caller
from control.services.resources import require_given
from control.specs.editing import asked
from control.specs.fields import Resource

if TYPE_CHECKING:
    from control.pb.cdc.v1 import cdc_pb2 as cdc
    from control.services.calls import Workers
    from control.services.resources import Resources
    from control.specs.editing import Asked
    from control.specs.store import SpecStore

    _Get = cdc.GetSourceRequest | cdc.GetSinkRequest | cdc.GetPipelineRequest | cdc.GetTopicRequest
    _List = (
        cdc.ListSourcesRequest
        | cdc.ListSinksRequest
        | cdc.ListPipelinesRequest
        | cdc.ListTopicsRequest
    )
    _Update = (
        cdc.UpdateSourceRequest
        | cdc.UpdateSinkRequest
        | cdc.UpdatePipelineRequest
        | cdc.UpdateTopicRequest
    )
    _Delete = cdc.DeleteSinkRequest | cdc.DeletePipelineRequest | cdc.DeleteTopicRequest

_R = TypeVar("_R", bound=Resource)
_L = TypeVar("_L", bound=Message)


class StandardMethods(Generic[_R, _L]):
    """Takes requests apart, which are alike for every kind but for the names of their fields.

    Args:
        resources: Of the kind.
        listed: What answers a list: its field is called as the kind's section.
        store: Where the configuration is.
        editors: Where changes are made.
    """

    def __init__(
        self, resources: Resources[_R], listed: type[_L], store: SpecStore, editors: Workers
    ) -> None:
        self._resources, self._listed = resources, listed
        self._store, self._editors = store, editors
        self._kind = resources.kind
        self._name = resources.kind.message.DESCRIPTOR.name

    async def create(self, request: Message) -> _R:
        """Add one. Raises as `Resources.create`."""
        resource = self._given(request, whole=True)
        identity: str = getattr(request, f"{self._kind.field}_id")
        work = self._resources.create
        given = asked_by_caller(f"Create{self._name}", request)
        return self._read(await self._editors.run(work, given, identity, resource))

    async def get(self, request: _Get) -> _R:
        """Show one. Raises ApiError: there is none."""
        return self._resources.get(await asyncio.to_thread(self._store.read), request.name)

    async def list_(self, request: _List) -> _L:
        """A page of them. Raises ApiError: size or token are wrong."""
        stored = await asyncio.to_thread(self._store.read)
        found = self._resources.list_(stored, request.page_size, request.page_token)
        return self._listed(
            **{self._kind.section: found.resources},
            next_page_token=found.next_page_token,
            total_size=found.total_size,
        )

    async def update(self, request: _Update) -> _R:
        """Change one. Raises as `Resources.update`."""
        resource = self._given(request, whole=False)
        paths = list(request.update_mask.paths)
        given = asked_by_caller(f"Update{self._name}", request)
        return self._read(await self._editors.run(self._resources.update, given, resource, paths))

    async def delete(self, request: _Delete) -> Empty:
        """Delete one. Raises as `Resources.delete`."""
        given = asked_by_caller(f"Delete{self._name}", request)
        await self._editors.run(self._resources.delete, given, request.name, request.etag)
        return Empty()

    def _given(self, request: Message, *, whole: bool) -> Resource:
        field = self._kind.field
        given = cast("Resource", getattr(request, field))
        require_given(given, field, is_given=request.HasField(field), whole=whole)
        return given

    def _read(self, data: bytes) -> _R:
        message = self._kind.message()
        message.ParseFromString(data)
        return message


def asked_by_caller(method: str, request: Message) -> Asked:
    """A request as `Editing.run` takes it, of whoever asks. Raises ApiError: its id is no UUID."""
    validate_only: bool = getattr(request, "validate_only", False)
    request_id: str = getattr(request, "request_id", "")
    return asked(method, request, request_id, caller.get().name, validate_only=validate_only)
