"""The configurations that README, examples and demo show are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dataflows.routing import partition
from dataflows.spec import load, parse

_ROOT = Path(__file__).parents[2]
_ENVIRONMENT = {
    "SHOP_DSN": "dbname=shop",
    "WAREHOUSE_DSN": "dbname=warehouse",
    "HOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "SALT": "pepper",
    "SEARCH_KEY": "a2V5",
}


def test_the_example_is_valid() -> None:
    config = load(_ROOT / "examples" / "waxtap.yaml", _ENVIRONMENT)
    assert list(config.sources) == ["shop"]
    assert list(config.sinks) == ["warehouse"]
    assert config.topics["db.orders"].partitions == 2


def test_the_example_of_a_webhook_is_valid() -> None:
    config = load(_ROOT / "examples" / "webhook.yaml", _ENVIRONMENT)
    assert config.sinks["hook"].type == "webhook"


def test_the_example_of_pipelines_is_valid() -> None:
    config = load(_ROOT / "examples" / "pipelines.yaml", _ENVIRONMENT | {"SALT": "pepper"})
    assert list(config.pipelines) == ["users", "rows", "events"]
    assert config.sinks["warehouse"].options.filter


def test_the_documented_partitions_are_those_that_are_used() -> None:
    text = (_ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\{.*\})` \| 0x([0-9A-F]{8}) \| (\d) \| (\d) \|$", text, re.MULTILINE)
    assert len(rows) == 2
    for key, whole, of_four, of_eight in rows:
        assert partition(key, 1 << 32) == int(whole, 16)
        assert (partition(key, 4), partition(key, 8)) == (int(of_four), int(of_eight))


def test_the_pipelines_of_the_document_are_valid() -> None:
    text = (_ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    first, *_ = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    source = {"type": "postgres", "dsn": "host=nowhere"}
    tree = {"nats": {}, "sources": {"shop": source}, **yaml.safe_load(first)}
    assert parse(tree, {"SALT": "pepper"}).pipelines["users"].key == ("id",)


def test_the_example_of_mysql_is_valid() -> None:
    config = load(_ROOT / "examples" / "mysql.yaml", _ENVIRONMENT)
    assert config.sources["shop"].type == "mysql"


def test_the_example_of_rest_is_valid() -> None:
    config = load(_ROOT / "examples" / "rest.yaml", {**_ENVIRONMENT, "CRM_SECRET": "s"})
    assert config.sources["crm"].type == "rest"


def test_the_examples_of_a_webhook_source_are_valid() -> None:
    config = load(_ROOT / "examples" / "webhook-source.yaml", _ENVIRONMENT)
    assert config.sources["billing"].type == "webhook"
    text = (_ROOT / "docs" / "webhook-source.md").read_text(encoding="utf-8")
    first, *_ = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    tree = {"nats": {}, **yaml.safe_load(first)}
    assert parse(tree, {"STRIPE_SECRET": "whsec_x"}).sources["billing"].type == "webhook"


@pytest.mark.parametrize("document", ["README.md"])
def test_the_documents_examples_are_valid(document: str, tmp_path: Path) -> None:
    text = (_ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```yaml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    whole: dict[str, dict[str, object]] = {}
    for indent, block in blocks:  # a later one adds to what an earlier one shows
        shown = yaml.safe_load(re.sub(f"^{indent}", "", block, flags=re.MULTILINE))
        for section, entries in shown.items():
            whole.setdefault(section, {}).update(entries)
        path = tmp_path / "waxtap.yaml"
        path.write_text(yaml.safe_dump(whole), encoding="utf-8")
        assert load(path, _ENVIRONMENT).sources


def test_every_link_of_the_readme_leads_somewhere() -> None:
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (_ROOT / link.partition("#")[0]).exists()] == []


def test_every_make_target_that_the_documents_name_exists() -> None:
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    for document in ("README.md", "CHANGELOG.md"):
        text = (_ROOT / document).read_text(encoding="utf-8")
        named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", text))
        assert named
        assert named <= targets
