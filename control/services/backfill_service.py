"""Backfills over gRPC: asked for here, carried out by the flows of their sources."""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
from msgspec.structs import replace
from typing_extensions import override

from connectors import registry
from connectors.contracts.backfills import INITIAL, BackfillRequest, Wish
from connectors.errors import RetryableError
from connectors.jetstream import backfills
from connectors.jetstream.backfills import Stored
from connectors.jetstream.connection import connect
from control.explorer.page_tokens import question_digest
from control.explorer.readers import readers
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.server.callers import Role, caller
from control.server.statuses import ApiError, invalid, not_found
from control.services.backfill_messages import backfill_message, parts_of, resource_name
from control.services.paging import page
from dataflows.routing import TablePattern

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec
    from control.explorer.readers import Specs
    from control.services.calls import Repetitions, Workers

    _Context = grpc.aio.ServicerContext[object, object]

_ID = re.compile(r"[a-z0-9_-]{1,39}")
_MOST_TABLES = 1000
_LONGEST_WHERE = 16 * 1024
# So many that are over are remembered of each source.
_KEPT = 100
# So often is a change made anew that somebody else has come before.
_TRIES = 10


class BackfillService(cdc_pb2_grpc.BackfillServiceServicer):
    """Rows that are read again.

    Args:
        nats: Where it is stored what is asked for.
        specs: Where sources and sinks are registered.
        workers: Where work is done.
        repetitions: Remembers requests that were carried out.
    """

    def __init__(
        self, nats: NatsSpec, specs: Specs, workers: Workers, repetitions: Repetitions
    ) -> None:
        self._nats, self._specs = nats, specs
        self._workers, self._repetitions = workers, repetitions

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        cdc_pb2_grpc.add_BackfillServiceServicer_to_server(self, server)

    @override
    async def CreateBackfill(
        self, request: cdc_pb2.CreateBackfillRequest, context: _Context
    ) -> cdc_pb2.Backfill:
        """Ask for one."""
        asked = _asked(request)
        if asked.where and caller.get().role < Role.ADMIN:
            raise ApiError(
                grpc.StatusCode.PERMISSION_DENIED,
                "control.role",
                "a condition is SQL that the source's role runs: admin is needed",
                where="backfill.where",
                cure="leave it out, or ask somebody who has that role",
            )

        def work() -> cdc_pb2.Backfill:
            source = self._source(request.parent)
            self._check_sink(asked.sink, source)
            stored = Stored(source, asked.id, asked, None, 0)
            if request.validate_only:
                return backfill_message(stored)
            with connect(self._nats) as connection:
                if backfills.write_request(connection, source, asked, 0) is None:
                    raise ApiError(
                        grpc.StatusCode.ALREADY_EXISTS,
                        "control.exists",
                        f"there is a {resource_name(source, asked.id)} already",
                        where="backfill_id",
                    )
                backfills.prune(connection, source, _KEPT)
            return backfill_message(stored)

        return await self._workers.run(self._repetitions.once, request.request_id, request, work)

    @override
    async def GetBackfill(
        self, request: cdc_pb2.GetBackfillRequest, context: _Context
    ) -> cdc_pb2.Backfill:
        """One, with how far it is."""
        source, backfill = parts_of(request.name)

        def work() -> cdc_pb2.Backfill:
            with connect(self._nats) as connection:
                return backfill_message(_existing(connection, source, backfill))

        return await self._workers.run(work)

    @override
    async def ListBackfills(
        self, request: cdc_pb2.ListBackfillsRequest, context: _Context
    ) -> cdc_pb2.ListBackfillsResponse:
        """By source, and as they were created."""

        def work() -> cdc_pb2.ListBackfillsResponse:
            source = self._registered(request.parent) if request.parent else ""
            with connect(self._nats) as connection:
                found = backfills.read_all(connection, source)
            question = question_digest("backfills", source)
            chosen, more = page(found, _key, question, request.page_size, request.page_token)
            return cdc_pb2.ListBackfillsResponse(
                backfills=map(backfill_message, chosen),
                next_page_token=more,
                total_size=len(found),
            )

        return await self._workers.run(work)

    @override
    async def UpdateBackfill(
        self, request: cdc_pb2.UpdateBackfillRequest, context: _Context
    ) -> cdc_pb2.Backfill:
        """Change how fast it is."""
        if other := [path for path in request.update_mask.paths if path != "max_rows_per_second"]:
            raise invalid(
                "control.mask",
                f"{other[0]} cannot be changed",
                where="update_mask",
                cure="cancel it, and create another one",
            )
        rate = _rate(request.backfill.max_rows_per_second)

        def change(asked: BackfillRequest) -> BackfillRequest:
            return replace(asked, rate=rate)

        return await self._change(
            request.backfill.name, request, request.request_id, change, "backfill.name"
        )

    @override
    async def PauseBackfill(
        self, request: cdc_pb2.PauseBackfillRequest, context: _Context
    ) -> cdc_pb2.Backfill:
        """Hold it up until it is resumed."""
        return await self._wish(request, Wish.PAUSE)

    @override
    async def ResumeBackfill(
        self, request: cdc_pb2.ResumeBackfillRequest, context: _Context
    ) -> cdc_pb2.Backfill:
        """Let it go on where it was."""
        return await self._wish(request, Wish.RUN)

    @override
    async def CancelBackfill(
        self, request: cdc_pb2.CancelBackfillRequest, context: _Context
    ) -> cdc_pb2.Backfill:
        """End it for good."""
        return await self._wish(request, Wish.CANCEL)

    async def _wish(
        self,
        request: cdc_pb2.PauseBackfillRequest
        | cdc_pb2.ResumeBackfillRequest
        | cdc_pb2.CancelBackfillRequest,
        wish: Wish,
    ) -> cdc_pb2.Backfill:
        def change(asked: BackfillRequest) -> BackfillRequest:
            if asked.wish is Wish.CANCEL and wish is not Wish.CANCEL:
                raise ApiError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "control.backfill_over",
                    "it was cancelled",
                    where="name",
                    cure="create another one",
                )
            return replace(asked, wish=wish)

        return await self._change(request.name, request, request.request_id, change, "name")

    async def _change(
        self,
        name: str,
        request: cdc_pb2.UpdateBackfillRequest
        | cdc_pb2.PauseBackfillRequest
        | cdc_pb2.ResumeBackfillRequest
        | cdc_pb2.CancelBackfillRequest,
        request_id: str,
        change: Callable[[BackfillRequest], BackfillRequest],
        where: str,
    ) -> cdc_pb2.Backfill:
        """Change what is asked of one."""
        source, backfill = parts_of(name, where)
        if backfill == INITIAL:
            raise ApiError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "control.initial_snapshot",
                "the first snapshot of a source is part of its flow",
                where=where,
                cure=f"pause flows/capture/{source}; `snapshot: never` gives the snapshot up",
            )

        def work() -> cdc_pb2.Backfill:
            with connect(self._nats) as connection:
                return backfill_message(_changed(connection, source, backfill, change))

        return await self._workers.run(self._repetitions.once, request_id, request, work)

    def _registered(self, parent: str) -> str:
        """The name of a source that there is."""
        section, _, source = parent.partition("/")
        if section != "sources" or not source:
            raise invalid(
                "control.name",
                f"{parent!r} is no name of a source",
                where="parent",
                cure="such as sources/shop",
            )
        if source not in _section(self._specs, "sources"):
            raise ApiError(
                grpc.StatusCode.NOT_FOUND,
                "control.not_found",
                f"there is no {parent}",
                where="parent",
            )
        return source

    def _source(self, parent: str) -> str:
        """The name of a source that can carry out a backfill."""
        source = self._registered(parent)
        entry = _section(self._specs, "sources")[source]
        settings: Mapping[str, object] = entry if isinstance(entry, dict) else {}
        kind = str(settings.get("type", ""))
        if kind not in registry.BACKFILLED:
            raise ApiError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "control.no_backfills",
                f"a source of type {kind} reads no tables",
                where="parent",
            )
        if settings.get("snapshot") == "only":
            raise ApiError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "control.snapshot_only",
                f"{parent} is over once its snapshot is done",
                where="parent",
                cure="set its `snapshot` to `initial` or `never`, so that it runs on",
            )
        return source

    def _check_sink(self, sink: str, source: str) -> None:
        if not sink:
            return
        found = readers(self._specs.read()).get(sink)
        if found is None or source not in found.sources:
            raise invalid(
                "control.sink",
                f"there is no sink {sink!r} that reads from {source}",
                where="backfill.sink",
            )


