"""The PostgreSQL sink when things go wrong: each change counts once all the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from structlog.testing import capture_logs

from connectors.contracts.sink import Share
from connectors.errors import FatalError, FencedError, RetryableError
from connectors.postgres.sink import PostgresSink
from connectors.postgres.target import offsets
from connectors.postgres.target import session as target_session
from tests.contract.context import sink_context
from tests.contract.sink_log import failed_attempts
from tests.integration.postgres_rows import (
    SHARE,
    SUBJECT,
    Log,
    batch,
    deliver,
    items,
    query,
    sink,
    spec,
    stored,
)
from tests.integration.streams import until
from tests.integration.tcp_relay import TcpRelay

if TYPE_CHECKING:
    from connectors.contracts.sink import Claim
    from tests.servers.postgres import Database, PostgresFactory

pytestmark = pytest.mark.servers

# notes every row that is written, so that a change that counts twice is seen
AUDITED = (
    "CREATE TABLE items (id bigint PRIMARY KEY, a text, b text);"
    "CREATE TABLE audit (n bigserial, id bigint);"
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO audit (id) VALUES (NEW.id); RETURN NEW; END $$;"
    "CREATE TRIGGER note AFTER INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION note()"
)


def through(proxy: TcpRelay, dsn: str) -> str:
    return make_conninfo(dsn, host="127.0.0.1", hostaddr="127.0.0.1", port=proxy.port)


def port(dsn: str) -> int:
    return int(str(conninfo_to_dict(dsn)["port"]))


@pytest.mark.parametrize("lost", [b"COMMIT", b"BEGIN", b"waxtap.offsets AS o"])
def test_a_transaction_whose_answer_is_lost_counts_once(lost: bytes, database: Database) -> None:
    query(database, AUDITED)
    log = Log()
    with TcpRelay(port(database.dsn)) as proxy:
        to = sink(through(proxy, database.dsn))
        claim = to.claim(SHARE)
        with closing(to.open(claim)) as writer:
            for _ in range(10):
                proxy.lose_answer(lost)
                writer.write(batch(claim, log.put(log.sequence + 1)))
                writer.flush()
    assert proxy.lost >= 5  # prepared statements no longer name their text
    assert query(database, "SELECT count(*), count(DISTINCT id) FROM audit") == [(10, 10)]
    assert stored(database) == [(10,)]


def test_a_slow_commit_is_waited_for_before_its_outcome_is_read(database: Database) -> None:
    query(database, AUDITED)
    query(
        database,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    log = Log()
    with TcpRelay(port(database.dsn)) as proxy:
        to = sink(through(proxy, database.dsn))
        claim = to.claim(SHARE)
        with closing(to.open(claim)) as writer:
            for _ in range(3):
                proxy.lose_answer(b"COMMIT")
                writer.write(batch(claim, log.put(log.sequence + 1)))
                writer.flush()
    assert query(database, "SELECT count(*), count(DISTINCT id) FROM audit") == [(3, 3)]


@pytest.mark.parametrize("written", [False, True])
def test_a_target_that_has_lost_what_it_had_stored_is_noticed(
    written: bool, database: Database
) -> None:
    """As a standby that is promoted before it has everything, or one without durable commits."""
    log = Log()
    to = sink(database.dsn)
    deliver(to, [log.put(1), log.put(2)])
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        if written:
            writer.write(batch(claim, log.put(3)))
            writer.flush()
        query(
            database,
            "UPDATE waxtap.offsets SET seq = 1; SELECT pg_terminate_backend(pid)"
            " FROM pg_stat_activity WHERE application_name = 'waxtap/warehouse'",
        )
        writer.write(batch(claim, log.put(4)))
        with pytest.raises(FatalError, match="target_behind"):
            writer.flush()
    assert to.claim(SHARE).offsets == {SUBJECT: 1}


@pytest.mark.parametrize("seed", range(2))
def test_backends_ended_at_random_moments(seed: int, database: Database) -> None:
    query(database, AUDITED)
    random_ = random.Random(seed)
    done = threading.Event()

    def enemy() -> None:
        rows, patience = 0, 1.0
        with database.connect() as connection:
            while not done.wait(random_.uniform(0.005, 0.05) * patience):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'waxtap/warehouse'"
                )
                # On a busy machine a session would never live long enough for a transaction.
                found = connection.execute("SELECT count(*) FROM audit").fetchone()
                patience = 1.0 if found != (rows,) else patience * 1.2
                rows = int(str(found[0])) if found else 0

    to = sink(database.dsn)
    claim = to.claim(SHARE)
    thread = threading.Thread(target=enemy)
    thread.start()
    log = Log()
    try:
        with closing(to.open(claim)) as writer:
            for number in range(300):
                writer.write(batch(claim, log.put(2 * number), log.put(2 * number + 1)))
                if random_.random() < 0.2:
                    writer.flush()
            writer.flush()
    finally:
        done.set()
        thread.join(30)
    assert query(database, "SELECT count(*), count(DISTINCT id) FROM audit") == [(600, 600)]


ZOMBIE = """
import sys, msgspec
from contextlib import closing
from connectors.contracts.sink import Claim
from connectors.postgres.target import apply
from tests.contract.sink_log import failed_attempts
from tests.integration.postgres_rows import Log, batch, sink

