import json

import pytest

from bench.catalogue import MEASURES, PUBLISHED, Target
from bench.report import latest_json, medians, table
from bench.samples import Samples, add, percentile

# The keys that readers of `latest.json` rely on.
KEYS = {
    "capture_per_s",
    "capture_cpu_us",
    "recvlogical_per_s",
    "pipeline_none_us",
    "pipeline_filter_us",
    "pipeline_mask_rename_us",
    "pipeline_python_us",
    "pipeline_dedupe_us",
    "debezium_noop_per_cpu_s",
    "debezium_publish_per_cpu_s",
    "capture_per_cpu_s",
    "debezium_publish_per_s",
    "deliver_pg_per_s",
    "deliver_elasticsearch_per_s",
    "elasticsearch_bulk_per_s",
    "webhook_requests_per_s",
    "webhook_changes_per_s",
    "ingest_per_s",
    "ingest_p99_ms",
    "ingest_cpu_us",
    "ingest_beside_per_s",
    "ingest_beside_p99_ms",
    "ingest_beside_cpu_us",
    "stream_p50_ms",
    "stream_p99_ms",
    "target_p50_ms",
    "target_p99_ms",
    "rss_capture_mb",
    "snapshot_decoded_per_s",
    "snapshot_per_s",
    "snapshot_cpu_us",
    "rss_snapshot_mb",
    "snapshot_stream_p99_ms",
    "rss_deliver_mb",
    "mysql_snapshot_decoded_per_s",
    "mysql_snapshot_decoded_cpu_us",
    "mysql_snapshot_per_s",
    "mysql_snapshot_cpu_us",
    "rss_mysql_snapshot_mb",
    "mysql_snapshot_stream_p99_ms",
    "mariadb_snapshot_decoded_per_s",
    "mariadb_snapshot_decoded_cpu_us",
    "mariadb_snapshot_per_s",
    "mariadb_snapshot_cpu_us",
    "rss_mariadb_snapshot_mb",
    "mariadb_snapshot_stream_p99_ms",
    "mysql_rows_per_s",
    "mysql_rows_cpu_us",
    "mysql_rows_per_cpu_s",
    "rss_mysql_rows_mb",
    "mysql_single_per_s",
    "mysql_single_cpu_us",
    "mysql_library_rows_per_s",
    "mysql_library_single_per_s",
    "mysql_debezium_per_s",
    "mysql_debezium_per_cpu_s",
    "mariadb_rows_per_s",
    "mariadb_rows_cpu_us",
    "mariadb_rows_per_cpu_s",
    "rss_mariadb_rows_mb",
    "mariadb_single_per_s",
    "mariadb_single_cpu_us",
    "mariadb_library_rows_per_s",
    "mariadb_library_single_per_s",
    "mariadb_raw_per_s",
    "rest_first_per_s",
    "rest_compare_per_s",
    "rest_compare_cpu_us",
    "rest_changed_s",
    "rss_rest_mb",
}


class TestPercentile:
    @pytest.mark.parametrize(
        ("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (0.991, 100), (1, 100)]
    )
    def test_is_the_nearest_rank(self, share: float, expected: int) -> None:
        assert percentile(range(1, 101), share) == expected

    def test_of_one_value_is_that_value(self) -> None:
        assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0

    @pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
    def test_refuses_what_has_no_answer(self, values: list[float], share: float) -> None:
        with pytest.raises(ValueError, match=r"percentile"):
            percentile(values, share)


class TestTarget:
    def test_an_absolute_bound(self) -> None:
        target = Target("<=", 20)
        assert target.met(20.0, {}) is True
        assert target.met(20.1, {}) is False

    def test_a_multiple_of_another_figure(self) -> None:
        target = Target(">=", 5, "other")
        assert target.met(50, {"other": 10}) is True
        assert target.met(49, {"other": 10}) is False

    def test_is_undecided_without_both_figures(self) -> None:
        assert Target(">=", 5, "other").met(50, {"other": None}) is None
        assert Target(">=", 5).met(None, {}) is None


def test_the_medians_are_taken_over_the_runs() -> None:
    samples: Samples = {}
    for value in (30_000.0, 10_000.0, 20_000.0):
        add(samples, {"capture_per_s": value})
    figures = medians(samples)
    assert figures["capture_per_s"] == 20_000
    assert figures["deliver_pg_per_s"] is None


def test_every_measure_has_a_key_of_its_own_and_targets_name_existing_ones() -> None:
    keys = [measure.key for measure in MEASURES]
    assert len(keys) == len(set(keys))
    assert {t.times for m in MEASURES for t in m.targets if t.times} <= set(keys)


class TestLatestJson:
    def test_has_exactly_the_published_keys(self) -> None:
        assert set(json.loads(latest_json({}))) == set(PUBLISHED) == KEYS

    def test_is_flat_and_null_where_nothing_was_measured(self) -> None:
        flat = json.loads(latest_json({"capture_cpu_us": [1.0, 3.0, 2.12345]}))
        assert flat.pop("capture_cpu_us") == 2.123
        assert set(flat.values()) == {None}

    def test_leaves_out_what_only_the_table_shows(self) -> None:
        assert "deliver_cpu_us" not in json.loads(latest_json({"deliver_cpu_us": [1.0]}))


class TestTable:
    def test_shows_median_spread_target_and_verdict(self) -> None:
        lines = table({"capture_cpu_us": [10.0, 12.0, 19.0]}, {}, []).splitlines()
        (line,) = [line for line in lines if line.startswith("capture: CPU of our process")]
        assert line.endswith(" met")
        assert "12.0" in line
        assert "10.0 … 19.0" in line
        assert "≤ 20" in line

    def test_says_how_many_times_another_figure_was_reached(self) -> None:
        samples = {
            "capture_per_cpu_s": [40_000.0],
            "debezium_publish_per_cpu_s": [10_000.0],
            "debezium_noop_per_cpu_s": [10_000.0],
        }
        lines = table(samples, {}, []).splitlines()
        (publish,) = [line for line in lines if "≥ 5 x debezium_publish_per_cpu_s" in line]
        (noop,) = [line for line in lines if "≥ 3 x debezium_noop_per_cpu_s" in line]
        assert publish.startswith("capture: changes a CPU second")
        assert publish.endswith("missed (4.0 x)")
        assert noop.endswith("met (4.0 x)")

    def test_gives_the_reason_for_what_is_missing(self) -> None:
        text = table({}, {"debezium-noop": "there is no Java"}, [("machine", "2 x fast")])
        assert "not measured: debezium-noop: there is no Java" in text
        assert "machine: 2 x fast" in text
