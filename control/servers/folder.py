"""The folder of a private server: whose it is, what is put into it, and when it goes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from control.servers.errors import ServerStartError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from control.servers.account import Account

_TAIL_CHARACTERS = 4000


class ServerFolder:
    """A folder that only the server's user may enter.

    Args:
        server: Whose it is, for messages.
        data: Where it is, and stays; None: a temporary one, removed by `discard`.
        account: The user that the server runs as; None for our own.

    Attributes:
        path: Where it is.
    """

    def __init__(self, server: str, data: Path | None, account: Account | None = None) -> None:
        self._server = server
        self._account = account
        self._temporary = data is None
        self.path = data or Path(tempfile.mkdtemp(prefix=f"waxtap-{server.lower()}-"))

    def make(self, *below: str) -> None:
        """Make the folder, if it is not there, and folders in it.

        Raises:
            ServerStartError: `server.folder_closed`: the server's user cannot get at it.
        """
        for path in (self.path, *(self.path / name for name in below)):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.give(path)
        if self._account and not self._account.can_enter(self.path):
            raise ServerStartError(
                "server.folder_closed",
                f"the user {self._account.name}, whom {self._server} runs as, cannot enter it",
                where=str(self.path),
                cure="choose a folder below one that everybody may search, such as /tmp; TMPDIR"
                " says where temporary ones are made",
            )

    def put(self, name: str, content: bytes) -> Path:
        """Write a file that only the server's user may read (a TLS key, say)."""
        path = self.path / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        self.give(path)
        return path

    def fill(
        self,
        name: str,
        command: Callable[[Path], Sequence[str | Path]],
        environment: Mapping[str, str],
    ) -> None:
        """Let a program of the server's make the folder `name`, as the server's user.

        Args:
            name: Below this folder; appears when it is whole, so that a run that was killed
                halfway leaves none that looks ready.
            command: The program and its arguments, told the folder to fill, which is empty.
            environment: The program's whole environment.

        Raises:
            ServerStartError: `server.initialisation_failed`: tells what the program said.
        """
        scratch = self.path / f"{name}.new"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        self.give(scratch)
        result = subprocess.run(  # noqa: S603 - the command is our own
            command(scratch),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.path,
            env=environment,
            user=self._account.uid if self._account else None,
            group=self._account.gid if self._account else None,
            extra_groups=[] if self._account else None,
        )
        if result.returncode != 0:
            shutil.rmtree(scratch, ignore_errors=True)
            raise ServerStartError(
                "server.initialisation_failed",
                f"{self._server} says:\n{result.stdout[-_TAIL_CHARACTERS:]}",
                where=str(self.path),
            )
        scratch.rename(self.path / name)

    def copy(self, name: str, template: Path) -> None:
        """Copy a folder that was made before, as `name`."""
        shutil.copytree(template, self.path / name)
        for path in (self.path / name, *(self.path / name).rglob("*")):
            self.give(path)

    def give(self, path: Path) -> None:
        """Make something in the folder the server's user's."""
        if self._account:
            os.chown(path, self._account.uid, self._account.gid)

    def discard(self) -> None:
        """Remove it with all that is in it, if it is temporary."""
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)
