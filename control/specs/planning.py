"""What applying a whole `waxtap.yaml` would change, before it is done."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

import msgspec

from connectors.errors import ConfigError
from control.pb.cdc.v1 import cdc_pb2
from control.specs.checking import check
from control.specs.differences import differences
from control.specs.document import plain
from control.specs.kinds import canonical
from dataflows.configuration.document import parse_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from connectors.jetstream.spec import NatsSpec
    from control.specs.document import Difference, Tree
    from control.specs.store import Stored

_ACTIONS = {
    "create": cdc_pb2.ACTION_CREATE,
    "update": cdc_pb2.ACTION_UPDATE,
    "delete": cdc_pb2.ACTION_DELETE,
}


class RenderedFlow(Protocol):
    """A flow as it would run."""

    @property
    def fingerprint(self) -> str:
        """Another one means that the flow has to be started anew."""
        ...


def read_yaml(text: str, environment: Mapping[str, str], nats: NatsSpec) -> Tree:
    """The sections of a `waxtap.yaml`, but for `nats`, checked, and as they are stored.

    Raises:
        ConfigError: It is not YAML, or says what it may not; `where` is the config path.
    """
    whole = parse_text(text, "waxtap.yaml")
    if whole is None:
        return {}
    if not isinstance(whole, dict):
        raise ConfigError(
            "config.not_a_mapping", "a mapping of names is expected here", where="waxtap.yaml"
        )
    tree = {key: one for key, one in whole.items() if key != "nats"}
    check(tree, environment, nats)
    return canonical(plain(tree))


def plan(
    base: Stored, tree: Tree, render: Callable[[Tree], Mapping[str, RenderedFlow]]
) -> cdc_pb2.PlanResponse:
    """What would change, what that does to the flows, and a hash of both sides."""
    before, after = render(base.tree), render(tree)
    return cdc_pb2.PlanResponse(
        changes=planned(differences(base.tree, tree)),
        started_flows=_named(after.keys() - before.keys()),
        stopped_flows=_named(before.keys() - after.keys()),
        restarted_flows=_named(
            flow
            for flow in before.keys() & after.keys()
            if before[flow].fingerprint != after[flow].fingerprint
        ),
        hash=_hash(base, tree),
    )


def planned(changes: Iterable[Difference]) -> list[cdc_pb2.PlannedChange]:
    """Changes as the API shows them."""
    return [
        cdc_pb2.PlannedChange(name=one.name, action=_ACTIONS[one.action], diff=one.diff)
        for one in changes
    ]


def _named(flows: Iterable[str]) -> list[str]:
    return [f"flows/{flow}" for flow in sorted(flows)]


def _hash(base: Stored, tree: Tree) -> str:
    data = msgspec.json.encode([base.revision, base.tree, tree])
    return blake2b(data, digest_size=16).hexdigest()
