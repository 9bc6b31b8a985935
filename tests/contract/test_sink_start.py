"""The suite that every sink must pass: what keeps it from starting, and checks that tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from connectors.contracts.sink import Batch
from connectors.errors import ConfigError, RetryableError
from tests.contract.sink_log import SHARE, change

if TYPE_CHECKING:
    from tests.contract.sink_adapter import SinkAdapter

pytestmark = pytest.mark.servers


def test_a_server_that_does_not_answer_is_a_retryable_error(sink_adapter: SinkAdapter) -> None:
    with pytest.raises(RetryableError) as caught:
        sink_adapter.unreachable().claim(SHARE)
    assert "s3cret-word" not in str(caught.value)
    assert "." in caught.value.code


def test_each_missing_setup_is_one_config_error_with_its_cure(sink_adapter: SinkAdapter) -> None:
    cases = sink_adapter.misconfigured()
    assert cases
    for word, make in cases.items():
        with pytest.raises(ConfigError) as caught:
            make().claim(SHARE)
        assert word in str(caught.value)
        assert caught.value.cure


def test_a_check_finds_nothing_where_a_sink_can_start_and_disturbs_none_that_runs(
    sink_adapter: SinkAdapter,
) -> None:
    assert sink_adapter.sink().check() == []
    claim = sink_adapter.sink().claim(SHARE)
    writer = sink_adapter.sink().open(claim)
    assert sink_adapter.sink().check() == []
    writer.write(Batch(claim, [change(1, "c", 1, "a")], 1))
    writer.flush()
    writer.close()
    assert sink_adapter.rows() == {1: "a"}


def test_a_check_tells_what_a_claim_would_fail_with(sink_adapter: SinkAdapter) -> None:
    (away,) = sink_adapter.unreachable().check()
    assert isinstance(away, RetryableError)
    assert "s3cret-word" not in str(away)
    for word, make in sink_adapter.misconfigured().items():
        try:
            (found,) = make().check()
        except ConfigError as error:  # wrong by itself, without a look at the server
            found = error
        assert isinstance(found, ConfigError)
        assert word in str(found)
        assert found.cure
