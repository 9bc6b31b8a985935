import pytest

from bench.debezium import WarmHalf
from bench.debezium_engine import Sample, Tally
from bench.latency import Window, summary


def test_the_tally_samples_the_first_the_middle_and_the_last_change() -> None:
    tally = Tally(100)
    for _ in range(6):
        assert not tally.complete.is_set()
        tally.add(16)
    tally.add(16)
    assert tally.complete.is_set()
    assert [sample.changes for sample in tally.samples] == [16, 64, 112]
    assert tally.samples == sorted(tally.samples, key=lambda sample: (sample.clock, sample.cpu))


def test_one_batch_may_pass_several_marks() -> None:
    tally = Tally(100)
    tally.add(100)
    assert tally.complete.is_set()
    assert [sample.changes for sample in tally.samples] == [100, 100, 100]


def test_the_warm_half_starts_in_the_middle() -> None:
    warm = WarmHalf([Sample(1, 0.0, 5.0), Sample(600, 10.0, 20.0), Sample(1000, 12.0, 21.0)])
    assert warm.per_second == pytest.approx(200)
    assert warm.per_cpu_second == pytest.approx(400)


def test_the_summary_counts_only_rows_of_its_window() -> None:
    sent = {row: float(row) for row in range(1, 301)}
    in_stream = {row: sent[row] + (9.0 if row <= 100 else 0.002) for row in sent}
    in_target = {row: sent[row] + (row - 100) / 1000 for row in sent}
    figures = summary(Window(101, 201, 0.1), sent, in_stream, in_target)
    assert figures["latency_rate_per_s"] == pytest.approx(1000)
    assert figures["stream_p99_ms"] == pytest.approx(2)
    assert figures["target_p50_ms"] == pytest.approx(50)
    assert figures["target_p95_ms"] == pytest.approx(95)
    assert figures["target_p99_ms"] == pytest.approx(99)
