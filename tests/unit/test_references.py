from __future__ import annotations

from pathlib import Path

import pytest

from connectors.errors import ConfigError
from dataflows.configuration.references import resolve


def test_variables_defaults_and_literals_are_replaced_anywhere() -> None:
    tree = {"a": ["${HOST}:${PORT:-5432}", 7], "b": {"c": "$${HOST}", "d": "${EMPTY:-}"}}
    assert resolve(tree, {"HOST": "db"}) == {"a": ["db:5432", 7], "b": {"c": "${HOST}", "d": ""}}


def test_a_set_variable_wins_over_its_default_and_is_not_resolved_again() -> None:
    assert resolve("${A:-b}", {"A": "${B}", "B": "no"}) == "${B}"


def test_a_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    secret = tmp_path / "dsn"
    secret.write_text("host=db password=s3 cret\n")
    assert resolve(f"${{file:{secret}}}", {}) == "host=db password=s3 cret"


def test_an_unset_variable_names_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"sources": {"shop": {"tables": ["x", "${NOPE}"]}}}, {})
    assert caught.value.code == "config.unset_variable"
    assert caught.value.where == "sources.shop.tables[1]"
    assert "NOPE" in caught.value.message


@pytest.mark.parametrize("text", ["${", "${}", "a ${b c}", "${1A}", "${A"])
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"x": text}, {"A": "1"})
    assert caught.value.code == "config.bad_reference"
    assert caught.value.where == "x"


def test_what_follows_a_malformed_reference_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve("postgresql://app:pa${s3cret@host/shop", {})
    assert "s3cret" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing-here"):
        resolve(f"${{file:{tmp_path}/nothing-here}}", {})
