"""The suite that every source must pass: what keeps it from starting, and what looks at it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.source import Checkpoint, Observable
from connectors.errors import ConfigError, GapError, RetryableError
from tests.contract.source_reading import ids_of, read_changes

if TYPE_CHECKING:
    from tests.contract.source_adapter import SourceAdapter

pytestmark = pytest.mark.servers


def test_a_server_that_does_not_answer_is_a_retryable_error(
    source_adapter: SourceAdapter,
) -> None:
    with pytest.raises(RetryableError) as caught:
        source_adapter.unreachable().open(None)
    assert "s3cret-word" not in str(caught.value)
    assert "." in caught.value.code


def test_each_missing_setup_is_one_config_error_with_its_cure(
    source_adapter: SourceAdapter,
) -> None:
    cases = source_adapter.misconfigured()
    assert cases
    for word, make in cases.items():
        with pytest.raises(ConfigError) as caught:
            make().open(None)
        assert word in str(caught.value)
        assert caught.value.cure


def test_lost_history_is_a_gap_and_never_papered_over(
    source_adapter: SourceAdapter, begun: Checkpoint, loss: str
) -> None:
    source_adapter.write([1])
    source_adapter.lose_history(loss)
    with pytest.raises(GapError) as caught:
        source_adapter.source().open(begun)
    assert caught.value.cure


def test_a_check_finds_nothing_where_a_source_can_start_and_disturbs_none_that_runs(
    source_adapter: SourceAdapter,
) -> None:
    assert source_adapter.source().check() == []
    # Nothing was left behind that would be told from a first start.
    assert source_adapter.source().drop() == []
    with closing(source_adapter.source().open(None)) as reader:
        assert source_adapter.source().check() == []
        source_adapter.write([1, 2])
        assert ids_of(source_adapter, read_changes(reader, 2)) == [1, 2]


def test_a_check_tells_what_a_start_would_fail_with(source_adapter: SourceAdapter) -> None:
    (away,) = source_adapter.unreachable().check()
    assert isinstance(away, RetryableError)
    assert "s3cret-word" not in str(away)
    for word, make in source_adapter.misconfigured().items():
        try:
            found = make().check()
        except ConfigError as error:  # wrong by itself, without a look at the server
            found = [error]
        assert any(word in str(error) for error in found)
        assert all(isinstance(error, ConfigError) and error.cure for error in found)


def test_a_source_that_can_be_observed_tells_where_its_server_is(
    source_adapter: SourceAdapter, begun: Checkpoint
) -> None:
    source = source_adapter.source()
    if not isinstance(source, Observable):
        pytest.skip("it cannot be observed")
    before = source.observe(begun)
    source_adapter.write([1, 2, 3])
    after = source.observe(begun)
    assert before.position != after.position
    if after.slot:
        assert after.lag is not None
        assert after.lag > (before.lag or 0)
        assert after.retained >= after.lag
    # Nothing was disturbed, and nothing confirmed.
    with closing(source_adapter.source().open(begun)) as reader:
        held = source.observe(begun)
        assert held.slot_active == bool(held.slot)
        assert ids_of(source_adapter, read_changes(reader, 3)) == [1, 2, 3]
    assert source.observe(None).position
    with pytest.raises(RetryableError):
        source_adapter.unreachable().observe(None)  # type: ignore[attr-defined]
