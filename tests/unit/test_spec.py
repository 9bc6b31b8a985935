from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from connectors.errors import ConfigError
from connectors.postgres.spec import SinkSpec, SourceSpec
from dataflows.main import build
from dataflows.spec import Config, load, parse

_GOOD = """
nats: {url: "nats://127.0.0.1:4222"}
sources:
  shop: {type: postgres, dsn: "${SHOP_DSN}", tables: ["public.*"]}
  crm: {type: postgres, dsn: "host=crm"}
topics:
  db.users: {partitions: 4}
sinks:
  warehouse: {type: postgres, dsn: "host=w", topics: ["db.*"]}
  audit: {type: postgres, dsn: "host=a", topics: ["db.users"], from: [crm], accept: ["gap:x@1-2"]}
"""
_ENVIRONMENT = {"SHOP_DSN": "host=shop password=tops3cret"}


def _parse(text: str) -> Config:
    return parse(yaml.safe_load(text), _ENVIRONMENT)


def test_a_whole_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "waxtap.yaml"
    path.write_text(_GOOD)
    config = load(path, _ENVIRONMENT)
    assert config.nats.url == ("nats://127.0.0.1:4222",)
    shop = config.sources["shop"].spec
    assert isinstance(shop, SourceSpec)
    assert shop.dsn == SecretStr("host=shop password=tops3cret")
    assert shop.tables == ("public.*",)
    assert config.topics["db.users"].partitions == 4
    assert config.sinks["warehouse"].sources == ("shop", "crm")
    audit = config.sinks["audit"]
    options = audit.options
    assert (audit.sources, options.accept, options.topics) == (
        ("crm",),
        ("gap:x@1-2",),
        ("db.users",),
    )
    assert isinstance(audit.spec, SinkSpec)
    assert audit.spec.schema_changes == "add"


def test_secrets_do_not_show_in_what_is_read() -> None:
    assert "tops3cret" not in repr(_parse(_GOOD))


