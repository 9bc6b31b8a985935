"""A private Elasticsearch node."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import signal
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from control.servers.account import unprivileged
from control.servers.elasticsearch_programs import VERSION, find_elasticsearch
from control.servers.folder import ServerFolder
from control.servers.local import LocalServer
from control.servers.process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from control.servers.elasticsearch_programs import ElasticsearchPrograms

USER = "waxtap"
_LAUNCHER = "-XX:TieredStopAtLevel=1 -Xshare:auto"
_JVM_OPTIONS = """\
-Xms{heap}m
-Xmx{heap}m
-Xshare:auto
-XX:+UseSerialGC
-XX:+ExitOnOutOfMemoryError
-Djava.awt.headless=true
-Dfile.encoding=UTF-8
-XX:-OmitStackTraceInFastThrow
-Dio.netty.noUnsafe=true
-Dio.netty.noKeySetOptimization=true
-Dlog4j.shutdownHookEnabled=false
-Dlog4j2.disable.jmx=true
-Djava.io.tmpdir=${{ES_TMPDIR}}
"""
# Compiled code that is good enough is ready sooner: a start takes half as long.
_QUICK = "-XX:TieredStopAtLevel=1\n"
_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


def request(
    url: str,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    trust: str | None = None,
    timeout: float = 60.0,
) -> tuple[int, dict[str, Any]]:
    """Ask a node something; returns the status and the JSON answer.

    Args:
        url: http(s)://host:port.
        method: Of HTTP.
        path: With its query.
        body: Sent as JSON, or as it is when it is bytes (of `_bulk`, say).
        headers: Further ones.
        trust: A certificate (PEM) to trust.
        timeout: In seconds.

    Raises:
        OSError: It cannot be reached.
        HTTPException: It does not answer as it should.
    """
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=trust)
        connection: HTTPConnection = HTTPSConnection(host, port, timeout=timeout, context=context)
    else:
        connection = HTTPConnection(host, port, timeout=timeout)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(
            method, path, data, {"Content-Type": "application/json", **(headers or {})}
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}")
    finally:
        connection.close()


class ElasticsearchServer(LocalServer):
    """A single node on 127.0.0.1, without security unless a password is given.

    Ports that were found once stay the same through `kill` and a further `start`.

    Args:
        password: Of the superuser `waxtap`; None: everybody may do everything.
        users: Further users with that password, and what each may do with indices: the `indices`
            of a role.
        certificate: A PEM certificate and its key, for HTTPS.
        heap: Of the Java process, in MB.
        quick: Start sooner, and work slower.
        programs: The distribution; None: `find_elasticsearch` looks for it.

    Raises:
        ServerMissingError: There is no distribution, or no Java, on this machine.
    """

    port_taken: ClassVar[str] = "bindhttpexception"
    start_seconds: ClassVar[float] = 180.0

    def __init__(
        self,
        *,
        password: str | None = None,
        users: Mapping[str, list[dict[str, object]]] | None = None,
        certificate: tuple[Path, Path] | None = None,
        heap: int = 512,
        quick: bool = True,
        programs: ElasticsearchPrograms | None = None,
    ) -> None:
        self.programs = programs or find_elasticsearch()
        account = unprivileged()
        self._password, self._certificate, self._heap = password, certificate, heap
        self._quick, self._users = quick, users or {}
        self._cluster = ""
        folder = ServerFolder("Elasticsearch", None, account)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder.path),
            "ES_JAVA_HOME": str(self.programs.java),
            "ES_PATH_CONF": str(folder.path / "config"),
            "ES_TMPDIR": str(folder.path / "tmp"),
            "CLI_JAVA_OPTS": _LAUNCHER,
        }
        process = ServerProcess(
            "Elasticsearch",
            folder.path,
            stop_signals=((signal.SIGTERM, 15.0),),
            account=account,
            environment=environment,
        )
        super().__init__(process, folder)

    @property
    def version(self) -> str:
        """The server's version, such as `8.19.21`."""
        return VERSION

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it, and remove its folder."""
        self._process.kill()
        self._folder.discard()

    def request(
        self, method: str, path: str, body: object = None, *, timeout: float = 60.0
    ) -> tuple[int, dict[str, Any]]:
        """Ask the node something as its superuser; returns the status and the JSON answer.

        Args:
            method: Of HTTP.
            path: With its query.
            body: Sent as JSON, or as it is when it is bytes (of `_bulk`, say).
            timeout: In seconds.
        """
        trust = str(self._certificate[0]) if self._certificate else None
        return request(
            self.url, method, path, body, self._authorization(), trust=trust, timeout=timeout
        )

    def _authorization(self) -> Mapping[str, str]:
        if self._password is None:
            return {}
        both = base64.b64encode(f"{USER}:{self._password}".encode()).decode()
        return {"Authorization": f"Basic {both}"}

    def _ready(self, pid: int) -> bool:
        """True once this very node has recovered its indices."""
        try:
            status, health = self.request(
                "GET", "/_cluster/health?wait_for_status=yellow&timeout=2s", timeout=5.0
            )
        except (OSError, HTTPException, ValueError):
            return False
        return status == 200 and health.get("cluster_name") == self._cluster

    def _prepare(self) -> None:
        self._folder.make("config", "tmp", "data")

    def _choose_ports(self) -> None:
        super()._choose_ports()
        self._cluster = f"waxtap-{secrets.token_hex(8)}"

    def _command(self) -> Sequence[str | Path]:
        options = _JVM_OPTIONS.format(heap=self._heap) + (_QUICK if self._quick else "")
        self._write("jvm.options", options)
        self._write("log4j2.properties", _LOGGING)
        settings: dict[str, object] = {
            "cluster.name": self._cluster,
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": self.port,
            # Of no use to a single node, which opens it all the same: any free one.
            "transport.port": "32768-60999",
            "path.data": str(self.folder / "data"),
            "path.logs": str(self.folder),
            "xpack.security.enabled": self._password is not None,
            "cluster.routing.allocation.disk.threshold_enabled": False,
        }
        if self._password is not None:
            names = [USER, *self._users]
            self._write("users", "".join(f"{n}:{_hashed(self._password)}\n" for n in names))
            roles = {name: name for name in self._users} | {USER: "superuser"}
            self._write("users_roles", "".join(f"{role}:{n}\n" for n, role in roles.items()))
            rights = {name: {"indices": indices} for name, indices in self._users.items()}
            # JSON is YAML.
            self._write("roles.yml", json.dumps(rights))
        if self._certificate is not None:
            for name, path in zip(("http.crt", "http.key"), self._certificate, strict=True):
                self._write(name, path.read_text())
            settings |= {
                "xpack.security.http.ssl.enabled": True,
                "xpack.security.http.ssl.certificate": "http.crt",
                "xpack.security.http.ssl.key": "http.key",
            }
        self._write("elasticsearch.yml", json.dumps(settings))
        return [self.programs.home / "bin" / "elasticsearch"]

    def _write(self, name: str, text: str) -> None:
        self.put_file(f"config/{name}", text.encode())


def _hashed(password: str) -> str:
    """A password as Elasticsearch's file realm stores it (`xpack.security.authc.password_hashing`).

    `{PBKDF2}<rounds>$<salt>$<hash>`: PBKDF2 with HMAC-SHA-512, 32 bytes each, base64.
    """
    salt = secrets.token_bytes(32)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 10000, 32)
    return f"{{PBKDF2}}10000${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"
