"""Changes over gRPC: tried, repeated, made by several at once; on a real NATS server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest

from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import config_pb2 as config
from tests.integration.control_refusals import refused
from tests.integration.control_registered import ENVIRONMENT, SHOP, create_shop
from tests.integration.control_server import RunningControl

if TYPE_CHECKING:
    from connectors.jetstream.spec import NatsSpec

pytestmark = pytest.mark.servers


def test_validate_only_changes_nothing(control: RunningControl) -> None:
    shown = create_shop(control, validate_only=True)
    assert shown.name == "sources/shop"
    assert control.store.read().revision == 0
    create_shop(control)
    keep = cdc.DISPOSAL_KEEP
    control.config.DeleteSource(
        cdc.DeleteSourceRequest(
            name="sources/shop", validate_only=True, server_objects=keep, stream=keep
        )
    )
    assert "shop" in str(control.store.read().tree)


def test_a_repeated_request_gets_the_first_answer_from_any_service(
    control: RunningControl, control_nats: NatsSpec
) -> None:
    identity = str(uuid4())
    first = create_shop(control, request_id=identity)
    control.config.UpdateSource(
        cdc.UpdateSourceRequest(
            source=config.Source(name="sources/shop", postgres=config.PostgresSource(slot="x"))
        )
    )
    with RunningControl(control_nats, ENVIRONMENT) as other:
        assert create_shop(other, request_id=identity) == first
        another = cdc.CreateSourceRequest(source_id="crm", source=SHOP, request_id=identity)
        assert refused(other.config.CreateSource, another).fields == ["request_id"]
    no_uuid = cdc.CreateSourceRequest(source_id="crm", source=SHOP, request_id="again")
    assert refused(control.config.CreateSource, no_uuid).fields == ["request_id"]


def test_of_two_clients_with_the_same_etag_one_is_refused(
    control: RunningControl, control_nats: NatsSpec
) -> None:
    etag = create_shop(control).metadata.etag
    outcomes: list[grpc.StatusCode] = []

    def update(service: RunningControl, slot: str) -> None:
        try:
            service.config.UpdateSource(
                cdc.UpdateSourceRequest(
                    source=config.Source(
                        name="sources/shop",
                        metadata=config.Metadata(etag=etag),
                        postgres=config.PostgresSource(slot=slot),
                    )
                )
            )
            outcomes.append(grpc.StatusCode.OK)
        except grpc.RpcError as error:
            outcomes.append(error.code())

    with RunningControl(control_nats, ENVIRONMENT) as other:
        services = [control, other, control, other]
        threads = [
            threading.Thread(target=update, args=(service, f"slot{number}"))
            for number, service in enumerate(services)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcome.name for outcome in outcomes) == ["ABORTED", "ABORTED", "ABORTED", "OK"]
    assert (
        control.config.GetSource(cdc.GetSourceRequest(name="sources/shop")).metadata.generation == 2
    )
    stale = cdc.DeleteSourceRequest(
        name="sources/shop", etag=etag, server_objects=cdc.DISPOSAL_KEEP, stream=cdc.DISPOSAL_KEEP
    )
    assert refused(control.config.DeleteSource, stale).code is grpc.StatusCode.ABORTED


def test_writers_without_etags_all_succeed(control: RunningControl, control_nats: NatsSpec) -> None:
    def create(service: RunningControl, number: int) -> None:
        topic = config.Topic(partitions=number)
        service.config.CreateTopic(cdc.CreateTopicRequest(topic_id=f"t.t{number}", topic=topic))

    with RunningControl(control_nats, ENVIRONMENT) as other:
        threads = [
            threading.Thread(target=create, args=(control if number % 2 else other, number))
            for number in range(1, 21)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert control.config.ListTopics(cdc.ListTopicsRequest()).total_size == 20