@pytest.mark.parametrize(
    ("old", "new", "code", "where"),
    [
        ("nats: {url", "natz: {url", "config.unknown_key", "natz"),
        ("{url: ", "{uri: ", "config.invalid", "nats.uri"),
        ("topics:\n  db", "python_transforms: f\ntopics:\n  db", "config.invalid",
         "python_transforms"),
        ("topics:\n  db", "pipelines: {Users: {}}\ntopics:\n  db", "config.bad_name",
         "pipelines.Users"),
        ("topics:\n  db", "pipelines: {users: {dedupe: }}\ntopics:\n  db", "config.invalid",
         "pipelines.users"),
        ("topics:\n  db", "pipelines: {users: {dedupe: {fields: []}}}\ntopics:\n  db",
         "config.invalid", "pipelines.users.dedupe.fields"),
        ("topics:\n  db", "pipelines: {users: {topik: x}}\ntopics:\n  db", "config.invalid",
         "pipelines.users.topik"),
        ("tables:", "tabels:", "config.invalid", "sources.shop.tabels"),
        ("type: postgres, dsn: \"${SHOP", "type: oracle, dsn: \"${SHOP", "config.unknown_type",
         "sources.shop.type"),
        ("partitions: 4", "partitions: 0", "config.invalid", "topics.db.users.partitions"),
        ("topics: [\"db.*\"]", "topics: []", "config.invalid", "sinks.warehouse.topics"),
        (", topics: [\"db.*\"]", "", "config.invalid", "sinks.warehouse.topics"),
        ("[\"db.*\"]", "[\"db.My Table\"]", "jetstream.topic", "sinks.warehouse.topics"),
        ("[\"db.*\"]", "[\"db.*\"], start: later", "config.invalid", "sinks.warehouse.start"),
        ("[\"db.*\"]", "[\"db.*\"], start: {end: true, sequence: 4}", "config.invalid",
         "sinks.warehouse.start"),
        ("[\"db.*\"]", "[\"db.*\"], start: {time: \"2026-01-31T12:00:00\"}", "config.invalid",
         "sinks.warehouse.start"),
        ("[\"db.*\"]", "[\"db.*\"], batch: {size: 1001}", "config.invalid",
         "sinks.warehouse.batch.size"),
        ("[\"db.*\"]", "[\"db.*\"], batch: {time: 2h}", "config.invalid",
         "sinks.warehouse.batch.time"),
        ("[\"db.*\"]", "[\"db.*\"], on_refusal: ignore", "config.invalid",
         "sinks.warehouse.on_refusal"),
        ("from: [crm]", "from: [crn]", "config.unknown_source", "sinks.audit.from"),
        ("topics:\n  db.users", "topics:\n  db.*", "config.bad_name", "topics.db.*"),
        ("topics:\n  db.users", "topics:\n  dead.x", "config.bad_name", "topics.dead.x"),
        ("  crm: {", "  Crm: {", "config.bad_name", "sources.Crm"),
        ("${SHOP_DSN}", "${SHOP_DSM}", "config.unset_variable", "sources.shop.dsn"),
        ("{type: postgres, dsn: \"host=crm\"}", "[]", "config.not_a_mapping", "sources.crm"),
    ],
)  # fmt: skip
def test_what_may_not_be_is_refused_with_its_place(
    old: str, new: str, code: str, where: str
) -> None:
    assert old in _GOOD
    with pytest.raises(ConfigError) as caught:
        _parse(_GOOD.replace(old, new))
    assert (caught.value.code, caught.value.where) == (code, where)
    assert "tops3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("tables:", "tabels:", "unknown key → known: type, dsn, tables, publication, slot, create"),
        ('topics: ["db.*"]', 'topic: ["db.*"]', "max_rewrite, topics, from, accept, batch"),
        ('["db.*"]', '["db.*"], start: now', "one of beginning, end, {time: …} and {sequence: …}"),
        ('["db.*"]', '["db.*"], transform: [{drop: a}]', "drop.fields: a list is expected here"),
        ('["db.*"]', '["db.*"], transform: [{drop: [a], keep: [b]}]', "one transform an item"),
        (
            '["db.*"]',
            '["db.*"], transform: [{flatten: {field: a, into: {b.c: json, b_c: json}}}]',
            "two paths would be one column",
        ),
        ('["public.*"]', "public.*", "a list is expected here"),
        (', topics: ["db.*"]', "", "the key is missing"),
        ("{partitions: 4}", "4", "a mapping of names is expected here"),
        ('["db.*"]', '["db.My Table"]', "as %XX: `db.My%20Table`"),
    ],
)
def test_what_is_wrong_is_said_in_terms_of_the_file(old: str, new: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _parse(_GOOD.replace(old, new))
    assert text in str(caught.value)


def test_a_file_of_another_name_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("just text")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert caught.value.where == str(path)


@pytest.mark.parametrize("text", ["", "[]", "just text"])
def test_a_document_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _parse(text)
    assert caught.value.code == "config.not_a_mapping"


def test_a_configuration_needs_a_source() -> None:
    with pytest.raises(ConfigError) as caught:
        _parse("nats: {}")
    assert (caught.value.code, caught.value.where) == ("config.missing", "sources")


def _doubling(times: int) -> bytes:
    """Each line holds the one before it twice."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, times))]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: {", "expected"),
        (b"nats: {}\nnats: {}\n", "twice"),
        (b"\xff\xfe", "UTF-8"),
        (b"sources: &a {b: *a}\n", "endless"),
        (b"sources: &a [1, *a]\n", "endless"),
        (_doubling(30), "endless"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "deeply"),
    ],
)
def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "waxtap.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        load(path, {})
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    "value", ["host=h password=s3cret: x", "*s3cret", "!s3cret x", "@s3cret", '"\\s3cret"']
)
def test_what_cannot_be_read_is_not_shown(tmp_path: Path, value: str) -> None:
    path = tmp_path / "waxtap.yaml"
    path.write_text(f"nats:\n  password: {value}\n")
    with pytest.raises(ConfigError, match=r"line 2, column \d+") as caught:
        load(path, {})
    assert "s3cret" not in f"{caught.value}{caught.value.__cause__}"


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="WAXTAP_CONFIG"):
        load(tmp_path / "nothing.yaml", {})


def test_every_flow_or_one_of_them_is_built() -> None:
    config = _parse(_GOOD)
    _, everything = build(config, "")
    assert everything == {
        "waxtap.capture": ["crm", "shop"],
        "waxtap.remember": [],
        "waxtap.publish": ["CDC_crm", "CDC_shop"],
        "waxtap.deliver_warehouse": ["CDC_crm", "CDC_shop"],
        "waxtap.write_warehouse": ["CDC_crm", "CDC_shop"],
        "waxtap.deliver_audit": ["CDC_crm"],
        "waxtap.write_audit": ["CDC_crm"],
    }
    _, one = build(config, "capture/shop")
    assert one == {
        "waxtap.capture": ["shop"],
        "waxtap.remember": [],
        "waxtap.publish": ["CDC_shop"],
    }
    _, sink = build(config, "deliver/audit")
    assert set(sink) == {"waxtap.deliver_audit", "waxtap.write_audit"}


def test_an_unknown_flow_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="deliver/warehouse"):
        build(_parse(_GOOD), "deliver/nobody")


def test_settings_that_only_the_connector_understands_are_checked_before_anything_starts() -> None:
    config = _parse(_GOOD.replace('tables: ["public.*"]', "tables: ['pub\"lic.*']"))
    with pytest.raises(ConfigError) as caught:
        build(config, "capture/shop")
    assert caught.value.where == "sources.shop.tables"
