"""Each flow gets what concerns it, and is restarted only for that."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from connectors.errors import ConfigError
from control.supervisor.rendering import render
from dataflows.main import build
from dataflows.spec import parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Edit = Callable[[dict[str, Any]], object]

_TREE: dict[str, Any] = {
    "sources": {
        "shop": {"type": "postgres", "dsn": "${SHOP_DSN}", "tables": ["public.*"]},
        "crm": {"type": "mysql", "dsn": "${CRM_DSN}", "workers": 2},
    },
    "topics": {"db.users": {"partitions": 4}, "crm.all": {"partitions": 2}, "tables.x.t": {}},
    "pipelines": {
        "users": {"from": ["shop"], "tables": ["public.users"], "filter": "op != 'd'"},
        "both": {"from": ["shop", "crm"], "topic": "tables.{schema}.{table}"},
        "crm": {
            "from": ["crm"],
            "topic": "crm.all",
            "transform": [{"python": {"function": "m:f"}}],
        },
    },
    "python_transforms": ["m:*"],
    "sinks": {
        "warehouse": {"type": "postgres", "dsn": "${WAREHOUSE_DSN}", "topics": ["db.*"]},
        "hook": {
            "type": "webhook",
            "url": "https://h.example",
            "topics": ["crm.*"],
            "from": ["crm"],
            "processes": 2,
        },
    },
    "dead_letters": {"max_age": "30d"},
}
_CRM = {"from": ["crm"], "topic": "crm.all", "transform": [{"python": {"function": "m:f"}}]}
_TREE["pipelines"]["crm"] = _CRM
_ALL = {"capture/shop", "capture/crm", "deliver/warehouse", "deliver/hook"}


def _changed(edit: Edit) -> set[str]:
    """The flows whose fingerprint an edit changes."""
    tree = copy.deepcopy(_TREE)
    edit(tree)
    before, after = render(_TREE), render(tree)
    return {
        name
        for name in before.keys() | after.keys()
        if name not in before
        or name not in after
        or before[name].fingerprint != after[name].fingerprint
    }


@pytest.mark.parametrize(
    ("edit", "restarted"),
    [
        (lambda t: t["pipelines"]["users"].update(filter="true"), {"capture/shop"}),
        (lambda t: t["pipelines"]["crm"].update(filter="true"), {"capture/crm"}),
        (lambda t: t["pipelines"]["both"].update(filter="true"), {"capture/shop", "capture/crm"}),
        (lambda t: t["sources"]["shop"].update(dsn="${OTHER}"), {"capture/shop"}),
        (lambda t: t["sources"]["crm"].update(workers=3), {"capture/crm"}),
        (lambda t: t["sinks"]["hook"].update(filter="op != 'd'"), {"deliver/hook"}),
        (lambda t: t["topics"]["db.users"].update(partitions=8), {"capture/shop"}),
        (lambda t: t["topics"]["crm.all"].update(partitions=8), {"capture/crm"}),
        (lambda t: t["topics"].update({"db.orders": {"partitions": 3}}), set()),
        (
            lambda t: t["topics"].update({"tables.a.b": {"partitions": 3}}),
            {"capture/shop", "capture/crm"},
        ),
        (lambda t: t["topics"].update({"messages": {}}), {"capture/shop", "capture/crm"}),
        (lambda t: t["topics"].update({"elsewhere": {"partitions": 3}}), set()),
        (lambda t: t.update(python_transforms=["m:f"]), {"capture/crm"}),
        (
            lambda t: t.update(dead_letters={"max_age": "10d"}),
            {"deliver/warehouse", "deliver/hook"},
        ),
        (
            lambda t: t["sources"].update(new={"type": "postgres", "dsn": "${NEW}"}),
            {"capture/new", "deliver/warehouse"},
        ),
        (lambda t: t["sinks"].pop("hook"), {"deliver/hook"}),
        (
            lambda t: t.update(pipelines=dict(reversed(t["pipelines"].items()))),
            {"capture/shop", "capture/crm"},
        ),
        (lambda t: t.update(sinks=dict(reversed(t["sinks"].items()))), set()),
    ],
)  # fmt: skip
def test_only_what_a_change_concerns_is_restarted(edit: Edit, restarted: set[str]) -> None:
    assert _changed(edit) == restarted


@pytest.mark.parametrize(
    ("tables", "restarted"),
    [
        (["public.*"], True),
        (["public.Ord*"], True),
        (["*.*"], True),
        (["inventory.*", "public.users"], False),
        (["`odd`.`t`"], True),  # not understood
        ("${TABLES}", True),
    ],
)
def test_without_pipelines_the_tables_of_a_source_tell_its_topics(
    tables: object, *, restarted: bool
) -> None:
    tree: dict[str, object] = {"sources": {"s": {"type": "postgres", "dsn": "d", "tables": tables}}}
    with_topic = {**tree, "topics": {"db.orders": {"partitions": 2}}}
    before, after = render(tree)["capture/s"], render(with_topic)["capture/s"]
    assert (before.fingerprint != after.fingerprint) is restarted


def test_a_flow_is_built_from_its_rendering_with_only_its_own_secrets() -> None:
    secrets = {
        "capture/shop": {"SHOP_DSN": "host=h dbname=d"},
        "deliver/warehouse": {"WAREHOUSE_DSN": "host=h dbname=d"},
        "deliver/hook": {},
    }
    flows = render(_TREE)
    assert flows.keys() == _ALL
    for name, environment in secrets.items():
        config = parse({"nats": {}, **flows[name].tree}, environment, "waxtap.yaml", name)
        build(config, name)
        with pytest.raises(ConfigError):
            parse({"nats": {}, **flows[name].tree}, environment, "waxtap.yaml", "capture/no")


def test_a_delivery_reads_the_streams_it_would_read_of_the_whole() -> None:
    flows = render(_TREE)
    whole = parse(
        {"nats": {}, **_TREE},
        {"SHOP_DSN": "host=h", "CRM_DSN": "mysql://h", "WAREHOUSE_DSN": "host=h"},
    )
    for sink in ("warehouse", "hook"):
        flow = f"deliver/{sink}"
        alone = parse({"nats": {}, **flows[flow].tree}, {"WAREHOUSE_DSN": "host=h"}, "f", flow)
        assert alone.sinks[sink].sources == whole.sinks[sink].sources
        assert alone.sources == {}
    # A dead letter of `hook` is replayed by the pipelines of what it reads.
    hook = parse({"nats": {}, **flows["deliver/hook"].tree}, {}, "f", "deliver/hook")
    assert list(hook.pipelines) == ["both", "crm"]
    assert hook.python_transforms == ("m:*",)


def test_references_stay_unresolved_and_the_number_of_processes_is_no_setting() -> None:
    flows = render(_TREE)
    assert flows["capture/shop"].tree["sources"] == {"shop": _TREE["sources"]["shop"]}
    assert (flows["capture/crm"].workers, flows["capture/crm"].processes) == (2, 1)
    assert (flows["deliver/hook"].workers, flows["deliver/hook"].processes) == (1, 2)
    assert "processes" not in str(flows["deliver/hook"].tree)


def test_what_is_no_configuration_renders_all_the_same() -> None:
    assert render({}) == {}
    assert render({"sources": None, "sinks": {"a": "nonsense"}})["deliver/a"].type == ""
