"""REST sources' settings, and records as one of them reads them."""

from __future__ import annotations

from connectors.rest.expressions import Document
from connectors.rest.records import Item, Records
from connectors.rest.spec import RestSourceSpec

URL = "https://api.example.org/items"


def spec(**options: object) -> RestSourceSpec:
    return RestSourceSpec.model_validate({"type": "rest", "url": URL, "key": ["id"], **options})


def items(body: bytes, **settings: object) -> list[Item]:
    records = Records(spec(**settings))
    return [records.item(record) for record in records.of(Document(body))]


def only(body: bytes, **settings: object) -> Item:
    (item,) = items(body, **settings)
    return item
