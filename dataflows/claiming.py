"""Both claims of a delivery: the share at its target, and the share's dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from connectors.jetstream.expiry import shortened
from connectors.jetstream.letter_claims import claim_letters, holds_letters
from dataflows.configuration.places import placing

if TYPE_CHECKING:
    from connectors.contracts.sink import Claim, Share, Sink
    from dataflows.spec import Config, SinkConfig


def claim_share(config: Config, sink: SinkConfig, target: Sink, found: Share) -> Claim:
    """Become the only one that delivers a share and puts aside what its target refuses.

    Of two that claim at the same time the same one gets both: the letters are claimed first, and
    if they are somebody else's once the target is claimed, all is claimed anew.

    Raises:
        ConfigError: Target or letters are not set up for it.
        GapError: The stream was truncated.
        RetryableError: NATS or the target cannot be reached.
    """
    nats = config.nats
    while True:
        fence = claim_letters(nats, config.dead_letters, found)
        with placing(f"sinks.{sink.name}", type(sink.spec).model_fields):
            claim = target.claim(found)
        truncated = shortened(nats, claim, sink.options.accept)
        if truncated is not None:
            claim = target.claim(truncated)
        if holds_letters(nats, found, fence):
            return replace(claim, fence=fence)
