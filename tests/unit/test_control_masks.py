"""Update masks where a message holds one of several things."""

from __future__ import annotations

import pytest

from connectors.errors import ConfigError
from control.pb.cdc.v1.config_pb2 import (
    BasicAuth,
    BearerAuth,
    MysqlSource,
    PostgresSource,
    RestAuth,
    RestSource,
    Sink,
    Source,
    Start,
)
from control.specs.masks import merge

POSTGRES = Source(postgres=PostgresSource(dsn="${A}", slot="s"))
MYSQL = Source(mysql=MysqlSource(dsn="${B}"))
BASIC = Source(rest=RestSource(auth=RestAuth(basic=BasicAuth(user="u", password="${A}"))))
BEARER = Source(rest=RestSource(auth=RestAuth(bearer=BearerAuth(token="${B}"))))
FIRST = Sink(start=Start(beginning=True))
LAST = Sink(start=Start(end=True))


@pytest.mark.parametrize(
    ("stored", "given", "mask"),
    [
        (POSTGRES, MYSQL, []),
        (POSTGRES, MYSQL, ["*"]),
        (POSTGRES, MYSQL, ["mysql"]),
        (POSTGRES, MYSQL, ["postgres", "mysql"]),
        (POSTGRES, MYSQL, ["mysql", "postgres"]),
        (BASIC, BEARER, ["rest.auth"]),
        (BASIC, BEARER, ["rest.auth.bearer"]),
        (BASIC, BEARER, ["rest.auth.basic", "rest.auth.bearer"]),
        (FIRST, LAST, ["start"]),
        (FIRST, LAST, ["start.end"]),
    ],
)
def test_what_the_request_has_takes_the_place_of_the_other(
    stored: Source | Sink, given: Source | Sink, mask: list[str]
) -> None:
    merged = type(stored).FromString(stored.SerializeToString())
    merge(merged, given, mask)
    assert merged == given


@pytest.mark.parametrize(
    ("stored", "given", "mask", "told"),
    [
        (POSTGRES, MYSQL, ["postgres.slot"], "the request has mysql in place of postgres"),
        (POSTGRES, MYSQL, ["postgres"], "the request has mysql in place of postgres"),
        (POSTGRES, MYSQL, ["mysql", "postgres.slot"], "the request has mysql in place of postgres"),
        (POSTGRES, MYSQL, ["postgres.slot", "mysql"], "the request has mysql in place of postgres"),
        (POSTGRES, MYSQL, ["mysql.dsn"], "it is no mysql"),
        (BASIC, BEARER, ["rest.auth.basic.user"], "the request has rest.auth.bearer in place of"),
        (BASIC, BEARER, ["rest.auth.bearer.token"], "it is no bearer"),
        (FIRST, LAST, ["start.beginning"], "the request has start.end in place of start.beginning"),
        (FIRST, LAST, ["start.sequence"], "the request has start.end in place of start.sequence"),
    ],
)
def test_a_path_to_what_the_request_does_not_have_is_refused(
    stored: Source | Sink, given: Source | Sink, mask: list[str], told: str
) -> None:
    merged = type(stored).FromString(stored.SerializeToString())
    with pytest.raises(ConfigError, match=told) as caught:
        merge(merged, given, mask)
    assert caught.value.where == "update_mask"
    assert merged == stored
