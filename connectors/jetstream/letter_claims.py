"""Who may store the letters of a share: `letters` tells how a claim is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.layout import ensure_letters
from connectors.jetstream.letters import STREAM, claim_subject
from connectors.jetstream.refusals import Kind, classify

if TYPE_CHECKING:
    from connectors.contracts.sink import Share
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import DeadLetterSpec, NatsSpec


def claim_letters(nats: NatsSpec, spec: DeadLetterSpec, share: Share) -> int:
    """Become the only one that stores letters of a share.

    Returns:
        What the claim is known by (`Claim.fence`); 0 while the stream is full: it is then claimed
        before the first letter.

    Raises:
        ConfigError: The stream cannot be made, or is not ours.
        RetryableError: NATS does not answer.
    """
    with connect(nats) as connection:
        ensure_letters(connection, nats.stream, spec)
        subject = claim_subject(share)
        ack = api.decode_ack(connection.request(subject).payload)
        if ack.error is None:
            api.purge(connection, STREAM, [subject], keep=1)
            return ack.seq
        if classify(ack.error) is not Kind.NO_ROOM:
            raise RetryableError(
                "jetstream.not_stored",
                f"{ack.error.description} ({ack.error.err_code})",
                where=subject,
            )
        # Without a claim there, letters that expect an older one are refused, too.
        api.purge(connection, STREAM, [subject])
    return 0


def holds_letters(nats: NatsSpec, share: Share, fence: int) -> bool:
    """Whether a claim is the newest. Raises RetryableError: NATS does not answer."""
    with connect(nats) as connection:
        return newest_claim(connection, share) == fence


def newest_claim(connection: Connection, share: Share) -> int:
    """What the newest claim of a share is known by; 0: there is none."""
    found = api.last_message(connection, STREAM, claim_subject(share))
    return found.seq if found else 0
