"""How commands reach the control service, and what its refusals mean to them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import grpc
from cyclopts import Parameter
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from typing_extensions import override

from connectors.errors import ConfigError, FatalError, RetryableError, WaxtapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    _Request = TypeVar("_Request")
    _Response = TypeVar("_Response")

DEFAULT_ADDRESS = "127.0.0.1:7443"
_LARGEST = 16 * 1024 * 1024
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_INPUT = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)


@Parameter(name="*", group="Service")
@dataclass(frozen=True)
class Service:
    """Where the control service is, and who asks.

    Attributes:
        server: `host:port`; $WAXTAP_SERVER unless given.
        ca: Certificates (PEM) of the authorities to trust: asks for TLS; $WAXTAP_CA unless given.
        cert: Our own certificate (PEM), where the service wants one.
        key: Its private key.
        token_file: A file that holds our token; the token is in $WAXTAP_TOKEN unless given.
        timeout: Seconds to wait for an answer.
    """

    server: Annotated[str | None, Parameter(name="--server")] = None
    ca: Annotated[Path | None, Parameter(name="--ca")] = None
    cert: Annotated[Path | None, Parameter(name="--cert")] = None
    key: Annotated[Path | None, Parameter(name="--key")] = None
    token_file: Annotated[Path | None, Parameter(name="--token-file")] = None
    timeout: Annotated[float, Parameter(name="--timeout")] = 30.0

    @property
    def address(self) -> str:
        """Where it is."""
        return self.server or os.environ.get("WAXTAP_SERVER", "") or DEFAULT_ADDRESS

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A channel whose calls carry our token and end in time; refusals are errors of ours.

        A stream has no time in which it must end.

        Raises:
            ConfigError: The request is wrong, or we may not ask it; or a file cannot be read.
            RetryableError: The service does not answer.
            FatalError: Anything else that it says.
        """
        options = [("grpc.max_receive_message_length", _LARGEST)]
        with self._open(options) as channel, self.calling():
            yield grpc.intercept_channel(channel, _Completing(self.timeout, self.metadata))

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Turn refusals of calls inside into errors; as `channel`, where that is open already."""
        try:
            yield
        except grpc.RpcError as error:
            raise refusal(error, self.address) from None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call: the token."""
        token = os.environ.get("WAXTAP_TOKEN", "")
        if self.token_file is not None:
            token = _read(self.token_file).decode().strip()
        return (("authorization", f"Bearer {token}"),) if token else ()

    def _open(self, options: list[tuple[str, int]]) -> grpc.Channel:
        ca = self.ca or (Path(found) if (found := os.environ.get("WAXTAP_CA", "")) else None)
        if ca is None and self.cert is None:
            if self.metadata and not _is_local(self.address):
                raise ConfigError(
                    "cli.plaintext_token",
                    "the token would be sent without encryption",
                    where="--server",
                    cure="name the authority of the service's certificate: --ca FILE",
                )
            return grpc.insecure_channel(self.address, options)
        if (self.cert is None) != (self.key is None):
            raise ConfigError("cli.certificate", "--cert and --key belong together", where="--cert")
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_read(ca) if ca else None,
            private_key=_read(self.key) if self.key else None,
            certificate_chain=_read(self.cert) if self.cert else None,
        )
        return grpc.secure_channel(self.address, credentials, options)


class _Completed(grpc.ClientCallDetails):
    """A call with what all calls have."""

    def __init__(
        self,
        call: grpc.ClientCallDetails,
        timeout: float | None,
        metadata: Sequence[tuple[str, str]],
    ) -> None:
        self.method = call.method
        self.timeout = call.timeout or timeout
        self.metadata = (*(call.metadata or ()), *metadata)
        self.credentials = call.credentials
        self.wait_for_ready = call.wait_for_ready
        self.compression = call.compression


class _Completing(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Gives calls what they all have.

    Args:
        timeout: Of calls that have one answer, in seconds.
        metadata: Of every call.
    """

    def __init__(self, timeout: float, metadata: Sequence[tuple[str, str]]) -> None:
        self._timeout, self._metadata = timeout, metadata

    @override
    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, _Request], grpc._CallFuture[_Response]],
        client_call_details: grpc.ClientCallDetails,
        request: _Request,
    ) -> grpc._CallFuture[_Response]:
        call = _Completed(client_call_details, self._timeout, self._metadata)
        return continuation(call, request)

    @override
    def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.ClientCallDetails, _Request], grpc._CallIterator[_Response]],
        client_call_details: grpc.ClientCallDetails,
        request: _Request,
    ) -> grpc._CallIterator[_Response]:
        return continuation(_Completed(client_call_details, None, self._metadata), request)


def refusal(error: grpc.RpcError, address: str) -> WaxtapError:
    """What a refused call means, with the exit status that belongs to it."""
    # What a call of a stub raises is both, which the types do not tell.
    call = cast("grpc.Call", error)
    code, told = call.code(), call.details() or ""
    if code in _AWAY:
        return RetryableError(
            "control.unavailable",
            " ".join(told.split()),
            where=address,
            cure="start it: waxtap serve; or name another one: --server host:port",
        )
    reason, message, where, cure = _details(call, told)
    kind = ConfigError if code in _INPUT else FatalError
    return kind(reason or f"control.{code.name.lower()}", message, where=where, cure=cure)


def _details(call: grpc.Call, told: str) -> tuple[str, str, str, str]:
    """Code, message, place and cure, as far as the service has told them apart."""
    status = rpc_status.from_call(call)
    info = ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            where, cure = info.metadata.get("where", ""), info.metadata.get("cure", "")
            message = told.removeprefix(f"{where}: ").removesuffix(f" → {cure}")
            return info.metadata.get("code", ""), message, where, cure
    return "", told, "", ""


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.") or address.startswith("unix:")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "cli.unreadable_file", f"it cannot be read: {error.strerror}", where=str(path)
        ) from None
