"""Where a sink begins in a stream of which its target has nothing yet."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from connectors.errors import RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.subjects import DEAD

if TYPE_CHECKING:
    from datetime import datetime

    from connectors.contracts.sink import Share
    from connectors.jetstream.spec import NatsSpec

_SHORT_LIVED_NS = 5_000_000_000


def behind_end(nats: NatsSpec, share: Share) -> int:
    """The sequence of the stream's last message. Raises RetryableError: NATS does not answer."""
    with connect(nats) as connection:
        info = api.stream_info(connection, share.stream)
    return info.state.last_seq if info else 0


def behind_time(nats: NatsSpec, share: Share, moment: datetime) -> int:
    """The sequence before the first message that was stored at `moment` or later.

    Raises:
        RetryableError: NATS does not answer.
    """
    name = f"begin-{uuid4().hex}"
    config = {
        "name": name,
        "deliver_policy": "by_start_time",
        "opt_start_time": moment.isoformat(),
        "ack_policy": "none",
        "inactive_threshold": _SHORT_LIVED_NS,
        "mem_storage": True,
        "num_replicas": 1,
    }
    with connect(nats) as connection:
        try:
            # A consumer knows where it begins; the API has no other way from a time to a sequence.
            made = api.create_consumer(connection, share.stream, config)
            api.delete_consumer(connection, share.stream, name)
        except api.ApiError as error:
            raise RetryableError(
                "jetstream.consumer_refused", str(error), where=f"{share.stream} > {name}"
            ) from error
    return made.delivered.stream_seq


def unfed(nats: NatsSpec, share: Share) -> list[str]:
    """Those of the share's subjects on which no change is stored, whatever its age.

    Those on which pipelines put aside what they fail on are empty where all is well: they do not
    count.

    Raises:
        RetryableError: NATS does not answer.
    """
    subjects = [each for each in share.subjects if each.split(".")[2] != DEAD]
    with connect(nats) as connection:
        found = api.messages(connection, share.stream, subjects)
    return [subject for subject, last in zip(subjects, found, strict=True) if last is None]
