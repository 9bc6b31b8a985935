"""Payloads in pieces, and calls of which only so many are carried out at once."""

from __future__ import annotations

import grpc
import pytest

from control.server.statuses import ApiError
from control.services.pieces import Seats, pieces


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_pieces_are_the_payload_in_its_order(size: int) -> None:
    payload = bytes(range(251)) * (size // 251 + 1)
    found = [piece.data for piece in pieces(payload[:size])]
    assert b"".join(found) == payload[:size]
    assert len(found) == max(-(-size // (1 << 20)), 1)


def test_one_call_too_many_is_refused_until_another_one_ends() -> None:
    seats = Seats(2, "control.too_many_tails", "following")
    with seats.taken():
        with seats.taken(), pytest.raises(ApiError) as raised, seats.taken():
            pass
        assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        with seats.taken():
            pass
    with pytest.raises(KeyError), seats.taken():
        raise KeyError
    with seats.taken(), seats.taken():
        pass
