"""The user that a server runs as: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, without supplementary groups."""

    name: str
    uid: int
    gid: int

    def can_enter(self, path: Path) -> bool:
        """True if the account may read and search `path` and search every folder above it."""
        path = path.resolve()
        return self._has(path, 0o5) and all(self._has(parent, 0o1) for parent in path.parents)

    def _has(self, path: Path, rights: int) -> bool:
        status = path.stat()
        if status.st_uid == self.uid:
            shift = 6
        elif status.st_gid == self.gid:
            shift = 3
        else:
            shift = 0
        return (stat.S_IMODE(status.st_mode) >> shift) & rights == rights


def unprivileged() -> Account | None:
    """The account for a server that refuses root: `postgres` or `nobody`; None when not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    return Account("nobody", 65534, 65534)
