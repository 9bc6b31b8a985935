"""A server that cannot be had is skipped loudly, or fails where `WAXTAP_REQUIRE` names it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from control.servers.errors import ServerMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Found = TypeVar("Found")

_INSTALL_SECONDS = 600


def required(name: str) -> bool:
    """True if `WAXTAP_REQUIRE` (names with commas between) names this server."""
    return name in {part.strip() for part in os.environ.get("WAXTAP_REQUIRE", "").split(",")}


def obtain(
    name: str,
    find: Callable[[], Found],
    package: str = "",
    install: Callable[[], None] | None = None,
) -> Found:
    """What `find` returns; skips or fails the test when the server is missing.

    A required server that the system's package manager has is installed first, as root; one that
    has a way of its own to be had, by `install`.
    """
    try:
        return find()
    except ServerMissingError as error:
        if not required(name):
            pytest.skip(f"{name} cannot be had: {error}")
        with _alone():
            with contextlib.suppress(ServerMissingError):
                return find()  # another worker has installed it meanwhile
            if package and os.geteuid() == 0 and shutil.which("apt-get"):
                _install(package)
                return find()
            if install is not None:
                install()
                return find()
        pytest.fail(f"WAXTAP_REQUIRE names {name}, which cannot be had: {error}")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One process of this user after the other: package managers refuse to run side by side."""
    path = Path(tempfile.gettempdir()) / f"waxtap-install-{os.geteuid()}"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(package: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-qq", "update"], ["apt-get", "-qq", "-y", "install", package]):
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
        if result.returncode != 0:
            pytest.fail(f"{' '.join(command)}: {result.stderr}")
