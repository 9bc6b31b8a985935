"""Streams before a source, for what is pushed to it: `CDCIN_<source>`, subject `CDCIN.<source>`.

Any number of writers store in one; only what its reader lets go of is ever removed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from connectors.contracts.inbox import InboxMark, InboxPreview
from connectors.jetstream import api
from connectors.jetstream.checks import check_server
from connectors.jetstream.connection import connect
from connectors.jetstream.inbox_check import Found, check
from connectors.jetstream.inbox_reader import JetStreamInboxReader
from connectors.jetstream.inbox_writer import JetStreamInboxWriter, max_body
from connectors.jetstream.layout import check_stream, ensure_stream

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec


class JetStreamInbox:
    """Implements `contracts.Inbox`.

    Args:
        nats: Where it is.
        source: The source's name.
    """

    def __init__(self, nats: NatsSpec, source: str) -> None:
        self._nats = nats
        self._stream, self._subject = f"CDCIN_{source}", f"CDCIN.{source}"
        self._bell = f"{self._subject}.stored"

    def preview(self) -> InboxPreview:
        """See whether it can be opened; see `contracts.Inbox`."""
        with connect(self._nats) as connection:
            check_server(connection)
            found = check_stream(connection, self._nats.stream, self._stream, self._subject)
            return InboxPreview(found.created if found else "", max_body(connection))

    def writer(self, window: timedelta, max_bytes: int) -> JetStreamInboxWriter:
        """Open the inbox for writing; see `contracts.Inbox`."""
        connection = connect(self._nats)
        try:
            made = self._ensure(connection, window, max_bytes)
            return JetStreamInboxWriter(
                connection, self._stream, self._subject, self._bell, made.created
            )
        except BaseException:
            connection.release()
            raise

    def reader(
        self, behind: InboxMark | None, window: timedelta, max_bytes: int, accept: Collection[str]
    ) -> tuple[JetStreamInboxReader, InboxMark, bool]:
        """Open it for reading; see `contracts.Inbox`."""
        connection = connect(self._nats)
        try:
            if behind is not None:
                # One that is gone must be noticed before it is made again.
                check(self._stream, behind, self._find(connection, behind), accept)
            made = self._ensure(connection, window, max_bytes)
            mark = InboxMark(made.created, max(made.state.first_seq - 1, 0), "")
            anew, newer_than = False, ""
            if behind is not None:
                found = self._find(connection, behind)
                mark, anew, newer_than = check(self._stream, behind, found, accept)
            reader = JetStreamInboxReader(connection, self._stream, self._bell, mark, newer_than)
        except BaseException:
            connection.release()
            raise
        return reader, mark, anew

    def remove(self) -> str:
        """Delete it with what it holds; see `contracts.Inbox`."""
        with connect(self._nats) as connection:
            return self._stream if api.delete_stream(connection, self._stream) else ""

    def _ensure(self, connection: Connection, window: timedelta, max_bytes: int) -> api.StreamInfo:
        check_server(connection)
        limits = {"max_age": timedelta(), "max_bytes": max_bytes}
        spec = self._nats.stream.model_copy(update=limits)
        return ensure_stream(connection, spec, self._stream, self._subject, window)

    def _find(self, connection: Connection, mark: InboxMark) -> Found:
        info = api.stream_info(connection, self._stream)
        if info is None:
            return Found("", 1, 0, "")
        message = api.message(connection, self._stream, mark.sequence) if mark.sequence else None
        state = info.state
        return Found(
            info.created, max(state.first_seq, 1), state.last_seq, message.time if message else ""
        )
