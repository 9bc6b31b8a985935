from __future__ import annotations

import pytest

from dataflows.measuring import committed
from tests.unit.changes import change


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        (b'{"after":{"ts_ms":1},"source":{"ts_ms":1500,"db":"d"},"op":"c","ts_ms":2000}', 1.5),
        (b'{"id":1,"name":"unwrapped"}', None),
        (b'{"ts_ms":5}', None),
        (b'{"ts_ms":"x","b":{"ts_ms":7}}', None),
        (b"", None),
    ],
)
def test_the_time_of_the_commit_is_found_in_the_envelope(
    envelope: bytes, expected: float | None
) -> None:
    assert committed(change()._replace(envelope=envelope)) == expected
