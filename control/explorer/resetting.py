"""Sets a sink that stands still to another place of its streams.

The truth is changed where it lies: in the target, or in `CDC_OFFSETS`, and older writers are fenced
there. Dead letters behind the new place are deleted: these changes are given to the sink anew, and
become letters again if they are refused again. Those before it stay, since nothing gives them
again. What a sink is made to leave out becomes no letter: it was left out on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.contracts.sink import Share
from connectors.errors import ConfigError
from connectors.jetstream import letter_index
from connectors.jetstream.consumers import forget
from connectors.jetstream.letter_claims import claim_letters
from control.explorer.deliveries import same_stream
from control.explorer.timestamps import END, from_nanoseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.contracts.sink import Sink
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.direct import DirectGets
    from connectors.jetstream.spec import DeadLetterSpec
    from control.explorer.readers import Reader
    from control.explorer.streams import Stream


@dataclass(frozen=True, slots=True)
class Target:
    """Where a sink is to go on; one of these.

    Attributes:
        beginning: At the first message that is there.
        end: Behind the last one.
        sequence: At this one; 0: not by sequence.
        time: At the first message stored then or later (nanoseconds since 1970); 0: not by time.
    """

    beginning: bool = False
    end: bool = False
    sequence: int = 0
    time: int = 0


class OutOfRangeError(Exception):
    """A stream has no such place; says which ones it has."""


class NoStreamError(Exception):
    """A sink reads no stream of this source."""


def place(reads: DirectGets, stream: Stream, target: Target) -> int:
    """The sequence behind which a sink is to go on.

    Raises:
        OutOfRangeError: The stream has no such place.
        RetryableError: NATS does not answer.
    """
    first, last = max(stream.state.first_seq, 1), stream.state.last_seq
    if target.beginning:
        return first - 1
    if target.end or target.time >= END:
        return last
    if target.sequence:
        if not first <= target.sequence <= last + 1:
            raise OutOfRangeError(f"stream {stream.name} holds {first} to {last}")
        return target.sequence - 1
    body = {
        "start_time": from_nanoseconds(target.time),
        "next_by_subj": f"CDC.{stream.source}.>",
        "batch": 1,
    }
    found = reads.get(stream.name, body)
    return found[0].sequence - 1 if found else last


def reset(
    connection: Connection,
    letters: DeadLetterSpec,
    reader: Reader,
    sink: Sink,
    places: Sequence[tuple[Stream, int]],
) -> None:
    """Let a sink go on behind these sequences. The caller knows that its flow stands still.

    Each stream is set by itself; the same call may be repeated.

    Raises:
        ConfigError: The target is not set up for it.
        RetryableError: NATS or the target cannot be reached.
    """
    for stream, upto in places:
        share = Share(reader.name, stream.name, stream.created, reader.subjects(stream.source))
        # As at a start of the flow: whoever still writes stores no letters, and then nothing.
        claim_letters(connection.spec, letters, share)
        sink.reset(share, upto)
        gone = (
            head
            for head in letter_index.heads(connection, reader.name)
            if same_stream(head, stream) and head.sequence > upto
        )
        letter_index.drop(connection, gone)
        forget(connection, stream.name, reader.name)


def unusable(name: str) -> ConfigError:
    """The error of a sink whose settings cannot be used."""
    return ConfigError(
        "control.sink_unusable",
        "its settings cannot be used now, or a reference in them cannot be resolved",
        where=f"sinks.{name}",
        cure="see the service's log",
    )
