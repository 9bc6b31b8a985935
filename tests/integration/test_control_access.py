"""Tokens, certificates, roles, the audit log, limits, health and reflection: over real sockets."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from structlog.testing import capture_logs

from connectors.errors import RetryableError
from connectors.jetstream.spec import NatsSpec
from control.cli.client import Service
from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import cdc_pb2_grpc
from control.pb.cdc.v1 import config_pb2 as config
from control.server.listening import Listening
from tests.integration.control_refusals import refused
from tests.integration.control_server import RunningControl, empty_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from control.servers.nats import NatsServer
    from tests.servers.certificate import Certificate

pytestmark = pytest.mark.servers

TOKENS = {role: secrets.token_hex(32) for role in ("viewer", "operator", "admin")}
ENVIRONMENT = {role.upper(): token for role, token in TOKENS.items()}
CALLERS = """
callers:
  - {name: vera, role: viewer, token: "${VIEWER}"}
  - {name: otto, role: operator, token: "${OPERATOR}"}
  - {name: ann, role: admin, token: "${ADMIN}"}
  - {name: localhost, role: viewer, certificate: true}
"""


@pytest.fixture
def nats(nats_server: NatsServer) -> NatsSpec:
    spec = NatsSpec(url=(nats_server.url,))
    empty_bucket(spec)
    return spec


@pytest.fixture
def callers(tmp_path: Path) -> Path:
    path = tmp_path / "callers.yaml"
    path.write_text(CALLERS)
    return path


@pytest.fixture
def control(nats: NatsSpec, callers: Path) -> Iterator[RunningControl]:
    with RunningControl(nats, ENVIRONMENT, Listening("127.0.0.1:0", callers=callers)) as running:
        yield running


def _bearing(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def test_a_role_may_do_what_it_allows_and_no_more(control: RunningControl) -> None:
    topic = cdc.CreateTopicRequest(topic_id="db.a", topic=config.Topic())
    for role in ("viewer", "operator"):
        listed = control.config.ListTopics(cdc.ListTopicsRequest(), metadata=_bearing(TOKENS[role]))
        assert not listed.topics
        found = refused(control.config.CreateTopic, topic, metadata=_bearing(TOKENS[role]))
        assert found.code is grpc.StatusCode.PERMISSION_DENIED
    created = control.config.CreateTopic(topic, metadata=_bearing(TOKENS["admin"]))
    assert created.metadata.updated_by == "ann"


def test_who_is_not_known_is_let_in_nowhere_but_at_the_health_service(
    control: RunningControl,
) -> None:
    for metadata in ((), _bearing("x" * 64), _bearing(""), (("authorization", "Basic x"),)):
        found = refused(control.config.ListTopics, cdc.ListTopicsRequest(), metadata=metadata)
        assert found.code is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
        reflected(control, (), list_services="")
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = control.channel.unary_unary(
        "/grpc.health.v1.Health/Check"
    )
    health = health_pb2.HealthCheckResponse.FromString(check(b""))
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    # A stream that stays open is for callers who are known.
    watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = control.channel.unary_stream(
        "/grpc.health.v1.Health/Watch"
    )
    with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
        next(watch(b"", timeout=10))
    watching = watch(b"", timeout=10, metadata=_bearing(TOKENS["viewer"]))
    watched = health_pb2.HealthCheckResponse.FromString(next(watching))
    assert watched.status == health_pb2.HealthCheckResponse.SERVING
    watching.cancel()


def test_changes_are_written_down_with_who_asked_and_no_secret(control: RunningControl) -> None:
    admin = _bearing(TOKENS["admin"])
    source = config.Source(postgres=config.PostgresSource(dsn="host=h password=tops3cret"))
    with capture_logs() as lines:
        with pytest.raises(grpc.RpcError):
            control.config.CreateSource(
                cdc.CreateSourceRequest(source_id="shop", source=source), metadata=admin
            )
        source.postgres.dsn = "host=h password=${ADMIN}"
        control.config.CreateSource(
            cdc.CreateSourceRequest(source_id="shop", source=source), metadata=admin
        )
        control.config.ListSources(cdc.ListSourcesRequest(), metadata=admin)
        with pytest.raises(grpc.RpcError):
            control.config.DeleteSource(
                cdc.DeleteSourceRequest(name="sources/shop"), metadata=_bearing(TOKENS["viewer"])
            )
    audited = [line for line in lines if line["event"] == "audit"]
    assert [
        (line["caller"], line["method"], line["resource"], line["outcome"]) for line in audited
    ] == [
        ("ann", "CreateSource", "sources/shop", "INVALID_ARGUMENT"),
        ("ann", "CreateSource", "sources/shop", "OK"),
    ]
    (refusal,) = [line for line in lines if line["event"] == "refused"]
    assert "vera is viewer" in refusal["reason"]
    told = str(lines)
    assert "tops3cret" not in told
    assert not any(token in told for token in TOKENS.values())


def test_tls_and_certificates_of_clients(
    nats: NatsSpec, callers: Path, certificate: Certificate
) -> None:
    listening = Listening(
        "127.0.0.1:0", certificate.certificate, certificate.key, certificate.certificate, callers
    )
    assert isinstance(listening.credentials(), grpc.ServerCredentials)
    with RunningControl(nats, ENVIRONMENT, listening) as control:
        known = Service(
            server=f"127.0.0.1:{control.port}",
            ca=certificate.certificate,
            cert=certificate.certificate,
            key=certificate.key,
        )
        with known.channel() as channel:
            stub = cdc_pb2_grpc.ConfigServiceStub(channel)
            assert not stub.ListTopics(cdc.ListTopicsRequest()).topics
        nameless = Service(
            server=f"127.0.0.1:{control.port}", ca=certificate.certificate, timeout=5
        )
        plaintext = Service(server=f"127.0.0.1:{control.port}", timeout=5)
        for service in (nameless, plaintext):
            with pytest.raises(RetryableError), service.channel() as channel:
                cdc_pb2_grpc.ConfigServiceStub(channel).ListTopics(cdc.ListTopicsRequest())


def test_a_message_too_large_is_refused(control: RunningControl) -> None:
    request = cdc.PlanRequest(yaml=" " * (17 * 1024 * 1024))
    with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
        control.config.Plan(request, metadata=_bearing(TOKENS["admin"]))


def test_a_client_that_knows_nothing_finds_and_calls_a_method_by_reflection(
    control: RunningControl,
) -> None:
    """As grpcurl does: list the services, fetch the files of a symbol, build its messages."""
    metadata = _bearing(TOKENS["admin"])
    services = reflected(control, metadata, list_services="").list_services_response.service
    assert {
        "cdc.v1.ConfigService", "cdc.v1.FlowService", "cdc.v1.MessageService",
        "cdc.v1.OffsetService", "cdc.v1.DeadLetterService", "cdc.v1.SchemaService",
        "grpc.health.v1.Health",
    } <= {one.name for one in services}  # fmt: skip

    pool, known = DescriptorPool(), set[str]()

    def add(**what: str) -> None:
        found = reflected(control, metadata, **what).file_descriptor_response
        for data in found.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            if file.name not in known:
                known.add(file.name)
                for dependency in file.dependency:
                    add(file_by_filename=dependency)
                pool.Add(file)

    add(file_containing_symbol="cdc.v1.ConfigService")
    method = pool.FindServiceByName("cdc.v1.ConfigService").FindMethodByName("CreateTopic")
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    asked = ParseDict({"topic_id": "db.a", "topic": {"partitions": 3}}, request())
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = control.channel.unary_unary(
        "/cdc.v1.ConfigService/CreateTopic"
    )
    answer = call(asked.SerializeToString(), metadata=metadata)
    shown = MessageToDict(response.FromString(answer))
    assert (shown["name"], shown["partitions"]) == ("topics/db.a", 3)


def reflected(
    control: RunningControl, metadata: tuple[tuple[str, str], ...], **what: str
) -> reflection_pb2.ServerReflectionResponse:
    """What the reflection service answers to one request."""
    request = reflection_pb2.ServerReflectionRequest(**what)  # type: ignore[arg-type]
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = control.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    )
    answer = next(call(iter([request.SerializeToString()]), metadata=metadata))
    return reflection_pb2.ServerReflectionResponse.FromString(answer)
