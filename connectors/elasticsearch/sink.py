"""The Elasticsearch sink: documents with external versions, so that each ends as its row does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from elasticsearch import UnsupportedProductError

from connectors.elasticsearch.client import FAILURES, at_start, connect
from connectors.elasticsearch.offsets import Bookkeeping
from connectors.elasticsearch.writer import ElasticsearchWriter
from connectors.trials import findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.contracts.sink import Claim, Share, SinkContext, SinkWriter
    from connectors.elasticsearch.spec import SinkSpec
    from connectors.errors import WaxtapError


class ElasticsearchSink:
    """Indices that follow the topics the sink reads; see `contracts.Sink`.

    Args:
        name: The sink's name in the configuration.
        spec: Its target.
        context: Whose `stop` ends the waiting for a target that is in trouble.

    Raises:
        ConfigError: `elasticsearch.ca`, `elasticsearch.client`: no client can be made of `spec`.
    """

    def __init__(self, name: str, spec: SinkSpec, context: SinkContext) -> None:
        self._name, self._spec, self._stop = name, spec, context.stop
        # Certificates are read here: what is wrong with them is told before anything runs.
        connect(spec).close()

    @property
    def whole_transactions(self) -> bool:
        """Elasticsearch has no transactions."""
        return False

    def check(self) -> list[WaxtapError]:
        """What would keep the sink from starting; the target is only asked.

        Returns:
            One clear error, or none.
        """
        return findings(self._try)

    def claim(self, share: Share) -> Claim:
        """Become the only writer of the share, and read where it stands.

        An older writer stores no further offset, and begins no further request; what one of its
        requests still brings is older than what will be written, or the same.

        Raises:
            ConfigError: `elasticsearch.certificate`, `elasticsearch.product`,
                `elasticsearch.login`, `elasticsearch.rights`.
            GapError: `elasticsearch.offsets_unreadable`.
            RetryableError: The target cannot be reached.
        """
        with self._books() as books:
            books.create()
            return books.claim(share)

    def offsets(self, share: Share) -> dict[str, int]:
        """Read from where a claim would go on. Raises as `claim`."""
        with self._books() as books:
            return books.read(share)

    def reset(self, share: Share, upto: int) -> None:
        """Let the next claim go on behind `upto`. Raises as `claim`.

        Documents stay, and those that are newer than a change that comes again are left alone:
        delete an index to have it made anew.
        """
        with self._books() as books:
            books.create()
            books.reset(share, upto)

    @contextmanager
    def _books(self) -> Iterator[Bookkeeping]:
        client = connect(self._spec)
        try:
            yield Bookkeeping(client)
        except (*FAILURES, UnsupportedProductError) as error:
            raise at_start(error, self._name) from None
        finally:
            client.close()

    def open(self, claim: Claim) -> SinkWriter:
        """Make the writer for a claim; it connects when it has something to write."""
        return ElasticsearchWriter(self._spec, claim, self._stop)

    def _try(self) -> None:
        with self._books() as books:
            books.check_usable()