def _asked(request: cdc_pb2.CreateBackfillRequest) -> BackfillRequest:
    """What is asked for. Raises ApiError: a field of it is wrong."""
    given = request.backfill
    now = time.time_ns()
    made_up = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    name = request.backfill_id or made_up
    if not _ID.fullmatch(name) or name == INITIAL:
        raise invalid(
            "control.name",
            f"a name is 1 to 39 of a-z, 0-9, _ and -, and not {INITIAL}",
            where="backfill_id",
        )
    if not 1 <= len(given.tables) <= _MOST_TABLES:
        raise invalid(
            "control.tables",
            f"name tables, {_MOST_TABLES} patterns at most",
            where="backfill.tables",
            cure="such as public.orders, or public.* for all that are captured",
        )
    for index, pattern in enumerate(given.tables):
        try:
            TablePattern(pattern)
        except ValueError as error:
            raise invalid("control.tables", str(error), where=f"backfill.tables[{index}]") from None
    where = given.where.strip()
    if len(where) > _LONGEST_WHERE or "\0" in where:
        raise invalid(
            "control.where",
            f"at most {_LONGEST_WHERE} characters, none of them 0",
            where="backfill.where",
        )
    return BackfillRequest(
        id=name,
        created=now,
        tables=tuple(given.tables),
        where=where,
        sink=given.sink.removeprefix("sinks/"),
        rate=_rate(given.max_rows_per_second),
        author=caller.get().name,
    )


def _rate(given: int) -> int:
    if given < 0:
        raise invalid("control.rate", "it is negative", where="backfill.max_rows_per_second")
    return given


def _section(specs: Specs, name: str) -> Mapping[str, object]:
    section = specs.read().tree.get(name)
    return section if isinstance(section, dict) else {}


def _existing(connection: Connection, source: str, backfill: str) -> Stored:
    found = backfills.read_one(connection, source, backfill)
    if found is None:
        raise not_found(resource_name(source, backfill))
    return found


def _changed(
    connection: Connection,
    source: str,
    backfill: str,
    change: Callable[[BackfillRequest], BackfillRequest],
) -> Stored:
    """Change what is asked of one, whatever others change meanwhile."""
    for _ in range(_TRIES):
        found = _existing(connection, source, backfill)
        if found.request is None:
            raise not_found(resource_name(source, backfill))
        if found.status is not None and found.status.stage.final:
            raise ApiError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "control.backfill_over",
                f"it is {found.status.stage.value} already",
                where="name",
                cure="create another one",
            )
        asked = change(found.request)
        if asked == found.request:
            return found
        if backfills.write_request(connection, source, asked, found.revision) is not None:
            return found._replace(request=asked)
    raise RetryableError(
        "control.contended", "others change it all the time", where=resource_name(source, backfill)
    )


def _key(stored: Stored) -> str:
    created = stored.request.created if stored.request else 0
    return f"{stored.source} {created:020} {stored.id}"
