"""What a Python transform sees of a change, and gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ChangeView:
    """One change. Make another one with `dataclasses.replace`; never alter the rows in place.

    Attributes:
        op: `c` create, `u` update, `d` delete, `r` read.
        key: The columns of the key; None for a table without one. Not taken from what is returned:
            the key follows from the row.
        before: The old row, as far as the log has it; None without one.
        after: The new row; None for a delete. Columns whose value the log did not carry are not in
            it (`unavailable`); they stay as they are unless they are given a value.
        source: The envelope's `source`: where the change comes from.
        schema: The table's namespace in the source.
        table: The table's name.
        unavailable: Columns whose value the log did not carry.
    """

    op: str
    key: dict[str, Any] | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    source: dict[str, Any]
    schema: str
    table: str
    unavailable: tuple[str, ...] = ()
