from __future__ import annotations

import pickle

import pytest

from connectors.errors import ConfigError, FatalError, GapError, RetryableError, WaxtapError


def test_an_error_says_what_where_and_how_to_cure_it() -> None:
    error = GapError("jetstream.gap", "messages are gone", where="CDC_shop", cure="accept it")
    assert str(error) == "[jetstream.gap] CDC_shop: messages are gone → accept it"
    assert str(RetryableError("a.b", "later")) == "[a.b] later"


@pytest.mark.parametrize("kind", [ConfigError, GapError, FatalError, RetryableError])
def test_an_error_survives_the_way_between_processes(kind: type[WaxtapError]) -> None:
    error = kind("a.b", "message", where="there", cure="this")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is kind
    assert str(again) == str(error)
