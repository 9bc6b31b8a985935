"""Sinks and sources as the explorer finds them registered: each entry for itself."""

from __future__ import annotations

from structlog.testing import capture_logs

from connectors.jetstream.spec import NatsSpec
from control.explorer.progress import Sinks
from tests.integration.control_explorer import FixedSpecs

WAREHOUSE = {"type": "postgres", "dsn": "host=w", "topics": ["db.*"]}
TREE = {
    "sources": {
        "shop": {"type": "postgres", "dsn": "host=s"},
        "away": {"type": "postgres", "dsn": "host=a password=${NOT_SET}"},
    },
    "sinks": {"warehouse": WAREHOUSE, "other": {**WAREHOUSE, "dsn": "${NOT_SET}"}},
}


def test_what_is_wrong_with_one_entry_is_of_no_concern_to_another() -> None:
    sinks = Sinks(NatsSpec(), FixedSpecs(TREE), {})
    with capture_logs() as lines:
        assert sinks.sink("warehouse") is not None
        config = sinks.config("warehouse")
        assert config is not None
        assert config.sinks["warehouse"].sources == ("shop", "away")
        assert list(sinks.sources(["shop", "away", "nobody"])) == ["shop"]
        for _ in range(3):
            assert sinks.sink("other") is None
        assert sinks.sink("nobody") is None
    # Told once, however often it is asked.
    assert [line["where"] for line in lines] == ["sources.away", "sinks.other"]


def test_an_entry_is_usable_as_soon_as_its_secret_is_there() -> None:
    environment: dict[str, str] = {}
    specs = FixedSpecs(TREE)
    sinks = Sinks(NatsSpec(), specs, environment)
    assert sinks.sink("other") is None
    environment["NOT_SET"] = "host=o"
    assert sinks.sink("other") is not None
    found = sinks.config("other")
    assert found is not None
    assert sinks.config("other") is found
    specs.revision += 1
    assert sinks.config("other") is not found
