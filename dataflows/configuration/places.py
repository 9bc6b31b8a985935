"""Where in the configuration a connector's error belongs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from connectors.errors import ConfigError, RetryableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


@contextmanager
def placing(entry: str, settings: Collection[str]) -> Iterator[None]:
    """Give an error about one of `settings` its whole path, such as `sources.shop.dsn`.

    A connector knows its own settings only; of several sources, `dsn` alone names none.
    """
    try:
        yield
    except (ConfigError, RetryableError) as error:
        if error.where in settings:
            error.where = f"{entry}.{error.where}"
        raise
