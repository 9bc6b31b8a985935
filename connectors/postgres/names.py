"""Names of tables as a configuration writes them: `schema.table`, quoted where needed.

Unquoted names are folded to lower case, as PostgreSQL folds them.
"""

from __future__ import annotations

import re

_NAME = re.compile(r'"((?:[^"]|"")+)"|([^".\s*]+)')


def parse_name(text: str) -> tuple[str, ...]:
    """Read `table` or `schema.table`; return its one or two parts.

    Raises:
        ValueError: It is neither.
    """
    parts: list[str] = []
    at = 0
    while (found := _NAME.match(text, at)) is not None:
        parts.append(found[1].replace('""', '"') if found[1] else found[2].lower())
        at = found.end() + 1
        if text[found.end() : at] != ".":
            break
    if at != len(text) + 1 or len(parts) not in (1, 2):
        raise ValueError(f'{text!r} is not a table\'s name: write schema.table, or "quoted" parts')
    return tuple(parts)
