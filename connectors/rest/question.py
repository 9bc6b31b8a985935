"""What an API is asked, in a word: another question has another answer. Free of I/O."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from connectors.rest.spec import RestSourceSpec

_encode = msgspec.json.Encoder(order="sorted").encode


def question(spec: RestSourceSpec) -> str:
    """A digest of all that decides which records come, and what is made of them.

    Credentials in `auth` and `tls` are not part of it: they are renewed for the same list.

    Returns:
        BLAKE2b-128 in hexadecimal digits; it shows nothing of its secrets.
    """
    asked = {
        "url": spec.url.get_secret_value(),
        "method": spec.method,
        "query": {name: value.get_secret_value() for name, value in spec.query.items()},
        "headers": {name.lower(): value.get_secret_value() for name, value in spec.headers.items()},
        "body": spec.body,
        "records": spec.records,
        "key": spec.key,
        "pagination": spec.pagination.model_dump(),
        "on_bad_record": spec.on_bad_record,
        "cursor": (spec.cursor.field, spec.cursor.type) if spec.cursor else None,
    }
    return blake2b(_encode(asked), digest_size=16).hexdigest()
