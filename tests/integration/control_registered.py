"""A control service that nothing is registered at, and what tests register there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from connectors.jetstream.spec import NatsSpec
from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import config_pb2 as config
from tests.integration.control_server import RunningControl, empty_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.servers.nats import NatsServer

ENVIRONMENT = {
    "SHOP_DSN": "host=shop password=tops3cret",
    "SALT": "tops3cret",
    "API_PATH": "/items",
}
SHOP = config.Source(postgres=config.PostgresSource(dsn="${SHOP_DSN}", tables=["public.*"]))
WAREHOUSE = config.Sink(
    postgres=config.PostgresSink(dsn="host=w user=u password=${SHOP_DSN}"), topics=["db.*"]
)


def create_shop(control: RunningControl, **request: object) -> config.Source:
    return control.config.CreateSource(
        cdc.CreateSourceRequest(source_id="shop", source=SHOP, **request)  # type: ignore[arg-type]
    )


@pytest.fixture
def control_nats(nats_server: NatsServer) -> NatsSpec:
    """The shared server, without what earlier tests have registered."""
    spec = NatsSpec(url=(nats_server.url,))
    empty_bucket(spec)
    return spec


@pytest.fixture
def control(control_nats: NatsSpec) -> Iterator[RunningControl]:
    """The service; another one there shares what is registered."""
    with RunningControl(control_nats, ENVIRONMENT) as running:
        yield running
