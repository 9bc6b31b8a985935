"""What has changed between two trees, resource by resource."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import yaml

from control.specs.document import Difference, ResourceMeta, resources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from control.specs.document import Tree

_ABSENT = object()


def differences(old: Tree, new: Tree) -> tuple[Difference, ...]:
    """What has to be done to make `new` of `old`, ordered by name."""
    before, after = resources(old), resources(new)
    return tuple(
        _difference(name, before.get(name, _ABSENT), after.get(name, _ABSENT))
        for name in sorted(before.keys() | after.keys())
        if before.get(name, _ABSENT) != after.get(name, _ABSENT)
    )


def advanced(
    metadata: Mapping[str, ResourceMeta], changes: tuple[Difference, ...], author: str, time: str
) -> dict[str, ResourceMeta]:
    """The metadata behind these changes. One that is created again begins a new life."""
    known = dict(metadata)
    for change in changes:
        before = known.pop(change.name, None)
        if change.action == "delete":
            continue
        if before is None or change.action == "create":
            known[change.name] = ResourceMeta(1, time, time, author)
        else:
            known[change.name] = ResourceMeta(before.generation + 1, before.created, time, author)
    return known


def _difference(name: str, before: object, after: object) -> Difference:
    action = "create" if before is _ABSENT else "delete" if after is _ABSENT else "update"
    lines = difflib.unified_diff(
        _lines(before), _lines(after), f"a/{name}", f"b/{name}", lineterm="", n=3
    )
    return Difference(name, action, "\n".join(lines))


def _lines(settings: object) -> list[str]:
    if settings is _ABSENT:
        return []
    text: str = yaml.dump(
        settings, Dumper=_Dumper, sort_keys=True, allow_unicode=True, default_flow_style=False
    )
    return text.splitlines()


# libyaml's, where PyYAML was built with it: some ten times as fast.
_Dumper: type[yaml.SafeDumper] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
