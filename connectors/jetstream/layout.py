"""How streams are configured: those of the sources, and the buckets beside them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from connectors.errors import ConfigError
from connectors.jetstream import api

if TYPE_CHECKING:
    from datetime import timedelta

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import DeadLetterSpec, StreamSpec

log = structlog.get_logger()

# The server's smallest. We name the expected sequence instead of message ids.
_DUPLICATE_WINDOW = 100_000_000
_LETTERS, _LETTER_SUBJECTS = "DLQ", "DLQ.>"


def nanoseconds(duration: timedelta) -> int:
    """A duration as JetStream writes it."""
    return (
        duration.days * 86_400 + duration.seconds
    ) * 1_000_000_000 + duration.microseconds * 1000


def ensure_stream(
    connection: Connection,
    spec: StreamSpec,
    stream: str,
    subjects: str,
    window: timedelta | None = None,
) -> api.StreamInfo:
    """Make a source's stream, or bring an existing one's limits in line with `spec`.

    Args:
        connection: Where to.
        spec: How it is laid out.
        stream: Its name.
        subjects: What it holds.
        window: For how long message ids are remembered; None: as shortly as possible.

    Raises:
        ConfigError: A stream of that name is not ours, or cannot be brought in line.
        RetryableError: NATS does not answer.
    """
    wanted = _limits(spec)
    if window is not None:
        wanted["duplicate_window"] = max(nanoseconds(window), _DUPLICATE_WINDOW)
    info = api.stream_info(connection, stream)
    try:
        if info is None:
            fixed = {
                "name": stream,
                "subjects": [subjects],
                "retention": "limits",
                "storage": spec.storage,
                "duplicate_window": _duplicate_window(spec),
                # A hole in the middle could not be told from a change that never was.
                "deny_delete": True,
            }
            info = api.create_stream(connection, fixed | wanted)
            log.info("stream created", stream=stream, subjects=subjects)
        _check_ours(info, spec, stream, subjects)
        changes = {name: value for name, value in wanted.items() if info.config.get(name) != value}
        if changes:
            changes["duplicate_window"] = wanted.get("duplicate_window", _duplicate_window(spec))
            info = api.update_stream(connection, info.config | changes)
            log.info("stream updated", stream=stream, **changes)
    except api.ApiError as error:
        raise ConfigError(
            "jetstream.stream_refused", str(error), where=stream, cure="check `nats.stream`"
        ) from error
    if info.config.get("allow_atomic") is not True:
        raise ConfigError(
            "jetstream.no_atomic_batches",
            "the server made the stream without atomic batches",
            where=stream,
            cure="upgrade to nats-server 2.15 or later",
        )
    return info


def check_stream(
    connection: Connection, spec: StreamSpec, stream: str, subjects: str
) -> api.StreamInfo | None:
    """Raise what `ensure_stream` would raise of a stream that exists; changes nothing.

    Returns:
        The stream; None: there is none yet.

    Raises:
        ConfigError: It is not ours, or another stream holds its subjects.
        RetryableError: NATS does not answer.
    """
    info = api.stream_info(connection, stream)
    if info is not None:
        _check_ours(info, spec, stream, subjects)
        return info
    others = api.stream_names(connection, subjects)
    if others:
        raise ConfigError(
            "jetstream.subjects_taken",
            f"{subjects} is held by another stream: {', '.join(others)}",
            where=stream,
            cure="rename the source, or give that stream other subjects",
        )
    return None


def _limits(spec: StreamSpec) -> dict[str, object]:
    return {
        "num_replicas": spec.replicas,
        "max_age": nanoseconds(spec.max_age),
        "max_bytes": spec.max_bytes or -1,
        "compression": spec.compression,
        "discard": "new",
        "allow_direct": True,
        "allow_atomic": True,
    }


def _duplicate_window(spec: StreamSpec) -> int:
    return min(_DUPLICATE_WINDOW, nanoseconds(spec.max_age) or _DUPLICATE_WINDOW)


def _check_ours(info: api.StreamInfo, spec: StreamSpec, stream: str, subjects: str) -> None:
    if info.config.get("subjects") != [subjects] or info.config.get("retention") != "limits":
        raise ConfigError(
            "jetstream.not_ours",
            f"a stream of this name exists, but it does not hold {subjects} with limits retention",
            where=stream,
            cure="rename the source, or that stream",
        )
    if info.config.get("storage") != spec.storage:
        raise ConfigError(
            "jetstream.storage",
            f"the stream is stored in {info.config.get('storage')}, which cannot be changed",
            where=stream,
            cure="set `nats.stream.storage` to that, or delete the stream",
        )


def ensure_letters(connection: Connection, stream: StreamSpec, spec: DeadLetterSpec) -> None:
    """Make the stream of dead letters, or bring its limits in line with `spec`.

    Raises:
        ConfigError: A stream of that name is not ours, or cannot be brought in line.
        RetryableError: NATS does not answer.
    """
    wanted: dict[str, object] = {
        "num_replicas": spec.replicas or stream.replicas,
        "max_age": nanoseconds(spec.max_age),
        "max_bytes": spec.max_bytes or -1,
        # Older copies are purged, not crowded out: a server that is killed may forget that it has
        # dropped a message for this limit, and bring it back once its successor is deleted.
        "max_msgs_per_subject": -1,
        "discard": "new",
        "allow_direct": True,
    }
    window = min(_DUPLICATE_WINDOW, nanoseconds(spec.max_age) or _DUPLICATE_WINDOW)
    info = api.stream_info(connection, _LETTERS)
    try:
        if info is None:
            fixed = {
                "name": _LETTERS,
                "subjects": [_LETTER_SUBJECTS],
                "retention": "limits",
                "storage": stream.storage,
                "duplicate_window": window,
                # Claims are known by their sequences: those of a stream that is made again must not
                # be ones that a claim of the earlier stream had.
                "first_seq": time.time_ns() // 1000,
            }
            api.create_stream(connection, fixed | wanted)
            log.info("stream created", stream=_LETTERS, subjects=_LETTER_SUBJECTS)
            return
        if info.config.get("subjects") != [_LETTER_SUBJECTS]:
            raise ConfigError(
                "jetstream.not_ours",
                f"a stream of this name exists, but it does not hold {_LETTER_SUBJECTS}",
                where=_LETTERS,
                cure="rename that stream: Waxtap needs its name",
            )
        changes = {name: value for name, value in wanted.items() if info.config.get(name) != value}
        if changes:
            changes["duplicate_window"] = window
            api.update_stream(connection, info.config | changes)
            log.info("stream updated", stream=_LETTERS, **changes)
    except api.ApiError as error:
        # Another flow may have made it in between.
        if error.err_code != api.STREAM_NAME_IN_USE:
            raise ConfigError(
                "jetstream.stream_refused", str(error), where=_LETTERS, cure="check `dead_letters`"
            ) from error


def ensure_bucket(
    connection: Connection, stream: str, subjects: list[str], settings: dict[str, object]
) -> None:
    """Make the stream of a bucket unless there is one.

    Raises:
        ConfigError: The server refuses it.
        RetryableError: NATS does not answer.
    """
    if api.stream_info(connection, stream) is not None:
        return
    try:
        api.create_stream(connection, {"name": stream, "subjects": subjects} | settings)
    except api.ApiError as error:
        # Another flow may have made it in between.
        if error.err_code != api.STREAM_NAME_IN_USE:
            raise ConfigError("jetstream.bucket_refused", str(error), where=stream) from error
