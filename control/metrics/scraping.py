"""Asks flows for what they count."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

_TIMEOUT = 2.0
_OK = 200

Labels: TypeAlias = "frozenset[tuple[str, str]]"


def scrape(port: int) -> list[Metric] | None:
    """The metrics that a process serves at a port of 127.0.0.1; None: it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        if answer.status != _OK:
            return None
        return list(text_string_to_metric_families(text))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


class Samples:
    """The values of some processes, found by name.

    Args:
        families: Of one process each.
    """

    def __init__(self, families: Iterable[Iterable[Metric]]) -> None:
        self._values: dict[str, list[float]] = {}
        for metrics in families:
            for metric in metrics:
                for sample in metric.samples:
                    self._values.setdefault(sample.name, []).append(sample.value)

    def of(self, name: str) -> list[float]:
        """Every value of this name, whatever its labels."""
        return self._values.get(name, [])

    def all_set(self, name: str) -> bool:
        """Whether there are values of this name, and all of them are set."""
        values = self.of(name)
        return bool(values) and all(values)

    def any_set(self, name: str) -> bool:
        """Whether one value of this name is set."""
        return any(self.of(name))
