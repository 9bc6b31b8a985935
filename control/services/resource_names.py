"""Names of resources (AIP-122): `sources/shop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from control.server.statuses import invalid, not_found
from control.specs.kinds import entries

if TYPE_CHECKING:
    from control.specs.document import Tree
    from control.specs.fields import Resource
    from control.specs.kinds import Kind


def read_name(kind: Kind[Resource], name: str, where: str = "name") -> str:
    """The name without its section.

    Raises:
        ApiError: It is not of that form.
    """
    section, _, rest = name.partition("/")
    if section != kind.section or not rest:
        raise invalid(
            "control.name",
            f"it is not of the form {kind.section}/{{{kind.field}}}",
            where=where,
            cure=f"{kind.section}/{rest or name or 'shop'}",
        )
    return rest


def existing(kind: Kind[Resource], tree: Tree, name: str, where: str = "name") -> str:
    """As `read_name`, of one that there is.

    Raises:
        ApiError: There is none.
    """
    short = read_name(kind, name, where)
    if short not in entries(tree, kind.section):
        raise not_found(name)
    return short