dsn, claim = sys.argv[1], msgspec.json.decode(sys.argv[2], type=Claim)
original = apply.Applier.apply
def hang(self, session, steps):
    original(self, session, steps)
    print("holding", flush=True)
    sys.stdin.readline()
apply.Applier.apply = hang
log = Log()
writer = sink(dsn).open(claim)
writer.write(batch(claim, log.put(1, "zombie")))
try:
    writer.flush()
except Exception as error:
    print(type(error).__name__, flush=True)
else:
    print("stored", flush=True)
finally:
    writer.close()
"""


def test_a_stopped_writer_that_holds_locks_is_ended(database: Database) -> None:
    deliver(sink(database.dsn), [Log().put(7)])
    share = msgspec.structs.replace(SHARE, created="again")
    old = sink(database.dsn).claim(share)
    arguments = [sys.executable, "-c", ZOMBIE, database.dsn, msgspec.json.encode(old).decode()]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as zombie:
        assert zombie.stdin is not None
        assert zombie.stdout is not None
        try:
            assert zombie.stdout.readline() == "holding\n"
            os.kill(zombie.pid, signal.SIGSTOP)
            started = time.monotonic()
            new = sink(database.dsn).claim(share)
            with closing(sink(database.dsn).open(new)) as writer:
                writer.write(batch(new, Log().put(1, "new")))
                writer.flush()
            assert time.monotonic() - started < 10
            os.kill(zombie.pid, signal.SIGCONT)
            zombie.stdin.close()
            assert zombie.stdout.read().splitlines()[-1] == "FencedError"
        finally:
            zombie.kill()
    assert items(database) == [(1, "new", ""), (7, "", "")]


def test_a_claim_waits_for_the_commit_under_way(database: Database) -> None:
    """Also where the older writer's process cannot be ended."""
    to = sink(database.dsn)
    old = to.claim(SHARE)
    newer: list[Claim] = []
    with closing(target_session.connect(database.dsn, "warehouse")) as writer:
        writer.execute(b"BEGIN")
        offsets.hold(writer, old)
        thread = threading.Thread(target=lambda: newer.append(to.claim(SHARE)))
        thread.start()
        until(lambda: query(database, "SELECT 1 FROM pg_locks WHERE NOT granted"))
        offsets.store(writer, old, 5)
        writer.execute(b"COMMIT")
        thread.join(60)
        assert newer[0].offsets == {SUBJECT: 5}
        writer.execute(b"BEGIN")
        with pytest.raises(FencedError):
            offsets.hold(writer, old)


def test_the_process_of_another_session_is_never_ended(database: Database) -> None:
    to = sink(database.dsn)
    deliver(to, [Log().put(1)])
    with database.connect() as bystander:
        pid = bystander.info.backend_pid
        # the pid was given to another process: its start differs
        query(database, f"UPDATE waxtap.claims SET backend_pid = {pid}")
        to.claim(SHARE)
        assert bystander.execute("SELECT 1").fetchone() == (1,)


