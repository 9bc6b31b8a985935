"""The REST source against a real HTTP server: which missing records are deleted ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from connectors.errors import GapError
from connectors.rest.names import parse
from tests.integration.rest_api import ListApi, Polled, ok, polls
from tests.servers.receiver import Reply, Request

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.servers


def test_a_poll_that_stays_short_deletes_nothing(api: ListApi, polled: Polled) -> None:
    api.size = 10
    api.put(*range(30))
    with polled.reading() as reader:
        polled.next(reader, 30)

        def second_page_fails(request: Request) -> Reply | None:
            return Reply(404) if "page=2" in request.target else None

        api.before = second_page_fails
        assert polled.until(reader, polls(api, 6)) == []
        api.before = lambda _request: None
        api.put(5, name="later")
        assert polled.next(reader, 1) == [("u", 5)]


def test_too_many_deletions_stop_the_source_until_they_are_confirmed(
    api: ListApi, polled: Polled
) -> None:
    api.put(*range(100))
    with polled.reading() as reader:
        polled.next(reader, 100)
        for number in range(40, 100):
            del api.rows[number]
        with pytest.raises(GapError) as caught:
            polled.next(reader, 1)
    assert caught.value.code == "rest.too_many_deletions"
    assert "60 of 100" in caught.value.message
    stored = dict(polled.state.files)
    with pytest.raises(GapError):
        polled.source().open(polled.checkpoint)
    assert {name for name in polled.state.files if parse(name)} <= set(stored)
    polled.accept = [f"deletions:{polled.name}@1-60"]
    with polled.reading() as reader:
        assert polled.next(reader, 60) == [("d", number) for number in range(40, 100)]
        # another loss is another token
        for number in range(39):
            del api.rows[number]
        with pytest.raises(GapError):
            polled.next(reader, 1)


def test_an_empty_list_is_guarded_however_short_it_was(api: ListApi, polled: Polled) -> None:
    api.put(1, 2, 3)
    with polled.reading() as reader:
        polled.next(reader, 3)
        del api.rows[1]
        assert polled.next(reader, 1) == [("d", 1)]
        api.rows.clear()
        with pytest.raises(GapError):
            polled.next(reader, 1)


@pytest.mark.parametrize(
    ("settings", "gone"), [({"max_deletions": "10%"}, 2), ({"max_deletions": "0%"}, 1), ({}, 6)]
)
def test_few_deletions_are_too_many_where_few_are_allowed(
    api: ListApi, polled: Polled, settings: dict[str, object], gone: int
) -> None:
    api.put(*range(10))
    polled.settings = settings
    with polled.reading() as reader:
        polled.next(reader, 10)
        for number in range(gone - 1):
            del api.rows[number]
        assert polled.next(reader, gone - 1) == [("d", number) for number in range(gone - 1)]
    api.put(*range(10))
    with polled.reading() as reader:
        polled.until(reader, lambda: len(polled.changes) >= 10 + 2 * (gone - 1))
        for number in range(gone):
            del api.rows[number]
        with pytest.raises(GapError) as caught:
            polled.next(reader, 1)
    assert caught.value.code == "rest.too_many_deletions"


def test_one_short_answer_deletes_nothing(api: ListApi, polled: Polled) -> None:
    api.put(*range(4))
    with polled.reading() as reader:
        polled.next(reader, 4)
        api.faults += [ok([{"id": 0}, {"id": 1}, {"id": 2}])]
        assert polled.until(reader, polls(api, 4)) == []


def test_a_skipped_record_is_never_taken_for_a_deleted_one(api: ListApi, polled: Polled) -> None:
    api.put(1, 2, 3)
    polled.settings = {"on_bad_record": "skip"}
    with polled.reading() as reader:
        polled.next(reader, 3)
        api.rows[2] = {"name": "without key"}
        api.put(3, name="x")
        assert polled.next(reader, 1) == [("u", 3)]
        assert polled.until(reader, polls(api, 4)) == []
        del api.rows[2]
        assert polled.next(reader, 1) == [("d", 2)]
