"""The official client as the sink uses it, and what its errors mean."""

from __future__ import annotations

import json
import logging
import ssl
from typing import TYPE_CHECKING, Any

from elastic_transport import (
    ConnectionError as UnreachableError,
)
from elastic_transport import (
    ConnectionTimeout,
    JsonSerializer,
    SerializationError,
    TlsError,
    TransportError,
)
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError

from connectors.errors import ConfigError, RetryableError
from connectors.tls import client_context

if TYPE_CHECKING:
    from connectors.elasticsearch.spec import SinkSpec
    from connectors.errors import WaxtapError

# What a request may raise. The client itself tries nothing twice.
FAILURES = (ApiError, UnreachableError, ConnectionTimeout, SerializationError)
# Our own requests beside the bulks under way.
_FURTHER_CONNECTIONS = 2

# It warns of every request that fails; the sink tells once that its target is in trouble.
logging.getLogger("elastic_transport").setLevel(logging.ERROR)


class Answer(dict[str, Any]):
    """An answer's JSON object.

    Attributes:
        raw: Its bytes, for values that decoding would change.
    """

    raw: bytes


class _Serializer(JsonSerializer):
    """Keeps the bytes beside what they say."""

    def json_loads(self, data: bytes) -> object:
        found = json.loads(data)
        if not isinstance(found, dict):
            return found
        answer = Answer(found)
        answer.raw = data
        return answer


def _trusting(ca: str) -> ssl.SSLContext:
    # Given the path, the client would look at it with its first request only.
    try:
        return client_context(ca)
    except OSError as error:
        raise ConfigError(
            "elasticsearch.ca",
            f"the certificates cannot be read: {error}",
            where="ca",
            cure="a file in PEM format that this user may read",
        ) from None


def connect(spec: SinkSpec) -> Elasticsearch:
    """A client for the target; it connects with its first request, and may be used by threads."""
    options: dict[str, Any] = {}
    if key := spec.api_key.get_secret_value():
        options["api_key"] = key
    elif spec.user:
        options["basic_auth"] = (spec.user, spec.password.get_secret_value())
    if spec.ca:
        options["ssl_context"] = _trusting(spec.ca)
    try:
        return Elasticsearch(
            list(spec.url),
            http_compress=spec.compress,
            connections_per_node=spec.parallelism + _FURTHER_CONNECTIONS,
            request_timeout=spec.timeout.total_seconds(),
            max_retries=0,
            retry_on_timeout=False,
            serializer=_Serializer(),
            **options,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            "elasticsearch.client", f"the client cannot be made: {error}", where=spec.url[0]
        ) from None


def ask(
    client: Elasticsearch,
    method: str,
    path: str,
    body: object = None,
    *,
    kind: str = "application/json",
) -> Answer:
    """Send one request. Raises one of `FAILURES`."""
    headers = {"accept": "application/json"}
    if body is not None:
        headers["content-type"] = kind
    answer = client.perform_request(method, path, headers=headers, body=body).body
    return answer if isinstance(answer, Answer) else Answer()


def reason(error: Exception) -> str:
    """What went wrong, on one line, without credentials."""
    if isinstance(error, ApiError):
        found = error.body.get("error") if isinstance(error.body, dict) else None
        told = found.get("reason") if isinstance(found, dict) else found
        return f"{told or error.message} (HTTP {error.status_code})"
    # The text of the error itself leaves out what urllib3 says.
    told = error.message if isinstance(error, TransportError) else error
    return " ".join(f"{type(error).__name__}: {told}".split())


def kind_of(error: ApiError) -> str:
    """The type that an answer gives to its error; empty without one."""
    found = error.body.get("error") if isinstance(error.body, dict) else None
    kind = found.get("type") if isinstance(found, dict) else None
    return kind if isinstance(kind, str) else ""


def at_start(error: Exception, sink: str) -> WaxtapError:
    """What a failure of the first requests means: setup that must change, or try again later."""
    where = f"sink {sink}"
    if isinstance(error, TlsError) and "CERTIFICATE_VERIFY_FAILED" in str(error.message):
        return ConfigError(
            "elasticsearch.certificate",
            f"the server's certificate is not trusted: {reason(error)}",
            where=where,
            cure="name its authority's certificate in `ca`",
        )
    if isinstance(error, UnsupportedProductError):
        return ConfigError(
            "elasticsearch.product",
            "what answers there is not Elasticsearch 8 or newer",
            where=where,
            cure="correct `url`",
        )
    if isinstance(error, ApiError) and error.status_code == 401:
        return ConfigError(
            "elasticsearch.login",
            f"the server refuses these credentials: {reason(error)}",
            where=where,
            cure="correct api_key, or user and password",
        )
    if isinstance(error, ApiError) and error.status_code in (400, 403, 405):
        return ConfigError(
            "elasticsearch.rights",
            f"the index waxtap-offsets cannot be made or used: {reason(error)}",
            where=where,
            cure="give the role the privileges create_index, read, index, delete and manage on "
            "waxtap-offsets and on the indices of the sink",
        )
    return RetryableError("elasticsearch.unreachable", reason(error), where=where)
