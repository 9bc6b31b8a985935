"""Acts when the server keeps more log for a slot than its owner allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.contracts.source import LogHealth
from connectors.postgres.health.retention import judge, look
from connectors.postgres.setup import slot
from connectors.quantities import size_text

if TYPE_CHECKING:
    from connectors.postgres.server import Connection
    from connectors.postgres.setup.settings import Settings


def guard(connection: Connection, settings: Settings) -> LogHealth | None:
    """Look at the slot; drop it if it holds more than `max_slot_lag` and the owner wants that.

    A session of the source that reads from it is ended first.

    Returns:
        How it is; None: there is no such slot.

    Raises:
        ConfigError: `postgres.slot_in_use`: somebody else reads from it, so that it cannot be
            dropped.
        RetryableError: The connection broke, or the slot was not released.
    """
    retention = look(connection, settings.slot)
    if retention is None:
        return None
    health = judge(settings.slot, retention, settings.max_slot_lag)
    most = settings.max_slot_lag
    if settings.on_slot_lag != "drop" or not most or health.retained <= most:
        return health
    slot.take_over(connection, settings.slot, settings.application)
    slot.drop(connection, settings.slot)
    return health._replace(
        dropped=f"slot {settings.slot}",
        message=f"the server kept {size_text(health.retained)} of log for slot {settings.slot},"
        f" more than max_slot_lag ({size_text(most)}), so the slot was dropped",
    )
