"""A flow that has nothing left to do says so to whoever runs it: it is not to be started again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names a file that is made then. The exit status is 0 for a flow that was asked to stop, too.
VARIABLE = "WAXTAP_ENDED"


def note(environment: Mapping[str, str]) -> None:
    """Everything was told, and is stored.

    Raises:
        OSError: The file cannot be made.
    """
    if path := environment.get(VARIABLE, ""):
        Path(path).touch(mode=0o600)
