"""Plan, apply, list revisions, roll back: what concerns the configuration as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import grpc
from google.protobuf.message import Message

from control.pb.cdc.v1 import cdc_pb2
from control.server.statuses import ApiError, invalid
from control.services.left_behind import Dropped, LeftBehind
from control.services.paging import page_size, read_token, token
from control.specs.editing import Change
from control.specs.planning import plan, read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connectors.jetstream.spec import NatsSpec
    from control.specs.document import Disposal, Document, Tree
    from control.specs.editing import Asked, Done, Editing
    from control.specs.planning import RenderedFlow
    from control.specs.store import SpecStore, Stored

_REVISIONS = "revisions"
_KEPT = Dropped(server_objects=False, stream=False)
_A_co = TypeVar("_A_co", bound=Message, covariant=True)
_CURE_BEFORE = (
    "set `server_objects` and `stream` of the request to DISPOSAL_DROP"
    " (waxtap apply --server-objects drop --stream drop)"
)
_CURE_AFTER = (
    "roll back to revision {revision} or register it again as it was, then delete it with"
    " DISPOSAL_DROP (waxtap delete sources/{{name}} --server-objects drop --stream drop)"
)


class Changed(NamedTuple, Generic[_A_co]):
    """An answer, and the sources of which something is to be removed now."""

    answer: _A_co
    disposals: list[str]


class Whole:
    """Carries out what concerns the configuration as a whole. Blocks; usable from any thread.

    Args:
        store: Where the configuration is.
        editing: Changes it.
        nats: Where the flows' streams are.
        environment: Where references are looked up.
        render: The flows of a configuration.
    """

    def __init__(
        self,
        store: SpecStore,
        editing: Editing,
        nats: NatsSpec,
        environment: Mapping[str, str],
        render: Callable[[Tree], Mapping[str, RenderedFlow]],
    ) -> None:
        self._store, self._editing, self._render = store, editing, render
        self._nats, self._environment = nats, environment
        self._left_behind = LeftBehind(nats, environment)

    def plan(self, yaml: str) -> cdc_pb2.PlanResponse:
        """What applying this text would change.

        Raises:
            ConfigError: It is not right; `where` is the config path.
        """
        tree = read_yaml(yaml, self._environment, self._nats)
        base = self._store.read()
        found = plan(base, tree, self._render)
        gone = self._left_behind.gone(base.tree, tree)
        found.left_behind.extend(self._left_behind.tell(gone, _KEPT, _CURE_BEFORE))
        return found

    def apply(
        self, request: Asked, yaml: str, hash_: str, dropped: Dropped
    ) -> Changed[cdc_pb2.ApplyResponse]:
        """Make the configuration what this text says.

        Args:
            request: Whose.
            yaml: The text.
            hash_: Of the plan.
            dropped: What goes of the sources that it does not have.

        Raises:
            ApiError: The hash is not that of the plan as it is now (ABORTED).
            ConfigError: It is not right.
        """
        if not hash_:
            raise invalid(
                "control.missing", "it is not given", where="hash", cure="call Plan first"
            )
        tree = read_yaml(yaml, self._environment, self._nats)
        disposals: dict[str, Disposal] = {}

        def change(base: Stored) -> Change:
            now = plan(base, tree, self._render)
            if now.hash != hash_:
                raise ApiError(
                    grpc.StatusCode.ABORTED,
                    "control.stale_plan",
                    "the configuration or the file has changed since the plan was made",
                    where="hash",
                    cure="plan again, and look at what it would do",
                )
            _check_disposals(base, tree)
            now.left_behind.extend(self._stays(base, tree, dropped, disposals))

            def answer(document: Document) -> cdc_pb2.ApplyResponse:
                return cdc_pb2.ApplyResponse(plan=now, revision=_revision(0, document))

            # The whole text was checked when it was read.
            return Change(tree, (), answer, disposals)

        done = self._editing.run(request, change, alone=True)
        answer = cdc_pb2.ApplyResponse.FromString(done.answer)
        answer.revision.revision = self._number(done, request)
        return Changed(answer, list(disposals))

    def roll_back(
        self, request: Asked, revision: int, dropped: Dropped
    ) -> Changed[cdc_pb2.Revision]:
        """Make an earlier revision the latest one again.

        Args:
            request: Whose.
            revision: The earlier one.
            dropped: What goes of the sources that it does not have.

        Raises:
            ApiError: It is not kept.
            ConfigError: It would not be right any more.
        """
        earlier = self._store.at(revision) if revision > 0 else None
        if earlier is None:
            raise ApiError(
                grpc.StatusCode.NOT_FOUND,
                "control.not_found",
                f"there is no revision {revision}, or none any more",
                where="revision",
                cure="list the revisions",
            )
        tree = earlier.tree
        disposals: dict[str, Disposal] = {}

        def change(base: Stored) -> Change:
            _check_disposals(base, tree)
            stays = self._stays(base, tree, dropped, disposals)

            def answer(document: Document) -> cdc_pb2.Revision:
                shown = _revision(0, document)
                shown.left_behind.extend(stays)
                return shown

            return Change(tree, None, answer, disposals)

        done = self._editing.run(request, change, alone=True)
        answer = cdc_pb2.Revision.FromString(done.answer)
        answer.revision = self._number(done, request)
        return Changed(answer, list(disposals))

    def _stays(
        self, base: Stored, tree: Tree, dropped: Dropped, disposals: dict[str, Disposal]
    ) -> list[cdc_pb2.LeftBehind]:
        """What stays of the sources that go; `disposals` becomes what of them is to be removed."""
        gone = self._left_behind.gone(base.tree, tree)
        disposals.clear()
        disposals |= self._left_behind.disposals(gone, dropped)
        cure = _CURE_AFTER.format(revision=base.revision)
        return self._left_behind.tell(gone, dropped, cure)

    def revisions(self, size: int, given: str) -> cdc_pb2.ListRevisionsResponse:
        """A page of earlier revisions, the latest first."""
        size, last = page_size(size), read_token(_REVISIONS, given)
        if last and not last.isdecimal():
            raise invalid("control.page_token", "it is not from this list", where="page_token")
        found = [one for one in self._store.revisions() if not last or one.revision < int(last)]
        more = len(found) > size
        return cdc_pb2.ListRevisionsResponse(
            revisions=[_revision(one.revision, one.document) for one in found[:size]],
            next_page_token=token(_REVISIONS, str(found[size - 1].revision)) if more else "",
        )

    def _number(self, done: Done, request: Asked) -> int:
        """The number of the revision of an answer, which was not known when it was stored."""
        if done.stored is not None:
            return done.stored.revision
        known = [one for one in self._store.revisions() if request.id in one.document.requests]
        return known[-1].revision if known else 0


def _check_disposals(base: Stored, tree: Tree) -> None:
    """Refuse to make a source anew of which the old one is still being removed."""
    sources = tree.get("sources")
    left = base.document.disposals.keys() & (sources if isinstance(sources, dict) else {}).keys()
    if left:
        raise ApiError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "control.disposing",
            f"what sources/{min(left)} has left is still being removed",
            cure="wait, or choose another name",
            retry=True,
        )


def _revision(number: int, document: Document) -> cdc_pb2.Revision:
    shown = cdc_pb2.Revision(
        revision=number,
        author=document.author,
        diff="\n".join(one.diff for one in document.changes),
    )
    if document.time:
        shown.create_time.FromJsonString(document.time)
    return shown
