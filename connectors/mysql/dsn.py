"""The user's DSN: `mysql://user:password@host:port,host:port/?option=value`."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from connectors.errors import ConfigError
from connectors.tls import client_context

_PORT = 3306
_SCHEMES = ("mysql", "mariadb")
_TLS = ("disabled", "preferred", "required", "verify-ca", "verify-full")
_OPTIONS = {"tls", "ca", "cert", "key", "socket"}


@dataclass(frozen=True, slots=True)
class Dsn:
    """Where a source's servers are, and how to get in.

    Attributes:
        user: The account.
        password: Its password; a secret.
        hosts: Servers of one topology, each with its port, in the order in which they are tried.
        socket: A Unix socket instead of a host; empty: none.
        tls: One of `disabled`, `preferred`, `required`, `verify-ca`, `verify-full`.
        ca: File of the authority that signed the server's certificate; empty: the system's.
        cert: File of the client's certificate; empty: none.
        key: File of its private key; empty: it is in the other file.
    """

    user: str
    password: str = field(repr=False)
    hosts: tuple[tuple[str, int], ...]
    socket: str
    tls: str
    ca: str
    cert: str
    key: str

    def context(self) -> ssl.SSLContext | None:
        """How to secure the connection; None: as the server likes, or not at all.

        Raises:
            ConfigError: `mysql.tls_files`: a file cannot be read.
        """
        if self.tls in ("disabled", "preferred"):
            return None
        try:
            context = client_context(self.ca, self.cert, self.key)
        except OSError as error:
            raise ConfigError(
                "mysql.tls_files",
                f"a file of `ca`, `cert` or `key` cannot be used: {error.strerror or error}",
                where="dsn",
                cure="name files in PEM format that this process may read",
            ) from None
        # servers make certificates for themselves that the newest rules reject
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = self.tls == "verify-full"
        if self.tls == "required":
            context.verify_mode = ssl.CERT_NONE
        return context


def parse_dsn(text: str) -> Dsn:
    """Read a DSN.

    Raises:
        ConfigError: `mysql.dsn`; never quotes what may be a part of a password.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator or scheme not in _SCHEMES:
        raise _invalid("it does not begin with mysql:// or mariadb://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    account, at, hosts = authority.rpartition("@")
    if "@" in account or not at:
        raise _invalid(
            "there is no `user@host`, or an `@` too many: in user and password it is %40"
        )
    if path:
        raise _invalid("a database is named behind the host; the patterns of `tables` choose")
    user, _, password = account.partition(":")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise _invalid("its options are not of the form `name=value&name=value`") from None
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise _invalid(f"unknown option; known are {', '.join(sorted(_OPTIONS))}")
    tls = options.get("tls", "verify-full" if "ca" in options else "preferred")
    if tls not in _TLS:
        raise _invalid(f"`tls` is one of {', '.join(_TLS)}")
    return Dsn(
        user=unquote(user),
        password=unquote(password),
        hosts=tuple(_host(host) for host in hosts.split(",")),
        socket=options.get("socket", ""),
        tls=tls,
        ca=options.get("ca", ""),
        cert=options.get("cert", ""),
        key=options.get("key", ""),
    )


def _host(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    if not host and not port:
        return "localhost", _PORT
    if not host or (port and not port.isdecimal()) or int(port or _PORT) > 65535:
        raise _invalid("a host is not of the form `host` or `host:port`")
    return unquote(host), int(port or _PORT)


def _invalid(problem: str) -> ConfigError:
    return ConfigError(
        "mysql.dsn",
        f"not a DSN: {problem}",
        where="dsn",
        cure="write `mysql://user:password@host:3306/?tls=verify-full&ca=/path`, special characters"
        " of user and password as %XX",
    )
