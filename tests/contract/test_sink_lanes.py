"""What of the sink suite lanes could break: a PostgreSQL sink that stores over three sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from connectors.postgres.target import lanes
from tests.contract.postgres_sink import PostgresSinkAdapter
from tests.contract.test_sink import (
    test_a_batch_that_was_interrupted_can_be_written_again,
    test_a_truncate_removes_what_came_before_it_only,
    test_changes_of_a_key_apply_in_order_within_and_across_batches,
    test_restarts_at_any_point_add_up_to_the_log,
    test_stored_follows_what_is_written,
)
from tests.contract.test_sink_claims import (
    test_a_newer_claim_fences_a_writer_in_full_flow,
    test_fencing_holds_while_the_old_writer_is_writing,
    test_topics_that_are_widened_or_narrowed_repeat_nothing,
)
from tests.contract.test_sink_letters import (
    test_a_refused_change_is_permanent_and_the_offset_stays_before_it,
    test_after_a_refusal_another_writer_of_the_claim_goes_on,
)
from tests.contract.test_sink_outages import (
    test_cut_connections_are_mended_inside,
    test_what_was_flushed_survives_a_killed_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control.servers.postgres import PostgresServer
    from tests.contract.sink_adapter import SinkAdapter

__all__ = [
    "test_a_batch_that_was_interrupted_can_be_written_again",
    "test_a_newer_claim_fences_a_writer_in_full_flow",
    "test_a_refused_change_is_permanent_and_the_offset_stays_before_it",
    "test_a_truncate_removes_what_came_before_it_only",
    "test_after_a_refusal_another_writer_of_the_claim_goes_on",
    "test_changes_of_a_key_apply_in_order_within_and_across_batches",
    "test_cut_connections_are_mended_inside",
    "test_fencing_holds_while_the_old_writer_is_writing",
    "test_restarts_at_any_point_add_up_to_the_log",
    "test_stored_follows_what_is_written",
    "test_topics_that_are_widened_or_narrowed_repeat_nothing",
    "test_what_was_flushed_survives_a_killed_server",
]

pytestmark = pytest.mark.servers


class LanesAdapter(PostgresSinkAdapter):
    """Lanes may be ahead of the share's offset, and know it."""

    transactional: ClassVar[bool] = False
    settings: ClassVar[dict[str, object]] = {"parallelism": 3}


@pytest.fixture
def sink_adapter(
    mortal_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SinkAdapter]:
    monkeypatch.setattr(lanes, "LANE_CHANGES", 1)
    adapter = LanesAdapter(mortal_postgres)
    yield adapter
    adapter.close()
