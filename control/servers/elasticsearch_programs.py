"""Where Elasticsearch and the Java that it runs on come from.

Maven Central serves the distribution that Elastic's own tests use (`integ-test-zip`): a whole node
with few modules. It is fetched once and kept in a cache folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from control.servers.account import unprivileged
from control.servers.errors import ServerMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "8.19.21"
_SHA256 = "215d5f3dbf0609a149f6218a9e47b6ae2df34ebbff3c5754e35f15a5e5393c8a"
_ARTIFACT = "org.elasticsearch.distribution.integ-test-zip:elasticsearch"
_OLDEST_JAVA = 17
_FETCH_SECONDS = 600.0
_CURE = "install Maven (`mvn`), or set WAXTAP_ELASTICSEARCH_HOME to an unpacked distribution"


@dataclass(frozen=True, slots=True)
class ElasticsearchPrograms:
    """A distribution and a Java that suits it.

    Attributes:
        home: The unpacked distribution.
        java: What ES_JAVA_HOME names.
    """

    home: Path
    java: Path

    def __str__(self) -> str:
        return f"{self.home} with {self.java}"


def find_elasticsearch() -> ElasticsearchPrograms:
    """The distribution in `WAXTAP_ELASTICSEARCH_HOME` or the cache, fetched when it is not there.

    Raises:
        ServerMissingError: There is no Java 17 or newer, or the distribution cannot be fetched.
    """
    java = find_java()
    named = os.environ.get("WAXTAP_ELASTICSEARCH_HOME")
    if not named:
        return ElasticsearchPrograms(_cached(), java)
    if not (Path(named) / "bin" / "elasticsearch").exists():
        raise ServerMissingError(
            "server.elasticsearch_missing",
            f"{named} holds no bin/elasticsearch",
            where="WAXTAP_ELASTICSEARCH_HOME",
            cure="name an unpacked distribution, or unset it",
        )
    return ElasticsearchPrograms(Path(named), java)


def find_java() -> Path:
    """The home of the newest Java on this machine. Raises ServerMissingError as told above."""
    found = {home: _java_version(home) for home in _java_homes()}
    best = max(found, key=lambda home: found[home], default=None)
    if best is None or found[best] < _OLDEST_JAVA:
        raise ServerMissingError(
            "server.java_missing",
            f"no Java {_OLDEST_JAVA} or newer on this machine",
            cure="`apt-get install default-jre-headless`, or set JAVA_HOME",
        )
    return best


def _java_homes() -> Iterator[Path]:
    for variable in ("ES_JAVA_HOME", "JAVA_HOME"):
        if named := os.environ.get(variable):
            yield Path(named).resolve()
    if program := shutil.which("java"):
        yield Path(program).resolve().parent.parent
    for home in sorted(Path("/usr/lib/jvm").glob("*")):
        yield home.resolve()


def _java_version(home: Path) -> int:
    """The feature release of the Java in `home`; 0 when there is none."""
    release = home / "release"
    if not (home / "bin" / "java").exists() or not release.exists():
        return 0
    told = re.search(r'^JAVA_VERSION="(\d+)', release.read_text(), re.MULTILINE)
    return int(told[1]) if told else 0


def _cached() -> Path:
    folder = _cache()
    home = folder / f"elasticsearch-{VERSION}"
    if home.exists():
        return home
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerMissingError(
            "server.elasticsearch_missing", "Elasticsearch has not been fetched yet", cure=_CURE
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as scratch:
        archive = _fetch(maven, Path(scratch))
        unpacked = _unpack(archive, Path(scratch) / "unpacked")
        try:
            unpacked.rename(home)
        except OSError:
            if not home.exists():  # another process was quicker
                raise
    return home


def _cache() -> Path:
    """A folder that the server's user can enter as well: root's own home is closed to it."""
    if unprivileged() is not None:
        return Path("/var/cache/waxtap")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "waxtap"


def _fetch(maven: str, folder: Path) -> Path:
    command = [maven, "-B", "-q", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"]
    command += [f"-Dartifact={_ARTIFACT}:{VERSION}:zip", f"-DoutputDirectory={folder}"]
    try:
        result = subprocess.run(  # noqa: S603 - the command is our own
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            check=False,
            cwd=folder,
        )
        reason = "" if result.returncode == 0 else result.stdout.strip() or result.stderr.strip()
    except subprocess.TimeoutExpired:
        reason = f"Maven took longer than {_FETCH_SECONDS:.0f} s"
    archive = folder / f"elasticsearch-{VERSION}.zip"
    if not reason:
        with archive.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == _SHA256:
                return archive
        reason = "what Maven fetched is not the file that was expected"
    raise ServerMissingError(
        "server.elasticsearch_missing",
        f"Elasticsearch {VERSION} cannot be fetched: {reason}",
        where=_ARTIFACT,
        cure=_CURE,
    )


def _unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as content:
        for entry in content.infolist():
            path = Path(content.extract(entry, folder))
            # zipfile forgets the rights; the server's user is another one.
            path.chmod(0o755 if path.is_dir() else (entry.external_attr >> 16) & 0o755 | 0o644)
    (unpacked,) = folder.iterdir()
    for path in [unpacked, *unpacked.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    return unpacked
