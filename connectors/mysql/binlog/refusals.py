"""What a decoder cannot go on with, each with its way out.

Every function returns the error for one thing; `where` is `file:offset`.
"""

from __future__ import annotations

from connectors.errors import FatalError, GapError

_ANEW = "give the source a new name to start anew"
_BEHIND = "give the source a new name to start behind this place"


def unknown_event(kind: int, where: str) -> FatalError:
    """The log holds an event of a type that nobody told us about."""
    return FatalError(
        "mysql.unknown_event",
        f"an event of the unknown type {kind}",
        where=where,
        cure="use a server of a supported version",
    )


def wrong_checksum(kind: int, where: str) -> FatalError:
    """An event was damaged on the server's disk or on its way."""
    return FatalError(
        "mysql.checksum",
        f"the checksum of an event of type {kind} is wrong",
        where=where,
        cure="check the server's disk and the network; nothing after this place was read",
    )


def out_of_place(what: str, where: str) -> FatalError:
    """An event comes where it cannot be."""
    return FatalError(
        "mysql.unexpected_event",
        f"the server sent {what}",
        where=where,
        cure="restart the flow; nothing was lost",
    )


def torn_transaction(gtid: str, where: str) -> FatalError:
    """A crash of the server left a transaction without its end, a part of which is stored."""
    return FatalError(
        "mysql.torn_transaction",
        f"the transaction {gtid} has no end in the log, but the stream holds a part of it",
        where=where,
        cure=f"its rows are not in the source: {_ANEW}",
    )


def late_rollback(gtid: str, where: str) -> FatalError:
    """A logged transaction takes back what is stored already."""
    return FatalError(
        "mysql.late_rollback",
        f"the transaction {gtid} takes changes back that the stream holds",
        where=where,
        cure=_ANEW,
    )


def transaction_too_large(gtid: str, limit: int) -> FatalError:
    """A transaction has more changes than a position can tell apart."""
    return FatalError(
        "mysql.transaction_too_large", f"the transaction {gtid} has more than {limit} changes"
    )


def statement_format(what: str, where: str) -> FatalError:
    """A session logged changes of rows as a statement."""
    return FatalError(
        "mysql.statement_format",
        f"{what}: a session has overridden binlog_format",
        where=where,
        cure="repeat the change with binlog_format = ROW, then set `statements: skip` in the source"
        " until this place is passed",
    )


def incident(text: str, where: str) -> GapError:
    """The server says itself that its log lacks something."""
    return GapError(
        "mysql.incident",
        f"the server reports that its log lacks changes: {text}",
        where=where,
        cure=_ANEW,
    )


def anonymous_transaction(where: str) -> FatalError:
    """A transaction cannot be told from others."""
    return FatalError(
        "mysql.anonymous_transaction",
        "a transaction without GTID",
        where=where,
        cure=f"keep gtid_mode = ON, and {_BEHIND}",
    )


def partial_json(where: str) -> FatalError:
    """A session logged what has changed in a JSON document, not the document."""
    return FatalError(
        "mysql.partial_json",
        "an update was logged with parts of a JSON document only",
        where=where,
        cure="SET GLOBAL binlog_row_value_options = '' and end the sessions that override it; then"
        f" {_BEHIND}",
    )
