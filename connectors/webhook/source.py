"""The webhook source: requests, stored in an inbox before they are answered, become changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.webhook.endpoint import Endpoint
from connectors.webhook.reader import Place, WebhookReader, stored_columns
from connectors.webhook.request_changes import RequestChanges
from connectors.webhook.trial import try_out

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.contracts.source import Checkpoint, SourceContext
    from connectors.errors import WaxtapError
    from connectors.webhook.source_spec import SourceSpec


class WebhookSource:
    """Implements `contracts.Source` for whatever sends HTTP requests.

    Args:
        name: The source's name in the configuration.
        spec: Its configuration.
        accept: Losses that the owner has accepted, by the tokens that the errors named.
        context: Has the inbox.
    """

    def __init__(
        self, name: str, spec: SourceSpec, accept: Collection[str], context: SourceContext
    ) -> None:
        self._name, self._spec, self._accept, self._context = name, spec, accept, context

    def open(self, resume: Checkpoint | None) -> WebhookReader:
        """Read the inbox behind `resume`, and listen, unless others do.

        Raises:
            ConfigError: The configuration does not fit the servers.
            GapError: The inbox no longer has what follows `resume`.
            RetryableError: NATS does not answer, or something else listens at the address.
        """
        spec, context = self._spec, self._context
        known = Place.of(resume.state) if resume else None
        inbox, mark, anew = context.inbox.reader(
            known.mark if known else None, spec.window, spec.max_backlog, self._accept
        )
        endpoint: Endpoint | None = None
        try:
            generation = known.generation + anew if known else 0
            columns = {} if spec.columns else stored_columns(context.state)
            changes = RequestChanges(self._name, spec, columns)
            serves = spec.serve and context.past is None
            endpoint = self.serve() if serves else None
            return WebhookReader(
                self._name,
                inbox,
                changes,
                context.state,
                Place(generation, mark),
                resume.position if resume else "",
                int(max(spec.keep, spec.window).total_seconds() * 1000),
                endpoint,
                anchor=known is None or anew,
            )
        except BaseException:
            inbox.close()
            if endpoint is not None:
                endpoint.close()
            raise

    def serve(self) -> Endpoint:
        """Only listen, and store requests in the inbox; any number of processes may.

        Raises:
            ConfigError: The configuration does not fit the servers.
            RetryableError: NATS does not answer, or something else listens at the address.
        """
        return Endpoint(self._name, self._spec, self._context.inbox)

    def check(self) -> list[WaxtapError]:
        """What would keep the source from starting anew; nothing is made, and nobody can connect.

        Returns:
            One clear error for each thing that was found.
        """
        return try_out(self._name, self._spec, self._context)

    def owned(self) -> list[str]:
        """The inbox."""
        return ["inbox"]

    def drop(self) -> list[str]:
        """Delete the inbox, with the requests in it.

        Returns:
            Its name, if there was one.

        Raises:
            RetryableError: NATS does not answer.
        """
        name = self._context.inbox.remove()
        return [f"stream {name}"] if name else []
