"""What servers ask for by `Retry-After`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from connectors.retry_after import seconds_asked

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-1", None),
        ("Fri, 02 Jan 99999999999 03:05:05 GMT", None),
        ("Fri, 99999999999 Jan 2026 03:05:05 GMT", None),
        ("Fri, 02 Jan 2026 03:05:05 +99999999999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert seconds_asked(header, NOW) == seconds
