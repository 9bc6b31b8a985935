"""The webhook sink: changes as signed requests, at least once, those of a key in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import RetryableError
from connectors.trials import findings
from connectors.webhook.delivery import Endpoint, UnansweredError
from connectors.webhook.network import resolve
from connectors.webhook.writer import WebhookWriter

if TYPE_CHECKING:
    from connectors.contracts.sink import Claim, Share, SinkContext, SinkWriter
    from connectors.errors import WaxtapError
    from connectors.webhook.network import Resolve
    from connectors.webhook.spec import SinkSpec


class WebhookSink:
    """An HTTP endpoint that is told of each change; see `contracts.Sink`.

    Args:
        name: The sink's name in the configuration.
        spec: Its endpoint.
        context: Where offsets are kept, since an endpoint cannot.
        resolver: Turns a host into addresses.

    Raises:
        ConfigError: `webhook.tls`: a file cannot be read.
    """

    def __init__(
        self, name: str, spec: SinkSpec, context: SinkContext, resolver: Resolve = resolve
    ) -> None:
        self._name = name
        self._spec = spec
        self._context = context
        self._resolver = resolver
        self._endpoint = Endpoint(spec, resolver)

    @property
    def whole_transactions(self) -> bool:
        """Requests know no transactions."""
        return False

    def check(self) -> list[WaxtapError]:
        """What would keep the sink from starting: a connection is made, and nothing is sent.

        Returns:
            One clear error, or none.
        """
        return findings(self._reach)

    def claim(self, share: Share) -> Claim:
        """Become the only writer of the share, and read where it stands.

        An older writer sends nothing more than a second later, but for requests under way.

        Raises:
            ConfigError: `webhook.address`, or the offsets cannot be kept.
            RetryableError: The endpoint, or where the offsets are kept, cannot be reached.
        """
        self._reach()
        return self._context.offsets.claim(share)

    def offsets(self, share: Share) -> dict[str, int]:
        """Read from where a claim would go on; the endpoint is not asked."""
        return self._context.offsets.read(share)

    def reset(self, share: Share, upto: int) -> None:
        """Let the next claim go on behind `upto`; the endpoint is not asked."""
        self._context.offsets.reset(share, upto)

    def open(self, claim: Claim) -> SinkWriter:
        """Make the writer for a claim; it connects when it has something to send."""
        return WebhookWriter(self._spec, Endpoint(self._spec, self._resolver), claim, self._context)

    def _reach(self) -> None:
        try:
            self._endpoint.dial().close()
        except UnansweredError as error:
            raise RetryableError(
                "webhook.unreachable", error.reason, where=self._endpoint.shown
            ) from None
