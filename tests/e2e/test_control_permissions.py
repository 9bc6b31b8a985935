"""The service and its flows as a user of NATS that has the documented permissions and no others."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import yaml

from control.pb.cdc.v1 import cdc_pb2 as cdc
from control.pb.cdc.v1 import cdc_pb2_grpc
from control.pb.cdc.v1 import config_pb2 as config
from control.servers.ports import free_port
from tests.contract.webhook_sink import SECRET, Consumer
from tests.contract.webhook_source import post
from tests.e2e.control_service import ControlService
from tests.e2e.flows import await_capture
from tests.e2e.items import agree, insert, wait_for
from tests.e2e.test_control_registered import HOOK, SHOP, WAREHOUSE
from tests.e2e.test_webhook import rows
from tests.servers.receiver import Receiver

if TYPE_CHECKING:
    import grpc

    from tests.e2e.deployment import Deployment
    from tests.servers.nats import NatsFactory

pytestmark = [pytest.mark.servers, pytest.mark.slow]

_DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"


def _documented() -> str:
    """The permissions, as the server's configuration has them."""
    [block] = re.findall(
        r"# the control service and its flows\n(.*?)```", _DOCUMENT.read_text("utf-8"), re.DOTALL
    )
    publish, subscribe = re.findall(r"(?:publish|subscribe): (\[.*?\n\])", block, re.DOTALL)
    return f"publish: {{allow: {publish}}}\nsubscribe: {{allow: {subscribe}}}"


def test_the_documented_permissions_are_enough_for_everything(
    deployment: Deployment, nats_factory: NatsFactory
) -> None:
    password = secrets.token_hex(8)
    server = nats_factory(
        config=f"authorization {{ users: [ {{user: control, password: {password!r}, "
        f"permissions: {{ {_documented()} }} }} ] }}"
    )
    file = deployment.folder / "nats.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "nats": {
                    "url": server.url,
                    "user": "control",
                    "password": "${NATS_PASSWORD}",
                    "inbox_prefix": "_INBOX_control",
                }
            }
        )
    )
    consumer, port, token = Consumer(), free_port(), secrets.token_hex(16)
    consumer.refused.add("value 7")
    with Receiver(consumer) as receiver:
        environment = {
            "HOOK_URL": receiver.url,
            "HOOK_SECRET": SECRET,
            "NATS_PASSWORD": password,
            "TOKEN": token,
        }
        control = ControlService(deployment, "only", environment=environment, config=file)
        with control, control.channel() as channel:
            wait_for(control.ready, "the service")
            stub = cdc_pb2_grpc.ConfigServiceStub(channel)
            stub.CreateSource(cdc.CreateSourceRequest(source_id="shop", source=SHOP))
            stub.CreateSource(cdc.CreateSourceRequest(source_id="hooks", source=_hooks(port)))
            stub.CreateSink(cdc.CreateSinkRequest(sink_id="warehouse", sink=WAREHOUSE))
            hook = config.Sink()
            hook.CopyFrom(HOOK)
            hook.topics[:], hook.webhook.max_body = ["db.items"], "4MiB"
            stub.CreateSink(cdc.CreateSinkRequest(sink_id="hook", sink=hook))
            await_capture(deployment)
            insert(deployment, 1, 20)
            # One that does not fit into a message of NATS.
            deployment.run("INSERT INTO items VALUES (21, repeat(md5('x'), 50000))")
            agree(deployment)
            expected = {n: v for n, v in rows(deployment).items() if n != 7}
            wait_for(lambda: consumer.rows == expected, "all rows but one at the endpoint")
            wait_for(lambda: _posted(port, token), "the webhook source")

            letters = cdc_pb2_grpc.DeadLetterServiceStub(channel)
            wait_for(
                lambda: letters.ListDeadLetters(cdc.ListDeadLettersRequest()).total_size == 1,
                "the dead letter",
            )
            consumer.refused.clear()
            replayed = letters.ReplayDeadLetters(
                cdc.ReplayDeadLettersRequest(all=True, request_id=str(uuid4()))
            )
            assert (replayed.replayed, replayed.unanswered) == (1, 0)
            assert consumer.rows == rows(deployment)

            _look(cdc_pb2_grpc.MessageServiceStub(channel))
            _reset(channel)
            wait_for(lambda: consumer.repeated >= 20, "changes that come again")
            drop = cdc.DISPOSAL_DROP
            for name in ("shop", "hooks"):
                stub.DeleteSource(
                    cdc.DeleteSourceRequest(
                        name=f"sources/{name}", server_objects=drop, stream=drop
                    )
                )
        refused = re.findall(r".*iolation.*", server.log.read_text("utf-8"))
        assert refused == []


def _hooks(port: int) -> config.Source:
    return config.Source(
        webhook=config.WebhookSource(
            listen=f"127.0.0.1:{port}",
            verify=config.RequestVerification(bearer=["${TOKEN}"]),
            map=config.RequestMap(
                table=config.RequestTable(name="orders"),
                key=config.RequestKey(fields=config.Names(items=["id"])),
            ),
        )
    )


def _posted(port: int, token: str) -> bool:
    """Whether the webhook source has stored a request."""
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    try:
        status, _, _ = post(port, json.dumps({"id": 1}).encode(), headers)
    except ConnectionRefusedError:
        return False
    return status == 202


def _look(messages: cdc_pb2_grpc.MessageServiceStub) -> None:
    """Read messages in every way."""
    topics = messages.ListStoredTopics(cdc.ListStoredTopicsRequest()).topics
    assert "storedTopics/db.items" in [each.name for each in topics]
    chosen = cdc.MessageFilter(topic="db.items", sink="hook", states=[cdc.DELIVERY_STATE_SENT])
    assert messages.ListMessages(cdc.ListMessagesRequest(filter=chosen)).total_size >= 20
    keyed = cdc.MessageFilter(topic="db.items", source="shop", key='{"id":21}')
    [large] = messages.ListMessages(cdc.ListMessagesRequest(filter=keyed)).messages
    assert len(messages.GetMessage(cdc.GetMessageRequest(name=large.name)).payload) > 1_000_000
    tail = messages.TailMessages(cdc.TailMessagesRequest(last=1))
    assert next(iter(tail)).topic
    tail.cancel()


def _reset(channel: grpc.Channel) -> None:
    """Set the endpoint's sink to the beginning."""
    flows = cdc_pb2_grpc.FlowServiceStub(channel)
    offsets = cdc_pb2_grpc.OffsetServiceStub(channel)
    assert len(offsets.ListSinkOffsets(cdc.ListSinkOffsetsRequest()).offsets) >= 2
    assert len(offsets.ListSourceOffsets(cdc.ListSourceOffsetsRequest()).offsets) == 2
    name = "flows/deliver/hook"
    flows.PauseFlow(cdc.PauseFlowRequest(name=name, request_id=str(uuid4())))
    paused = cdc.Flow.STATE_PAUSED
    wait_for(lambda: flows.GetFlow(cdc.GetFlowRequest(name=name)).state == paused, "pause")
    beginning = config.Start(beginning=True)
    offsets.ResetSinkOffset(cdc.ResetSinkOffsetRequest(sink="hook", to=beginning))
    flows.ResumeFlow(cdc.ResumeFlowRequest(name=name))
