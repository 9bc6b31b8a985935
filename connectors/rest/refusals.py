"""What an API means by refusing a request, and how that is told.

Statuses 408, 425, 429 and 5xx pass; every other one lasts until somebody corrects something.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from connectors.errors import ConfigError, RetryableError
from connectors.retry_after import seconds_asked

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNAUTHORIZED = 401
_LATER = (408, 425, 429)
_MEGABYTE = 1024 * 1024


class LaterError(RetryableError):
    """The API asks to come again.

    Attributes:
        after: Seconds that it asked for; None: it named no time.
    """

    after: float | None = None


class UnauthorizedError(ConfigError):
    """The API does not accept the credentials."""


def refusal(shown: str, status: int, headers: Mapping[str, str]) -> RetryableError | ConfigError:
    """The error of an answer that refuses.

    Args:
        shown: The API, without secrets.
        status: Neither 2xx, a redirect, nor 304.
        headers: Names in lower case.
    """
    told = f"{shown} answers with status {status}"
    if status in _LATER or status >= 500:
        error = LaterError("rest.status", told)
        error.after = seconds_asked(headers.get("retry-after", ""), datetime.now(UTC))
        return error
    if status == _UNAUTHORIZED:
        return UnauthorizedError(
            "rest.unauthorized", told, where="auth", cure="correct the credentials"
        )
    where = "auth" if status == 403 else "url"
    return ConfigError(
        "rest.refused", told, where=where, cure="correct the request, or the rights of the user"
    )


def too_large(most: int) -> ConfigError:
    """The error of an answer of more than so many bytes."""
    return ConfigError(
        "rest.page_too_large",
        f"an answer is larger than {most / _MEGABYTE:.1f} MiB",
        where="max_page",
        cure="ask for smaller pages, or raise max_page",
    )
