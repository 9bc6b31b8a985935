"""Plan, apply, list revisions, roll back: what concerns the configuration as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from control.pb.cdc.v1 import cdc_pb2
from control.server.statuses import ApiError, invalid
from control.services.paging import page_size, read_token, token
from control.specs.editing import Change
from control.specs.planning import plan, read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connectors.jetstream.spec import NatsSpec
    from control.specs.document import Document, Tree
    from control.specs.editing import Asked, Done, Editing
    from control.specs.planning import RenderedFlow
    from control.specs.store import SpecStore, Stored

_REVISIONS = "revisions"


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

    def plan(self, yaml: str) -> cdc_pb2.PlanResponse:
        """What applying this text would change.

        Raises:
            ConfigError: It is not right; `where` is the config path.
        """
        tree = read_yaml(yaml, self._environment, self._nats)
        return plan(self._store.read(), tree, self._render)

    def apply(self, request: Asked, yaml: str, hash_: str) -> cdc_pb2.ApplyResponse:
        """Make the configuration what this text says.

        Raises:
            ApiError: The hash is not that of the plan as it is now (ABORTED).
            ConfigError: It is not right.
        """
        if not hash_:
            raise invalid(
                "control.missing", "it is not given", where="hash", cure="call Plan first"
            )
        tree = read_yaml(yaml, self._environment, self._nats)

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

            def answer(document: Document) -> cdc_pb2.ApplyResponse:
                return cdc_pb2.ApplyResponse(plan=now, revision=_revision(0, document))

            # The whole text was checked when it was read.
            return Change(tree, (), answer)

        done = self._editing.run(request, change, alone=True)
        answer = cdc_pb2.ApplyResponse.FromString(done.answer)
        answer.revision.revision = self._number(done, request)
        return answer

    def roll_back(self, request: Asked, revision: int) -> cdc_pb2.Revision:
        """Make an earlier revision the latest one again.

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

        def change(base: Stored) -> Change:
            _check_disposals(base, tree)
            return Change(tree, None, lambda document: _revision(0, document))

        done = self._editing.run(request, change, alone=True)
        answer = cdc_pb2.Revision.FromString(done.answer)
        answer.revision = self._number(done, request)
        return answer

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
