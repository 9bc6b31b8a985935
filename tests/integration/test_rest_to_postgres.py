"""What an API tells, through pipelines and into PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from connectors.contracts.source import Checkpoint, Chunk
from dataflows.pipeline import Captured, pipelines_of
from dataflows.spec import parse
from tests.integration.postgres_rows import deliver, delivered, query, sink
from tests.integration.rest_api import ListApi, Polled

if TYPE_CHECKING:
    from connectors.jetstream.stream import StreamClaim
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers


def test_columns_have_fitting_types_and_follow_the_records(database: Database) -> None:
    api = ListApi()
    polled = Polled(
        api, table="items", columns={"at": "timestamp", "ref": "uuid", "sum": "decimal"}
    )
    ref = "6f1c9f0e-6d43-4f3a-9d3c-0a1b2c3d4e5f"
    with closing(polled):
        api.put(1, n=9_007_199_254_740_993, price=0.1, ok=True, name="ü", tags=["a", {"b": None}])
        api.put(
            2, at="2026-01-01T12:00:00+02:00", ref=ref, sum="12345678901234567890.10", name=None
        )
        with polled.reading() as reader:
            polled.next(reader, 2)
            api.put(2, late="x", tags="text")
            del api.rows[1]
            api.put(3, n=5)
            polled.next(reader, 3)
    changes = delivered(polled.changes)
    deliver(sink(database.dsn), changes[:2], changes[2:])
    types = query(
        database,
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attnum > 0 AND"
        " attrelid = 'public.items'::regclass ORDER BY attname",
    )
    assert types == [
        ("at", "timestamp with time zone"),
        ("id", "bigint"),
        ("late", "text"),
        ("n", "bigint"),
        ("name", "text"),
        ("ok", "boolean"),
        ("price", "numeric"),
        ("ref", "uuid"),
        ("sum", "numeric"),
        ("tags", "jsonb"),
    ]
    rows = query(
        database,
        "SELECT id, n, at = '2026-01-01T10:00Z', sum::text, late, tags FROM items ORDER BY id",
    )
    assert rows == [
        (2, None, True, "12345678901234567890.10", "x", "text"),
        (3, 5, None, None, None, None),
    ]


def test_filters_and_transforms_work_on_records_as_on_rows() -> None:
    api = ListApi()
    polled = Polled(api, table="users")
    with closing(polled):
        api.put(1, country="DE", email="a@example.org", password="p")
        api.put(2, country=None, email="b@example.org", password="p")
        api.put(3, country="DE", email="c@example.org", password="p")
        with polled.reading() as reader:
            polled.next(reader, 3)
            del api.rows[3]
            polled.next(reader, 1)
    config = parse(
        {
            "nats": {},
            "sources": {"crm": {"type": "rest", "url": "https://api.example.org", "key": ["id"]}},
            "pipelines": {
                "users": {
                    "tables": ["public.users"],
                    "filter": "op == 'd' || after.country == 'DE'",
                    "transform": [
                        {"mask": {"fields": ["email"], "with": "sha256", "salt": "s" * 32}},
                        {"drop": {"fields": ["password"]}},
                        {"cast": {"fields": {"id": "string"}}},
                    ],
                    "topic": "users",
                }
            },
        },
        {},
    )
    chunk = Chunk("crm", polled.changes, Checkpoint("1", {}), {})
    claim = cast("StreamClaim", object())
    messages = pipelines_of(config, "crm").apply(Captured(claim, chunk)).messages
    assert [(change.op, change.key) for _, change in messages] == [
        ("c", '{"id":"1"}'),
        ("c", '{"id":"3"}'),
        ("d", '{"id":"3"}'),
    ]
    after = msgspec.json.decode(messages[0][1].envelope)["after"]
    assert set(after) == {"id", "country", "email"}
    assert after["email"] != "a@example.org"
    assert {subject for subject, _ in messages} == {"CDC.crm.users.0"}
