"""Pagination of REST sources, without any I/O."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from pydantic import TypeAdapter

from connectors.errors import ConfigError
from connectors.rest.expressions import Document
from connectors.rest.pages import Page, Pages, Request, linked, same_origin
from connectors.rest.paging_spec import PagingSpec
from connectors.rest.schedule import Schedule, delay
from connectors.rest.spec import RestSourceSpec

URL = "https://api.example.org/v1/items"
SPECS: TypeAdapter[PagingSpec] = TypeAdapter(PagingSpec)


def pages(most: int = 100, **settings: object) -> Pages:
    return Pages(SPECS.validate_python(settings), Request(URL, {"state": "all"}), most)


def page(body: object, records: int = 2, url: str = URL, **headers: str) -> Page:
    return Page(url, headers, Document(msgspec.json.encode(body)), records)


def code(pages: Pages, answer: Page) -> str:
    with pytest.raises(ConfigError) as caught:
        pages.next(answer)
    assert caught.value.cure
    return caught.value.code


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://a/2>; rel="next"', "https://a/2"),
        ('<https://a/1>; rel="prev", <https://a/2,3>; rel="next"', "https://a/2,3"),
        ("<?page=2>; rel=next", "?page=2"),
        ('<x>; title="a, b; rel=next"; rel="last next"', "x"),
        ('<x> ; REL="NEXT"', "x"),
        ('<x>; rel="last"', ""),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_the_header_link_is_read_as_it_may_be_written(header: str, target: str) -> None:
    assert linked(header, "next") == target


@pytest.mark.parametrize(
    "target",
    [
        "https://api.example.org:99999/2",
        "http://[x/",
        "https://api.example.org:port/",
        "/a\x01b",
        "/a b",
        "/" + "x" * 70_000,
    ],
)
def test_a_next_page_that_is_no_url_is_told(target: str) -> None:
    assert code(pages(type="next_url", path="next"), page({"next": target})) == "rest.pagination"
    assert code(pages(type="link"), page([], link=f'<{target}>; rel="next"')) == "rest.pagination"


def test_a_link_is_followed_to_its_end() -> None:
    all_ = pages(type="link")
    assert all_.first().query == {"state": "all"}
    second = all_.next(page([], link='<?page=2>; rel="next"'))
    assert second == Request(f"{URL}?page=2", {})
    assert all_.next(page([], url=f"{URL}?page=2")) is None


def test_an_url_in_the_answer_is_followed() -> None:
    all_ = pages(type="next_url", path="meta.next")
    all_.first()
    assert all_.next(page({"meta": {"next": "/v1/items?after=9"}})) == Request(f"{URL}?after=9", {})
    assert all_.next(page({"meta": {"next": None}})) is None
    assert all_.next(page({"meta": {}})) is None


def test_credentials_go_to_no_other_host() -> None:
    for other in ("https://evil.example.org/", "http://api.example.org/v1", "//api.example.org:8/"):
        assert code(pages(type="next_url", path="n"), page({"n": other})) == "rest.foreign_page"
    assert same_origin("https://A.example.org/x", "https://a.example.org:443/y")
    assert not same_origin("https://a:notaport/", "https://a/")


def test_a_cursor_is_sent_back() -> None:
    all_ = pages(type="cursor", path="next", param="after", more="has_more")
    all_.first()
    assert all_.next(page({"next": "x", "has_more": True})) == Request(
        URL, {"state": "all", "after": "x"}
    )
    assert all_.next(page({"next": 12, "has_more": True})) == Request(
        URL, {"state": "all", "after": "12"}
    )
    assert all_.next(page({"next": "y", "has_more": False})) is None
    inside = Pages(
        SPECS.validate_python({"type": "cursor", "path": "n", "param": "c", "place": "body"}),
        Request(URL, {}, {"size": 5}),
        9,
    )
    assert inside.next(page({"n": "z"})) == Request(URL, {}, {"size": 5, "c": "z"})
    assert code(pages(type="cursor", path="n", param="c"), page({"n": [1]})) == "rest.pagination"


def test_numbered_pages_end_with_an_empty_one() -> None:
    all_ = pages(type="page", size=50)
    assert all_.first().query == {"state": "all", "page": "1", "per_page": "50"}
    second = all_.next(page([1, 2]))
    assert second is not None
    assert second.query["page"] == "2"
    assert all_.next(page([], records=0)) is None


def test_an_offset_skips_what_has_come_not_what_was_asked_for() -> None:
    all_ = pages(type="offset", limit=1000)
    assert all_.first().query == {"state": "all", "offset": "0", "limit": "1000"}
    second = all_.next(page([1], records=100))
    assert second is not None
    assert second.query["offset"] == "100"


def test_a_list_that_goes_in_a_circle_is_an_error() -> None:
    links = pages(type="link")
    links.first()
    assert links.next(page([], link='<?page=2>; rel="next"')) is not None
    assert code(links, page([], link='<?page=2>; rel="next"')) == "rest.loop"
    cursors = pages(type="cursor", path="n", param="c")
    assert cursors.next(page({"n": "a"})) is not None
    assert cursors.next(page({"n": "b"})) is not None
    assert code(cursors, page({"n": "a"})) == "rest.loop"
    numbers = pages(type="page")
    assert numbers.next(page([{"id": 1}])) is not None
    assert code(numbers, page([{"id": 1}])) == "rest.loop"


def test_a_list_without_end_is_an_error() -> None:
    endless = pages(most=3, type="page")
    assert endless.next(page([1])) is not None
    assert endless.next(page([2])) is not None
    assert code(endless, page([3])) == "rest.too_many_pages"


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_server_is_obeyed_but_not_for_ever() -> None:
    assert delay(1, 30.0) == 30.0
    assert delay(1, 10**9) == 3600.0
    assert 0.1 <= delay(1) <= 0.2
    assert 30.0 <= delay(30) <= 60.0


def test_polls_are_due_by_interval_or_by_cron() -> None:
    def schedule(**settings: object) -> Schedule:
        return Schedule(
            RestSourceSpec.model_validate({"type": "rest", "url": URL, "key": ["id"], **settings})
        )

    every = schedule(interval="10s")
    assert every.at_start
    assert every.wait(NOW, NOW + timedelta(seconds=4)) == 6.0
    assert every.wait(NOW, NOW + timedelta(seconds=40)) == 0.0
    nightly = schedule(cron="0 4 * * *")
    assert not nightly.at_start
    assert nightly.wait(NOW, NOW) == 3355.0
    late = [schedule(interval="10s", jitter="5s").wait(NOW, NOW) for _ in range(50)]
    assert all(10.0 <= wait <= 15.0 for wait in late)
    assert len(set(late)) > 1
