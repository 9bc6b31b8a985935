"""Errors as gRPC tells them: google.rpc.Status with details (AIP-193).

Every status has an ErrorInfo: its reason is the error's code in capitals (`CONFIG_UNKNOWN_KEY`),
its domain `waxtap`, its metadata where the fault lies and how it is cured. Wrong input names the
field in a BadRequest; what may succeed later has a RetryInfo.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from connectors.errors import ConfigError, FencedError, GapError, PermanentError, RetryableError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from connectors.errors import WaxtapError

DOMAIN = "waxtap"
_RETRY_AFTER = timedelta(seconds=1)


class ApiError(Exception):
    """A request that cannot be carried out as it is.

    Args:
        code: gRPC's.
        reason: Stable dotted identifier, such as `control.not_found`.
        message: What is wrong, without secrets.
        where: The request's field, or the config path; empty: none.
        cure: What the caller can do about it.
        retry: Whether the same request may succeed later.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        where: str = "",
        cure: str = "",
        retry: bool = False,
    ) -> None:
        super().__init__(code, reason, message)
        self.code, self.reason, self.message = code, reason, message
        self.where, self.cure, self.retry = where, cure, retry


def invalid(reason: str, message: str, *, where: str, cure: str = "") -> ApiError:
    """A field of the request that cannot be accepted."""
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, reason, message, where=where, cure=cure)


def not_found(name: str) -> ApiError:
    """There is no such resource."""
    return ApiError(
        grpc.StatusCode.NOT_FOUND, "control.not_found", f"there is no {name}", where="name"
    )


def of_waxtap(error: WaxtapError) -> ApiError:
    """What an error of a connector or of the configuration is to a caller."""
    code = grpc.StatusCode.INTERNAL
    if isinstance(error, RetryableError):
        code = grpc.StatusCode.UNAVAILABLE
    elif isinstance(error, ConfigError):
        code = grpc.StatusCode.INVALID_ARGUMENT
    elif isinstance(error, FencedError):
        code = grpc.StatusCode.ABORTED
    elif isinstance(error, GapError | PermanentError):
        code = grpc.StatusCode.FAILED_PRECONDITION
    return ApiError(
        code,
        error.code,
        error.message,
        where=error.where,
        cure=error.cure,
        retry=isinstance(error, RetryableError),
    )


def status_of(error: ApiError) -> Status:
    """The status that tells of an error."""
    info = ErrorInfo(
        reason=error.reason.replace(".", "_").upper(),
        domain=DOMAIN,
        metadata={
            name: value
            for name, value in (
                ("code", error.reason), ("where", error.where), ("cure", error.cure)
            )
            if value
        },
    )  # fmt: skip
    details: list[Message] = [info]
    if error.code is grpc.StatusCode.INVALID_ARGUMENT and error.where:
        violation = BadRequest.FieldViolation(field=error.where, description=error.message)
        details.append(BadRequest(field_violations=[violation]))
    if error.retry:
        delay = Duration()
        delay.FromTimedelta(_RETRY_AFTER)
        details.append(RetryInfo(retry_delay=delay))
    cure = f" → {error.cure}" if error.cure else ""
    place = f"{error.where}: " if error.where else ""
    return Status(
        code=error.code.value[0],
        message=f"{place}{error.message}{cure}",
        details=[_packed(detail) for detail in details],
    )


async def abort(context: grpc.aio.ServicerContext[object, object], error: ApiError) -> NoReturn:
    """End a call with the status of an error."""
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("abort_with_status raises")


def code_of(context: grpc.aio.ServicerContext[object, object]) -> grpc.StatusCode:
    """How a call has ended that something was raised in; CANCELLED unless it was told a status."""
    code: object = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    for known in grpc.StatusCode:
        if known.value[0] == code and code:
            return known
    return grpc.StatusCode.CANCELLED


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
