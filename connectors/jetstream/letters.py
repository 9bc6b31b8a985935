"""Dead letters as they are stored, free of I/O.

A letter lies at `DLQ.<sink>.<stream>.<created>.<sequence>`, `created` being the digits of the time
at which the stream was created. It is a copy of the stream's message with these headers besides:

    Cdc-Sink            whose letter it is
    Cdc-Subject         where the message lies
    Cdc-Stream-Created  when its stream was created
    Cdc-State           `failed`, `parked` or `skipped` (`letters.State`)
    Cdc-Error-Class     the class of the error
    Cdc-Error-Code      its stable identifier
    Cdc-Error           what it says
    Cdc-Attempts        how often its delivery was tried
    Cdc-Failed-At       when it was put aside, or tried last
    Cdc-Keys            JSON list of the rows that wait behind it, 16 hex digits each

Beside the letters of a share, `DLQ.<sink>.<stream>.claim` carries the right to store them, and
`DLQ.<sink>.<stream>.<created>.truncated.<topic in hex>` tells at which sequence a table was
emptied that letters belong to.
"""

from __future__ import annotations

from json import dumps, loads
from typing import TYPE_CHECKING

from connectors.jetstream.frames import read_headers
from connectors.letters import Head, Reason, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.contracts.sink import Share
    from connectors.letters import Letter

STREAM = "DLQ"
SUBJECTS = "DLQ.>"
# Longer ones are cut, so that a letter of the largest message still is one.
_LONGEST_ERROR = 1000
# What the stream's own publisher has put there, and the server would take as meant for it.
_NOT_COPIED = ("Nats-", "Cdc-Checkpoint")


def incarnation(created: str) -> str:
    """A stream's creation time as a word of a subject."""
    return "".join(filter(str.isdigit, created))


def share_subjects(sink: str, stream: str) -> str:
    """All that concerns the letters of one sink and stream."""
    return f"{STREAM}.{sink}.{stream}.>"


def claim_subject(share: Share) -> str:
    """Where the right to store a share's letters lies."""
    return f"{STREAM}.{share.sink}.{share.stream}.claim"


def letter_subject(sink: str, stream: str, created: str, sequence: int) -> str:
    """Where a letter lies."""
    return f"{STREAM}.{sink}.{stream}.{incarnation(created)}.{sequence}"


def truncate_subject(share: Share, topic: str) -> str:
    """Where it is noted that a table of a topic was emptied."""
    place = f"{STREAM}.{share.sink}.{share.stream}.{incarnation(share.created)}"
    return f"{place}.truncated.{topic.encode().hex()}"


def truncated_topic(subject: str) -> str | None:
    """The topic whose emptying is noted at `subject`; None: it is something else."""
    words = subject.split(".")
    if len(words) != 6 or words[4] != "truncated":
        return None
    return bytes.fromhex(words[5]).decode()


def is_letter(subject: str) -> bool:
    """Whether a letter lies there, and not something beside the letters."""
    words = subject.split(".")
    return len(words) == 5 and words[4].isdigit()


def letter_headers(share: Share, letter: Letter, original: Mapping[str, str], when: str) -> str:
    """The headers of a letter, each line ended by CR LF.

    Args:
        share: Whose it is.
        letter: What is put aside.
        original: The headers of the message, with `Cdc-Subject`.
        when: Now (RFC 3339).
    """
    fields = copied(original) | {
        "Cdc-Sink": share.sink,
        "Cdc-Stream-Created": share.created,
        "Cdc-State": letter.state.value,
        "Cdc-Keys": dumps([f"{row:016x}" for row in letter.rows], separators=(",", ":")),
        **reason_headers(letter.reason, 0 if letter.state is State.PARKED else 1, when),
    }
    return lines(fields)


def copied(original: Mapping[str, str]) -> dict[str, str]:
    """Those headers of a message that its letter has, too."""
    return {name: text for name, text in original.items() if not name.startswith(_NOT_COPIED)}


def reason_headers(reason: Reason, attempts: int, when: str) -> dict[str, str]:
    """The headers that tell of an attempt."""
    return {
        "Cdc-Error-Class": reason.kind,
        "Cdc-Error-Code": reason.code,
        "Cdc-Error": " ".join(reason.message.split())[:_LONGEST_ERROR],
        "Cdc-Attempts": str(attempts),
        "Cdc-Failed-At": when,
    }


def lines(fields: Mapping[str, str]) -> str:
    """Headers as they are sent."""
    return "".join(f"{name}: {text}\r\n" for name, text in fields.items())


def read_head(subject: str, header: bytes) -> Head | None:
    """What is known of the letter at `subject`; None: there is no letter."""
    if not is_letter(subject):
        return None
    _, sink, stream, _, sequence = subject.split(".")
    fields = read_headers(header)
    return Head(
        sink,
        stream,
        fields.get("Cdc-Stream-Created", ""),
        int(sequence),
        fields.get("Cdc-Subject", ""),
        tuple(int(row, 16) for row in loads(fields.get("Cdc-Keys", "[]"))),
        State(fields.get("Cdc-State", "failed")),
        Reason(
            fields.get("Cdc-Error-Class", ""),
            fields.get("Cdc-Error-Code", ""),
            fields.get("Cdc-Error", ""),
        ),
        int(fields.get("Cdc-Attempts", "0")),
        fields.get("Cdc-Failed-At", ""),
        fields.get("Cdc-Position", ""),
        fields.get("Cdc-Key"),
        "Cdc-Object" in fields,
    )
