from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import structlog

from connectors.errors import ConfigError, GapError
from dataflows import reporting
from dataflows.configuration.places import placing

if TYPE_CHECKING:
    from collections.abc import Iterator

_ERROR = GapError("a.code", "it is gone", where='table "t"', cure="""SELECT 'a', "b" FROM t""")


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.excepthook", None)
    yield
    structlog.reset_defaults()


def test_a_cure_can_be_copied_from_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    reporting.configure({})
    reporting.report(_ERROR)
    (line,) = capsys.readouterr().err.splitlines()
    assert """table "t": it is gone → SELECT 'a', "b" FROM t""" in line
    assert "code=a.code" in line
    assert "cure=" not in line


def test_json_lines_keep_every_part_apart(capsys: pytest.CaptureFixture[str]) -> None:
    reporting.configure({"WAXTAP_LOG": "json"})
    reporting.report(_ERROR)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["where"], line["cure"]) == ("it is gone", _ERROR.where, _ERROR.cure)


@pytest.mark.parametrize(
    ("where", "placed"), [("dsn", "sources.shop.dsn"), ("slot waxtap_shop", "slot waxtap_shop")]
)
def test_a_setting_is_named_by_its_whole_path(where: str, placed: str) -> None:
    with pytest.raises(ConfigError) as caught, placing("sources.shop", {"dsn", "slot"}):
        raise ConfigError("a.code", "wrong", where=where)
    assert caught.value.where == placed