def test_concurrent_claims_get_epochs_of_their_own(database: Database) -> None:
    epochs: list[int] = []

    def claim() -> None:
        epochs.append(sink(database.dsn).claim(SHARE).epoch)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(epochs) == list(range(1, 9))


def test_offsets_never_leave_their_rows(database: Database) -> None:
    """Whatever moment is looked at, rows and offset agree."""
    log = Log()
    to = sink(database.dsn)
    claim = to.claim(SHARE)
    deliver_done = threading.Event()
    seen: list[tuple[object, ...]] = []

    def watch() -> None:
        with database.connect() as connection:
            while not deliver_done.is_set():
                seen.extend(
                    connection.execute(
                        "SELECT (SELECT count(*) FROM items), seq FROM waxtap.offsets"
                    ).fetchall()
                )

    with closing(to.open(claim)) as writer:
        writer.write(batch(claim, log.put(1)))
        writer.flush()
        thread = threading.Thread(target=watch)
        thread.start()
        until(lambda: seen)
        for number in range(2, 400):
            writer.write(batch(claim, log.put(number)))
            if number % 10 == 0:
                writer.flush()
        writer.flush()
        deliver_done.set()
        thread.join(30)
    assert seen
    assert all(rows == sequence for rows, sequence in seen)


def test_deadlocks_are_tried_again(database: Database) -> None:
    """Two streams that write the same rows in opposite order."""
    deliver(sink(database.dsn), [Log().put(number) for number in range(200)])
    other = Share("warehouse", "CDC_other", "x", (SUBJECT,))
    errors: list[BaseException] = []

    def run(share: Share, numbers: list[int]) -> None:
        try:
            to = sink(database.dsn)
            claim = to.claim(share)
            log = Log(1000)
            with closing(to.open(claim)) as writer:
                for _ in range(30):
                    writer.write(batch(claim, *(log.put(number) for number in numbers)))
                    writer.flush()
        except Exception as error:  # noqa: BLE001 - a thread's error is the test's
            errors.append(error)

    forward = list(range(200))
    threads = [
        threading.Thread(target=run, args=(SHARE, forward)),
        threading.Thread(target=run, args=(other, forward[::-1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert query(database, "SELECT count(*) FROM items") == [(200,)]


def test_a_restarted_server_is_waited_for_and_told_of_once(
    postgres_factory: PostgresFactory,
) -> None:
    server = postgres_factory()
    to = sink(server.dsn())
    claim = to.claim(SHARE)
    log = Log()
    before = failed_attempts(SHARE)
    with capture_logs() as logs, closing(to.open(claim)) as writer:
        writer.write(batch(claim, log.put(1)))
        writer.flush()
        server.kill()
        writer.write(batch(claim, log.put(2)))
        until(lambda: failed_attempts(SHARE) > before + 2)
        server.start()
        writer.flush()
        writer.write(batch(claim, log.put(3)))
        writer.flush()
    assert [entry["event"] for entry in logs] == ["target_is_in_trouble", "target_is_back"]
    assert logs[0]["log_level"] == "warning"
    assert logs[1]["attempts"] > 1
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (3,)


def test_waiting_ends_when_the_flow_stops(postgres_factory: PostgresFactory) -> None:
    server = postgres_factory()
    stop = threading.Event()
    to = PostgresSink("warehouse", spec(server.dsn()), sink_context(stop))
    claim = to.claim(SHARE)
    with closing(to.open(claim)) as writer:
        server.kill()
        writer.write(batch(claim, Log().put(1)))
        timer = threading.Timer(0.3, stop.set)
        timer.start()
        with pytest.raises(RetryableError) as caught:
            writer.flush()
        timer.join()
    assert caught.value.code == "postgres.interrupted"


def test_a_batch_of_an_older_claim_is_refused(database: Database) -> None:
    to = sink(database.dsn)
    old, new = to.claim(SHARE), to.claim(SHARE)
    with closing(to.open(new)) as writer, pytest.raises(FencedError):
        writer.write(batch(old, Log().put(1)))
