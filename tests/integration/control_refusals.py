"""What the control service refuses, taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

if TYPE_CHECKING:
    from collections.abc import Callable


class Refused:
    """A call that was refused, taken apart."""

    def __init__(self, error: grpc.RpcError) -> None:
        call = cast("grpc.Call", error)
        status = rpc_status.from_call(call)
        assert status is not None
        self.code = call.code()
        self.message = status.message
        self.fields: list[str] = []
        self.reason = self.cure = ""
        self.retry = False
        for detail in status.details:
            info, request = ErrorInfo(), BadRequest()
            if detail.Unpack(info):
                self.reason, self.cure = info.reason, info.metadata.get("cure", "")
            elif detail.Unpack(request):
                self.fields = [one.field for one in request.field_violations]
            else:
                self.retry = detail.Is(RetryInfo.DESCRIPTOR)


def refused(call: Callable[..., object], request: object, **more: object) -> Refused:
    """What a call is refused with, which it must be."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, **more)
    found = Refused(caught.value)
    assert "tops3cret" not in found.message
    return found
