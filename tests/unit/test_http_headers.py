"""Headers that a configuration adds to requests."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from connectors.http_headers import check_headers


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"X-Tenant": "a b\tc", "x-other!": "~"}, ""),
        ({"X Tenant": "a"}, "'X Tenant' is no name of a header"),
        ({"": "a"}, "'' is no name of a header"),
        ({"x-tenant": ""}, "x-tenant: a value is visible ASCII characters on one line"),
        ({"x-tenant": " s3cret"}, "x-tenant: a value is visible ASCII characters on one line"),
        ({"x-tenant": "s3cret\r\nx: y"}, "x-tenant: a value is visible ASCII characters"),
        ({"x-tenant": "s3crét"}, "x-tenant: a value is visible ASCII characters on one line"),
        ({"Host": "a"}, "Host is written by the sink itself"),
        ({"x-tenant": "a", "X-Tenant": "b"}, "a header is given twice"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str], told: str) -> None:
    secret = {name: SecretStr(value) for name, value in headers.items()}
    if not told:
        check_headers(secret, {"host"}, "sink")
        return
    with pytest.raises(ValueError, match=told) as caught:
        check_headers(secret, {"host"}, "sink")
    assert "s3cr" not in str(caught.value)
