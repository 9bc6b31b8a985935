"""Payloads that are larger than an answer: given in pieces."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from control.pb.cdc.v1 import cdc_pb2
from control.server.statuses import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1024 * 1024


def pieces(payload: bytes) -> Iterator[cdc_pb2.PayloadPiece]:
    """A payload in its order; one empty piece for nothing."""
    for at in range(0, max(len(payload), 1), _PIECE):
        yield cdc_pb2.PayloadPiece(data=payload[at : at + _PIECE])


class Seats:
    """So many calls at once; one more is refused, since each holds memory until its caller goes.

    Args:
        count: How many.
        code: Of the refusal.
        doing: What they are doing.
    """

    def __init__(self, count: int, code: str, doing: str) -> None:
        self._count, self._code, self._doing = count, code, doing
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a seat for as long as the context lasts. Raises ApiError: there is none."""
        if self._taken >= self._count:
            raise ApiError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                self._code,
                f"{self._count} callers are {self._doing} already",
                retry=True,
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
