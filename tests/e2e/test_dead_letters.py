"""Rows that a target refuses: the rest goes on, and a replay brings them back in order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.e2e.flows import SupervisedFlow, await_capture, both
from tests.e2e.items import agree, insert, stop_cleanly, wait_for
from tests.e2e.letters import held, letters, replayed, waxtap

if TYPE_CHECKING:
    from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.servers

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, value text)"
# The target alone has the rule, and notes what is written, so that a change that counts twice or
# in the wrong order is seen.
RULES = (
    "ALTER TABLE items ADD CONSTRAINT good CHECK (value NOT LIKE 'bad%');"
    "CREATE TABLE audit (n bigserial, id bigint, value text);"
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO audit (id, value) VALUES (NEW.id, NEW.value); RETURN NEW; END $$;"
    "CREATE TRIGGER note AFTER INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION note()"
)


def target(deployment: Deployment, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(deployment.target_dsn) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def test_one_bad_row_of_a_thousand_stops_nothing(deployment: Deployment) -> None:
    target(deployment, TABLE)
    target(deployment, RULES)
    with both(deployment) as (capture, deliver):
        deployment.run(
            "INSERT INTO items SELECT i, CASE i WHEN 500 THEN 'bad' ELSE 'good' END"
            " FROM generate_series(1, 1000) i"
        )
        wait_for(lambda: target(deployment, "SELECT count(*) FROM items") == [(999,)], "999 rows")
        deployment.run("UPDATE items SET value = 'better' WHERE id = 500")
        deployment.run("UPDATE items SET id = 2000 WHERE id = 500")
        deployment.run("UPDATE items SET value = 'bad still' WHERE id = 2000")
        insert(deployment, 3001, 3001)
        wait_for(
            lambda: bool(target(deployment, "SELECT 1 FROM items WHERE id = 3001")), "row 3001"
        )

        found = letters(deployment)
        assert [(each["state"], each["key"]) for each in found] == [
            ("failed", {"id": 500}),
            ("parked", {"id": 500}),
            ("parked", {"id": 2000}),
            ("parked", {"id": 2000}),
        ]
        assert found[0]["code"] == "postgres.constraint"
        assert "good" in str(found[0]["error"])
        shown = json.loads(waxtap(deployment, "show", "--key", "500", "-o", "json").stdout)
        assert shown[0]["change"]["after"] == {"id": 500, "value": "bad"}
        assert 'key        {"id":500}\n' in waxtap(deployment, "show", "--key", "500").stdout
        assert "[postgres.constraint]" in waxtap(deployment, "list", "--key", "500").stdout

        told = replayed(deployment, "--all")
        assert (told["replayed"], told["failed"], told["waiting"]) == (0, 1, 3)
        assert letters(deployment)[0]["attempts"] == 2

        target(deployment, "ALTER TABLE items DROP CONSTRAINT good")
        told = replayed(deployment, "--key", "2000")
        assert (told["chosen"], told["replayed"], told["failed"]) == (2, 4, 0)
        insert(deployment, 3002, 3002)
        agree(deployment)
        assert letters(deployment) == []
        noted = target(deployment, "SELECT value FROM audit WHERE id IN (500, 2000) ORDER BY n")
        assert noted == [("bad still",)]
        stop_cleanly(capture, deliver)


def test_a_discarded_letter_is_gone_and_what_waits_behind_it_stays(deployment: Deployment) -> None:
    target(deployment, TABLE)
    target(deployment, RULES)
    with (
        SupervisedFlow(deployment, "capture/shop"),
        SupervisedFlow(deployment, "deliver/warehouse") as deliver,
    ):
        await_capture(deployment)
        deployment.run("INSERT INTO items VALUES (1, 'bad'), (2, 'good')")
        wait_for(lambda: held(deployment) == 1, "a letter")
        deployment.run("UPDATE items SET value = 'good' WHERE id = 1")
        wait_for(lambda: held(deployment) == 2, "two letters")

        unsure = waxtap(deployment, "discard", "--key", "1")
        assert unsure.returncode == 2
        assert "--yes" in unsure.stderr
        assert waxtap(deployment, "discard", "--yes").returncode == 2  # nothing is chosen

        head = str(letters(deployment)[0]["id"])
        done = waxtap(deployment, "discard", "--from", head, "--to", head, "--yes", "--wait", "120")
        assert done.returncode == 0, done.stderr
        assert [each["state"] for each in letters(deployment)] == ["parked"]
        assert target(deployment, "SELECT id FROM items") == [(2,)]

        deliver.terminate()
        deployment.run("UPDATE items SET value = 'last' WHERE id = 1")
        wait_for(lambda: held(deployment) == 2, "a letter more")
        assert replayed(deployment, "--all")["replayed"] == 2
        agree(deployment)


def test_a_request_waits_for_a_flow_that_does_not_run(deployment: Deployment) -> None:
    target(deployment, TABLE)
    target(deployment, RULES)
    with SupervisedFlow(deployment, "capture/shop"):
        with SupervisedFlow(deployment, "deliver/warehouse"):
            await_capture(deployment)
            deployment.run("INSERT INTO items VALUES (1, 'bad'), (2, 'good')")
            wait_for(lambda: held(deployment) == 1, "a letter")
        target(deployment, "ALTER TABLE items DROP CONSTRAINT good")
        asked = waxtap(deployment, "replay", "--all", "--wait", "0.2")
        assert asked.returncode == 3
        assert "waits for deliver/warehouse" in asked.stderr
        with SupervisedFlow(deployment, "deliver/warehouse"):
            agree(deployment)
            wait_for(lambda: held(deployment) == 0, "no letter")


def test_nothing_is_lost_or_reordered_when_the_flow_is_killed(deployment: Deployment) -> None:
    target(deployment, TABLE)
    target(deployment, RULES)
    with both(deployment) as (capture, deliver):
        for turn in range(6):
            # Counted before anything is written: all of its letters may be there soon after.
            seen = held(deployment)
            # Of 300 rows 30 are bad at first; each is written five times, now and then badly, and
            # the last time in any case: what lies before it in a batch never gets to the target.
            for version in range(5):
                deployment.run(
                    "INSERT INTO items SELECT i, CASE WHEN i %% 10 = %s AND %s IN (0, 4)"
                    " THEN 'bad: ' ELSE 'good ' END || %s FROM generate_series(1, 300) i"
                    " ON CONFLICT (id) DO UPDATE SET value = EXCLUDED.value",
                    turn,
                    version,
                    10 + turn * 10 + version,
                )
            if turn == 3:
                deployment.run("DELETE FROM items WHERE id %% 7 = %s", 0)
            wait_for(lambda seen=seen: held(deployment) > seen, "a letter more")  # type: ignore[misc]
            deliver.kill()
        end = deployment.stream_sequence
        wait_for(lambda: deployment.delivered_sequence() + 1 >= end(), "the end", 120)
        seen = held(deployment)
        assert seen > 100
        target(deployment, "ALTER TABLE items DROP CONSTRAINT good")
        assert waxtap(deployment, "replay", "--all", "--wait", "0.01").returncode in (0, 3)
        wait_for(lambda: held(deployment) < seen, "a letter less", 120)
        deliver.kill()
        deployment.run("UPDATE items SET value = value || '+' WHERE id %% 10 = %s", 3)
        # The request that was cut short is carried out again; what was parked since needs its own.
        wait_for(lambda: held(deployment) <= 30, "hardly a letter", 120)
        wait_for(
            lambda: replayed(deployment, "--all")["failed"] == 0 and held(deployment) == 0,
            "no letter",
            120,
        )
        agree(deployment)
        assert not capture.unasked
        assert not deliver.unasked
    # A row's versions came to the target in their order, none of them twice.
    back = (
        "SELECT id, value, before FROM (SELECT n, id, value,"
        " lag(value) OVER (PARTITION BY id ORDER BY n) AS before FROM audit) AS versions"
        " WHERE ltrim(value, 'badgo: ') <= ltrim(before, 'badgo: ') LIMIT 5"
    )
    assert target(deployment, back) == []
