"""The settings of a REST source."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.unit.rest_records import URL, spec


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "http://api.example.org"}, "allow_http"),
        ({"url": "https://u:p@api.example.org"}, "name the user in `auth`"),
        ({"url": "ftp://x"}, "https://host/path"),
        ({"records": "a..b"}, "JMESPath"),
        ({"cron": "every day"}, "five fields"),
        ({"cron": "* * * * *", "interval": "1s"}, "either interval or cron"),
        ({"mode": "incremental"}, "belong together"),
        ({"body": {}}, "method: POST"),
        ({"headers": {"a b": "x"}}, "no name of a header"),
        ({"headers": {"host": "x"}}, "by the source itself"),
        ({"headers": {"a": "s3cret\n"}}, "visible ASCII"),
        ({"max_deletions": "half"}, "a share such as 50%"),
        ({"auth": {"type": "api_key", "key": "k"}}, "either `header` or `query`"),
        ({"table": "a.b.c"}, "schema.name"),
        *(
            (
                {
                    "mode": "incremental",
                    "cursor": {"field": "at", "param": "since", "format": pattern},
                },
                "that tells a moment",
            )
            for pattern in ("%H:%M", "%Y-%j %", "yesterday", "%m-%d")
        ),
        ({"pagination": {"type": "cursor", "path": "a[", "param": "c"}}, "JMESPath"),
    ],
)
def test_bad_settings_are_told_in_one_line(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**settings)
    (problem,) = caught.value.errors()
    assert told in problem["msg"]
    assert "s3cret" not in problem["msg"]


def test_secrets_are_not_shown() -> None:
    shown = repr(
        spec(
            url=f"{URL}?k=s3cret",
            query={"q": "s3cret"},
            headers={"h": "s3cret"},
            method="POST",
            body={"b": "s3cret"},
            auth={"type": "bearer", "token": "s3cret"},
        )
    )
    assert "s3cret" not in shown
