"""Who may ask, what, and where the service listens."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from connectors.errors import ConfigError
from control.pb.cdc.v1 import cdc_pb2, config_pb2
from control.server import tokens
from control.server.audit import resource_of
from control.server.callers import Caller, Role
from control.server.listening import Listening, is_loopback
from control.server.options import ServeOptions, nats_spec
from control.server.roles import OPEN, ROLES, changes

TOKEN = "c0ffee" * 10


def test_every_method_has_a_role_and_no_other_has() -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for service in cdc_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    known = {method for method in ROLES if method.startswith("/cdc.v1.")}
    assert known == methods
    assert not OPEN & methods


def test_no_viewer_changes_anything_and_nothing_that_changes_goes_unwritten() -> None:
    for method, role in ROLES.items():
        name = method.rpartition("/")[2]
        reads = name.startswith(("Get", "List", "Watch", "Tail", "Read", "ServerReflection"))
        assert (role is Role.VIEWER) == reads, method
        assert changes(method) == (not reads and name not in ("Plan", "TestConnection")), method
    assert not any(map(changes, OPEN))


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:7443", True),
        ("127.8.0.1:7443", True),
        ("[::1]:7443", True),
        ("localhost:7443", True),
        ("unix:/run/waxtap.sock", True),
        ("0.0.0.0:7443", False),
        ("[::]:7443", False),
        (":7443", False),
        ("10.0.0.5:7443", False),
        ("localhost.evil.example:7443", False),
        ("nonsense", False),
    ],
)
def test_only_loopback_addresses_are_local(address: str, local: bool) -> None:
    assert is_loopback(address) is local


def test_an_open_address_needs_tls_and_callers(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    cases = [
        (Listening("0.0.0.0:1"), "control.open_address"),
        (Listening("0.0.0.0:1", cert=file, key=file), "control.open_address"),
        (Listening("0.0.0.0:1", callers=file), "control.open_address"),
        (Listening("127.0.0.1:1", cert=file), "control.options"),
        (Listening("127.0.0.1:1", client_ca=file, callers=file), "control.options"),
        (Listening("127.0.0.1:1", cert=file, key=file, client_ca=file), "control.options"),
        (Listening("127.0.0.1:1", cert=tmp_path / "none", key=file), "control.unreadable_file"),
    ]
    for listening, code in cases:
        with pytest.raises(ConfigError) as caught:
            listening.credentials()
        assert caught.value.code == code
        assert caught.value.where.startswith("--")
    assert Listening("127.0.0.1:1").credentials() is None


def test_callers_are_known_by_digests_references_and_certificates(tmp_path: Path) -> None:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    path = tmp_path / "callers.yaml"
    path.write_text(
        f"callers:\n"
        f"  - {{name: ann, role: admin, sha256: {digest}}}\n"
        f'  - {{name: ci, role: operator, token: "${{CI}}"}}\n'
        f"  - {{name: console.example.com, role: viewer, certificate: true}}\n"
    )
    callers = tokens.load(path, {"CI": "decafbad" * 4})
    assert callers.of_token(TOKEN) == Caller("ann", Role.ADMIN)
    assert callers.of_token("decafbad" * 4) == Caller("ci", Role.OPERATOR)
    assert callers.of_token("other") is None
    assert callers.of_token("") is None
    console = Caller("console.example.com", Role.VIEWER)
    assert callers.of_certificate(["x", "console.example.com"]) == console
    assert callers.of_certificate(["ann", ""]) is None


@pytest.mark.parametrize(
    "entry",
    [
        '{name: a, role: admin, token: "hunter2hunter2hunter2"}',
        '{name: a, role: admin, token: "${SHORT}"}',
        '{name: a, role: admin, token: "${UNSET}"}',
        "{name: a, role: root, certificate: true}",
        "{name: a, role: admin}",
        "{name: a, role: admin, certificate: true, token: '${LONG}'}",
        "{name: a, role: admin, sha256: 12}",
    ],
)
def test_a_wrong_caller_is_refused_unseen(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "callers.yaml"
    path.write_text(f"callers: [{entry}]\n")
    with pytest.raises(ConfigError) as caught:
        tokens.load(path, {"SHORT": "hunter2", "LONG": "hunter2" * 5})
    assert "hunter2" not in str(caught.value)


def test_an_audited_request_is_named_by_what_it_is_about() -> None:
    named = {
        "sources/shop": cdc_pb2.CreateSourceRequest(source_id="shop"),
        "sinks/w": cdc_pb2.UpdateSinkRequest(sink=config_pb2.Sink(name="sinks/w")),
        "topics/t": cdc_pb2.DeleteTopicRequest(name="topics/t"),
        "revisions/7": cdc_pb2.RollBackRequest(revision=7),
        "sinks/x": cdc_pb2.ResetSinkOffsetRequest(sink="x"),
        "sinks/y": cdc_pb2.ReplayDeadLettersRequest(filter=cdc_pb2.DeadLetterFilter(sink="y")),
        "": cdc_pb2.ApplyRequest(yaml="secret"),
    }
    for name, request in named.items():
        assert resource_of(request) == name


def test_nats_is_found_in_a_file_or_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "waxtap.yaml"
    path.write_text('nats: {url: "nats://a:1", password: "${PW}", user: u}\nsources: {}\n')
    section = ServeOptions(config=path).nats({})
    assert section["password"] == "${PW}"
    assert nats_spec(section, {"PW": "hunter2"}).password.get_secret_value() == "hunter2"
    assert ServeOptions().nats({"WAXTAP_CONFIG": str(path)}) == section
    assert ServeOptions(nats_url="nats://b:2").nats({}) == {"url": "nats://b:2"}
    with pytest.raises(ConfigError) as caught:
        ServeOptions().nats({})
    assert "--embedded" in caught.value.cure
    with pytest.raises(ConfigError):
        nats_spec({"uri": "nats://a:1"}, {})


def test_metrics_are_open_only_on_demand() -> None:
    assert ServeOptions().metrics_address is None
    assert ServeOptions(metrics="127.0.0.1:9400").metrics_address == ("127.0.0.1", 9400)
    with pytest.raises(ConfigError):
        assert ServeOptions(metrics="0.0.0.0:9400").metrics_address
    assert ServeOptions(metrics="0.0.0.0:9400", open_metrics=True).metrics_address
    with pytest.raises(ConfigError):
        assert ServeOptions(metrics="9400").metrics_address
