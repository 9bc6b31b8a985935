"""No connector without the suites."""

from __future__ import annotations

from connectors import registry


def test_every_registered_connector_has_an_adapter(
    connectors_under_contract: tuple[set[str], set[str]],
) -> None:
    sources, sinks = connectors_under_contract
    assert sources == set(registry.source_types())
    assert sinks == set(registry.sink_types())
