"""How an API divides a list into pages, as the configuration says it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from connectors.rest.expressions import check

Place = Literal["query", "body"]


class _PagingModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LinkSpec(_PagingModel):
    """The header `Link` names the next page (RFC 8288)."""

    type: Literal["link"]
    rel: str = "next"


class NextUrlSpec(_PagingModel):
    """The answer holds the next page's URL."""

    type: Literal["next_url"]
    path: str = Field(description="JMESPath; null or empty on the last page")

    _path = field_validator("path")(check)


class CursorSpec(_PagingModel):
    """The answer holds what the next request sends as a parameter."""

    type: Literal["cursor"]
    path: str = Field(description="JMESPath; null or empty on the last page")
    param: str
    place: Place = "query"
    more: str = Field(
        default="", description="JMESPath: false on the last page, where a cursor never ends"
    )

    _path = field_validator("path", "more")(check)


class PageSpec(_PagingModel):
    """Pages have numbers; the one behind the last is empty."""

    type: Literal["page"]
    param: str = "page"
    start: int = Field(default=1, ge=0)
    size: int = Field(default=0, ge=0, description="sent as `size_param`; 0: the API's own")
    size_param: str = "per_page"
    place: Place = "query"


class OffsetSpec(_PagingModel):
    """A request says how many records to skip; behind the last one the list is empty."""

    type: Literal["offset"]
    param: str = "offset"
    limit: int = Field(default=100, ge=1)
    limit_param: str = "limit"
    place: Place = "query"


PagingSpec = LinkSpec | NextUrlSpec | CursorSpec | PageSpec | OffsetSpec
