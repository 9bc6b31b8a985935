"""Finds MySQL's server, or takes it out of Debian's packages.

Debian has MySQL only in its unstable distribution (sid). Its packages, and those of every library
that they need down to libc, are extracted into a folder of their own: the system stays as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from control.servers.binlog_server import ServerPrograms
from control.servers.errors import ServerMissingError

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PACKAGE = re.compile(r"mysql-server-core(-[0-9.]+)?")
_SERVER = Path("usr/sbin/mysqld")
_INSTALL_SECONDS = 900


def find_mysql() -> ServerPrograms:
    """MySQL's server.

    Looked for in the folder `WAXTAP_MYSQL_BIN`, then on PATH, then among what `install_mysql` has
    extracted.

    Raises:
        ServerMissingError: There is none.
    """
    named = os.environ.get("WAXTAP_MYSQL_BIN")
    server = shutil.which("mysqld", path=named or f"{os.environ.get('PATH', '')}:/usr/sbin")
    found = _described((server, "--no-defaults")) if server else None
    if found is None and not named:
        found = _extracted(_folder())
    if found is None:
        raise ServerMissingError(
            "server.mysql_missing",
            "no MySQL server on this machine",
            where="WAXTAP_MYSQL_BIN" if named else "",
            cure="install MySQL, or set WAXTAP_MYSQL_BIN, or on Debian run"
            " `python -m control.servers.mysql_programs`, which extracts one beside the system",
        )
    return found


def install_mysql() -> None:
    """Download MySQL from Debian's packages and extract it, unless that was done before.

    Raises:
        ServerMissingError: It cannot be had.
    """
    target = _folder()
    if _extracted(target) is not None:
        return
    if not shutil.which("apt-get") or not _KEYRING.exists():
        raise ServerMissingError("server.mysql_missing", "no apt-get and no keyring of Debian here")
    with tempfile.TemporaryDirectory(prefix="waxtap-apt-", dir=target.parent) as scratch:
        root = Path(scratch) / "root"
        for package in _download(Path(scratch)):
            _run(["dpkg", "-x", str(package), str(root)])
        root.chmod(0o755)
        try:
            root.rename(target)
        except OSError:  # another process was faster
            if _extracted(target) is None:
                raise


def _folder() -> Path:
    """Below a folder that every user may search, because a server of root's runs as another one."""
    return Path("/var/tmp") / f"waxtap-mysql-{os.geteuid()}"  # noqa: S108 - checked for its owner


def _extracted(root: Path) -> ServerPrograms | None:
    if not (root / _SERVER).exists() or root.stat().st_uid != os.geteuid():
        return None
    libraries = next(iter(sorted((root / "usr/lib").glob("*-linux-gnu"))), None)
    loader = next(iter(sorted(libraries.glob("ld-linux-*"))), None) if libraries else None
    if libraries is None or loader is None:
        return None
    usr = root / "usr"
    places = (libraries, usr / "lib/mysql/private", usr / "lib/mysql/plugin")
    return _described(
        (
            str(loader),
            "--library-path",
            ":".join(map(str, places)),
            str(root / _SERVER),
            "--no-defaults",
            f"--basedir={usr}",
            f"--lc-messages-dir={usr / 'share/mysql'}",
            f"--character-sets-dir={usr / 'share/mysql/charsets'}",
            f"--plugin-dir={usr / 'lib/mysql/plugin'}",
        )
    )


def _described(command: tuple[str, ...]) -> ServerPrograms | None:
    """None when it is no MySQL: MariaDB also installs a `mysqld`."""
    answer = subprocess.run(  # noqa: S603 - the program was asked for
        [*command, "--version"], check=False, capture_output=True, text=True
    )
    version = re.search(r"Ver (\d+\.\d+\.\d+)", answer.stdout)
    if version is None or "MariaDB" in answer.stdout:
        return None
    return ServerPrograms(command, version[1])


def _download(scratch: Path) -> list[Path]:
    """The packages of the newest server and of all that it needs."""
    for folder in ("state/lists/partial", "cache/archives/partial", "etc"):
        (scratch / folder).mkdir(parents=True)
    sources = scratch / "etc/sources.list"
    sources.write_text(f"deb [signed-by={_KEYRING}] {_mirror()} sid main\n")
    # an empty status file makes apt resolve every library, libc included
    (scratch / "status").touch()
    options = {
        "Dir::State": scratch / "state",
        "Dir::State::Lists": scratch / "state/lists",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    _run(["apt-get", *flags, "-qq", "update"])
    listed = _run(["apt-cache", *flags, "pkgnames", "mysql-server-core"])
    names = [name for name in listed.split() if _PACKAGE.fullmatch(name)]
    if not names:
        raise ServerMissingError("server.mysql_missing", "Debian's sid has no mysql-server-core")
    newest = max(names, key=lambda name: tuple(map(int, re.findall(r"\d+", name))))
    _run(
        ["apt-get", *flags, "-qq", "-y", "install", "--no-install-recommends", "--download-only",
         newest]
    )  # fmt: skip
    return sorted((scratch / "cache/archives").glob("*.deb"))


def _mirror() -> str:
    """Where the system gets its own packages from."""
    for place in ("sources.list.d/debian.sources", "sources.list"):
        path = Path("/etc/apt") / place
        found = (
            re.search(r"^(?:URIs:|deb)\s+(https?://\S+)", path.read_text(), re.MULTILINE)
            if (path.exists())
            else None
        )
        if found:
            return found[1]
    return "http://deb.debian.org/debian"


def _run(command: list[str]) -> str:
    answer = subprocess.run(  # noqa: S603 - our own commands
        command,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=_INSTALL_SECONDS,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
    )
    if answer.returncode != 0:
        raise ServerMissingError(
            "server.mysql_missing", f"{command[0]} says: {answer.stderr.strip()[-500:]}"
        )
    return answer.stdout


if __name__ == "__main__":
    install_mysql()
    sys.stdout.write(f"{find_mysql().version}\n")
