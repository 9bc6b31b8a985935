"""What each flow of a configuration runs on: a `waxtap.yaml` of its own, with what concerns it.

A flow is restarted when its fingerprint has changed, and only then. So the fingerprint covers what
the flow reads at its start and nothing else: a source's changed DSN restarts its capture, not the
deliveries that read its stream; a pipeline's changed filter restarts the captures whose changes it
takes. A delivery looks pipelines up only when a dead letter is replayed, and reads them anew then
(`dataflows.present`): they are in its tree, but not in its fingerprint.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from control.supervisor.topics import may_be_written

if TYPE_CHECKING:
    from collections.abc import Mapping

Tree = dict[str, object]

_HOW_IT_RUNS = ("workers", "processes")


@dataclass(frozen=True, slots=True)
class Rendered:
    """One flow, as a configuration wants it.

    Attributes:
        name: `capture/<source>` or `deliver/<sink>`.
        type: The connector's: `postgres`, `webhook`; empty if the configuration names none.
        tree: The sections of its `waxtap.yaml` but for `nats`, references unresolved.
        workers: Worker threads of each process.
        processes: Processes of the cluster.
        fingerprint: Changes when the flow must be started anew to follow its configuration.
    """

    name: str
    type: str
    tree: Tree
    workers: int
    processes: int
    fingerprint: str


def render(tree: Mapping[str, object]) -> dict[str, Rendered]:
    """The flows of a configuration, by name.

    Args:
        tree: What `waxtap.yaml` says, references unresolved; `nats` does not count. It need not be
            valid: what cannot be run is found out by the flow, and what is no mapping is left out.
    """
    sources, sinks = _entries(tree, "sources"), _entries(tree, "sinks")
    captures = [_capture(tree, name, entry) for name, entry in sources.items()]
    deliveries = [_delivery(tree, name, entry, sources) for name, entry in sinks.items()]
    return {flow.name: flow for flow in [*captures, *deliveries]}


def fingerprint(*parts: object) -> str:
    """A short digest of what JSON can hold, the same whatever the order of keys."""
    encoded = msgspec.json.encode(parts, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:16]


def _capture(tree: Mapping[str, object], name: str, entry: Tree) -> Rendered:
    pipelines = _pipelines(tree, [name])
    topics = {
        topic: settings
        for topic, settings in _mapping(tree.get("topics")).items()
        if may_be_written(topic, entry, pipelines.values())
    }
    sections: Tree = {
        "sources": {name: _plain(entry)},
        "topics": topics,
        "pipelines": pipelines,
        "python_transforms": _python_transforms(tree, pipelines),
    }
    # The order of pipelines is the order in which they are tried.
    return _rendered(f"capture/{name}", entry, sections, [sections, list(pipelines)])


def _delivery(
    tree: Mapping[str, object], name: str, entry: Tree, sources: Mapping[str, Tree]
) -> Rendered:
    wanted = entry.get("from")
    read = [source for source in sources if not isinstance(wanted, list) or source in wanted]
    # Whose streams it reads; what they are made from is the captures' affair.
    names: Tree = {source: {"type": sources[source].get("type")} for source in read}
    own: Tree = {
        "sources": names,
        "sinks": {name: _plain(entry)},
        "dead_letters": tree.get("dead_letters"),
        "python_transforms": _python_transforms(tree, {name: entry}),
    }
    pipelines = _pipelines(tree, read)
    late: Tree = {
        "topics": tree.get("topics"),
        "pipelines": pipelines,
        "python_transforms": _python_transforms(tree, {name: entry, **pipelines}),
    }
    return _rendered(f"deliver/{name}", entry, own | late, [own, read])


def _rendered(name: str, entry: Tree, sections: Tree, decisive: list[object]) -> Rendered:
    kind = entry.get("type")
    workers, processes = (_count(entry.get(option)) for option in _HOW_IT_RUNS)
    return Rendered(
        name,
        kind if isinstance(kind, str) else "",
        {section: content for section, content in sections.items() if content},
        workers,
        processes,
        fingerprint(decisive, workers, processes),
    )


def _pipelines(tree: Mapping[str, object], sources: list[str]) -> dict[str, Tree]:
    """Those that may take changes of some sources, which are the only ones they name then."""
    kept = {}
    for name, entry in _entries(tree, "pipelines").items():
        wanted = entry.get("from")
        if not isinstance(wanted, list) or not wanted:
            kept[name] = entry
        elif named := [source for source in wanted if source in sources]:
            kept[name] = {**entry, "from": named}
    return kept


def _python_transforms(tree: Mapping[str, object], users: Mapping[str, Tree]) -> object:
    """Which Python functions may be called, if somebody calls one."""
    for entry in users.values():
        steps = entry.get("transform")
        if isinstance(steps, list) and any("python" in _mapping(step) for step in steps):
            return tree.get("python_transforms")
    return None


def _plain(entry: Tree) -> Tree:
    return {name: value for name, value in entry.items() if name not in _HOW_IT_RUNS}


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1


def _entries(tree: Mapping[str, object], section: str) -> dict[str, Tree]:
    found = _mapping(tree.get(section))
    return {name: _mapping(entry) for name, entry in found.items()}


def _mapping(value: object) -> Tree:
    return value if isinstance(value, dict) else {}
