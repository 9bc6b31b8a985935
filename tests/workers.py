"""How tests are shared out when several workers run them (`pytest -n`, pytest-xdist).

Each worker has servers of its own. What needs one that takes seconds to start goes to one worker
together; otherwise a file stays in one piece, and an end-to-end test goes by itself: most of its
time it waits, so two of them fit side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

_SLOW_TO_START = ("elasticsearch", "mysql", "mariadb")
# What takes long comes first, so that the workers end together.
_ORDER = ("e2e", "integration", "contract", "unit")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put each test into the group that one worker runs, and the groups into their order."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_rank)


def _group(item: pytest.Item) -> str:
    """Its group's name; empty for a test that goes by itself."""
    wanted = set(_parameters(item))
    fixtures: Iterable[str] = getattr(item, "fixturenames", ())
    for server in _SLOW_TO_START:
        if server in wanted or any(server in name.split("_") for name in fixtures):
            return server
    folder = item.path.parent.name
    return "" if folder == "e2e" else f"{folder}/{item.path.stem}"


def _parameters(item: pytest.Item) -> Iterable[str]:
    called = getattr(item, "callspec", None)
    return [value for value in called.params.values() if isinstance(value, str)] if called else []


def _rank(item: pytest.Item) -> int:
    return _ORDER.index(item.path.parent.name)
