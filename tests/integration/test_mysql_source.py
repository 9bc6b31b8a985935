"""The MySQL and MariaDB sources: failover, silence, security, lost logs."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pymysql
import pytest
from msgspec.json import decode

from connectors import registry
from connectors.contracts.changes import DDL
from connectors.contracts.source import Checkpoint
from connectors.errors import ConfigError, GapError, RetryableError
from connectors.mysql.server import connect as connect_source
from connectors.mysql.server import rows as query
from connectors.mysql.source import MysqlSource
from tests.contract.context import source_context
from tests.integration.binlog_capture import PATIENCE, Log, after
from tests.integration.streams import until
from tests.servers.binlog import purge, rows, run

if TYPE_CHECKING:
    from connectors.contracts.changes import Change
    from connectors.contracts.source import Chunk, SourceReader
    from control.servers.binlog_server import BinlogServer
    from tests.servers.binlog import BinlogFactory, Kind
    from tests.servers.certificate import Certificate

pytestmark = pytest.mark.servers


@pytest.fixture
def log(binlog_kind: Kind) -> Log:
    return Log(binlog_kind.type, binlog_kind.server)


def read(reader: SourceReader, count: int) -> list[Chunk]:
    """Chunks until so many changes have come."""
    chunks: list[Chunk] = []
    deadline = time.monotonic() + PATIENCE
    while sum(len(chunk.changes) for chunk in chunks) < count:
        assert time.monotonic() < deadline, f"less than {count} changes in {PATIENCE} s"
        if (chunk := reader.read()) is not None:
            chunks.append(chunk)
    return chunks


def ids(chunks: list[Chunk]) -> list[object]:
    return [after(change)["id"] for chunk in chunks for change in chunk.changes]


def replicate(kind: Kind, primary: BinlogServer, replica: BinlogServer) -> None:
    """Let one server follow another one by GTID."""
    if kind.mariadb:
        run(
            replica,
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={primary.port},"
            " MASTER_USER='waxtap', MASTER_USE_GTID=slave_pos",
            "START SLAVE",
        )
    else:
        run(
            replica,
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={primary.port},"
            " SOURCE_USER='waxtap', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
            "START REPLICA",
        )


def test_another_server_of_the_topology_goes_on_exactly(binlog_kind: Kind) -> None:
    updates = "log-slave-updates" if binlog_kind.mariadb else "log-replica-updates"
    first = binlog_kind.factory({"server-id": "11"})
    second = binlog_kind.factory({"server-id": "12", updates: "ON", "log-bin": "other"})
    replicate(binlog_kind, first, second)
    log = Log(binlog_kind.type, first)
    log.run("CREATE TABLE t (id int PRIMARY KEY)")
    values = ", ".join(f"({number})" for number in range(1, 2501))
    log.run("INSERT INTO t VALUES (0)", f"INSERT INTO t VALUES {values}")
    dsn = f"mysql://waxtap@127.0.0.1:{first.port},127.0.0.1:{second.port}/"
    with closing(log.source(dsn=dsn).open(log.begun)) as reader:
        # the large transaction is stored in part when the first server dies
        chunks = read(reader, 1001)
        until(lambda: _count(second, log.name) == 2501)
        first.kill()
        run(second, "STOP SLAVE" if binlog_kind.mariadb else "STOP REPLICA")
        run(second, "INSERT INTO t VALUES (2501)", database=log.name)
        have = sum(len(chunk.changes) for chunk in chunks)
        chunks += read(reader, 2502 - have)
    assert ids(chunks) == list(range(2502))
    positions = [change.position for chunk in chunks for change in chunk.changes]
    assert positions == sorted(positions)
    assert positions[-1].startswith("0001-")
    # a cut in the middle of a chunk of the first server is found again on the second
    inside = next(chunk for chunk in chunks if len(chunk.changes) > 500)
    cut = Checkpoint(inside.changes[300].position, inside.resume)
    done = int(str(after(inside.changes[300])["id"]))
    source = log.source(dsn=second.dsn())
    with closing(source.open(cut)) as reader:
        assert ids(read(reader, 2501 - done)) == list(range(done + 1, 2502))


def test_domains_may_stand_in_another_order_on_another_server(
    mariadb_factory: BinlogFactory,
) -> None:
    first, second = (mariadb_factory({"server-id": number}) for number in ("31", "32"))
    log = Log("mariadb", first)

    def commit(server: BinlogServer, domain: int, number: int, statement: str) -> None:
        database = None if statement.startswith("CREATE DATABASE") else log.name
        gtid = (f"SET gtid_domain_id = {domain}, server_id = 31", f"SET gtid_seq_no = {number}")
        run(server, *gtid, statement, database=database)

    commit(second, 0, 1, f"CREATE DATABASE {log.name}")
    commit(second, 0, 2, "CREATE TABLE the_end (id int PRIMARY KEY)")
    for server in (first, second):
        commit(server, 0, 3, "CREATE TABLE t (id int PRIMARY KEY)")
    for number in range(1, 4):
        commit(first, 0, 3 + number, f"INSERT INTO t VALUES ({number})")
        commit(first, 7, number, f"INSERT INTO t VALUES ({number + 10}), ({number + 20})")
        commit(second, 0, 3 + number, f"INSERT INTO t VALUES ({number})")
    commit(first, 0, 7, "INSERT INTO t VALUES (99)")
    with closing(log.source().open(log.begun)) as reader:
        cuts = [
            Checkpoint(change.position, chunk.resume)
            for chunk in read(reader, 10)
            for change in chunk.changes
        ]
    elsewhere = log.source(dsn=second.dsn())
    with pytest.raises(GapError, match="7-31-1") as caught:
        elsewhere.open(cuts[1])  # of which the first row is stored
    assert caught.value.code == "mysql.server_behind"
    for number in range(1, 4):
        commit(second, 7, number, f"INSERT INTO t VALUES ({number + 10}), ({number + 20})")
    commit(second, 0, 7, "INSERT INTO t VALUES (99)")
    order = [1, 2, 3, 11, 21, 12, 22, 13, 23, 99]
    for place, stored in ((0, [1]), (1, [1, 11]), (5, [1, 11, 21, 2, 12, 22])):
        rest = [number for number in order if number not in stored]
        with closing(elsewhere.open(cuts[place])) as reader:
            chunks = read(reader, len(rest))
        assert ids(chunks) == rest
        # a further restart, on either server, before what is stored in part was passed
        again = Checkpoint(chunks[0].changes[0].position, chunks[0].resume)
        for source in (elsewhere, log.source()):
            with closing(source.open(again)) as reader:
                found = ids(read(reader, len(rest) - 1))
            assert sorted(map(str, found)) == sorted(map(str, rest[1:]))
            assert found[-1] == 99


def _count(server: BinlogServer, database: str) -> int:
    try:
        ((count,),) = rows(server, f"SELECT COUNT(*) FROM {database}.t")
    except pymysql.err.ProgrammingError:
        return 0  # it has yet to replicate the table
    return int(str(count))


def test_a_server_that_lacks_stored_transactions_is_a_gap(binlog_kind: Kind, log: Log) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with closing(log.source().open(log.begun)) as reader:
        chunk = read(reader, 1)[-1]
    stranger = binlog_kind.factory({"server-id": "21"})
    with pytest.raises(GapError) as caught:
        log.source(dsn=stranger.dsn()).open(chunk.checkpoint)
    assert caught.value.code == "mysql.server_behind"


def test_a_gap_can_be_accepted(binlog_kind: Kind) -> None:
    log = Log(binlog_kind.type, binlog_kind.factory())
    log.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with closing(log.source().open(log.begun)) as reader:
        before = read(reader, 1)[-1]
    log.run("INSERT INTO t VALUES (2)")
    purge(log.server)
    log.run("INSERT INTO t VALUES (3)")
    with pytest.raises(GapError) as caught:
        log.source().open(before.checkpoint)
    assert caught.value.code == "mysql.binlog_purged"
    token = caught.value.cure.split("'")[1]
    source = registry.source(log.type, log.name, log.spec(), (token,), source_context())
    with closing(source.open(before.checkpoint)) as reader:
        chunks = read(reader, 1)
    assert ids(chunks) == [3]
    assert chunks[-1].changes[0].position > before.checkpoint.position


@pytest.mark.slow
def test_a_silent_server_is_noticed_and_the_log_goes_on(binlog_kind: Kind) -> None:
    log = Log(binlog_kind.type, binlog_kind.factory())
    log.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with closing(log.source().open(log.begun)) as reader:
        chunks = read(reader, 1)
        log.server.suspend()
        repeated = None
        began = time.monotonic()
        while repeated is None:
            assert time.monotonic() - began < PATIENCE, "nobody noticed"
            repeated = reader.read()
        assert time.monotonic() - began < 20
        assert repeated.checkpoint == chunks[-1].checkpoint
        log.server.resume()
        log.run("INSERT INTO t VALUES (2)")
        assert ids(read(reader, 1)) == [2]


def test_a_killed_session_is_opened_again(log: Log) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with closing(log.source().open(log.begun)) as reader:
        chunks = read(reader, 1)
        query = "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
        for (session,) in rows(log.server, query):
            run(log.server, f"KILL {session}")
        log.run("INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)")
        chunks += read(reader, 2)
    assert ids(chunks) == [1, 2, 3]


def test_transactions_without_captured_changes_move_the_checkpoint(log: Log) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY)")
    source = MysqlSource(log.name, log.spec(tables=["nothing.*"]), checkpoint_interval=0.05)
    with closing(source.open(None)) as reader:
        anchor = reader.read()
        assert anchor is not None
        log.run("INSERT INTO t VALUES (1)")
        deadline = time.monotonic() + PATIENCE
        chunk = None
        while chunk is None:
            assert time.monotonic() < deadline
            chunk = reader.read()
    assert chunk.changes == []
    assert chunk.checkpoint.state["gtids"] != anchor.checkpoint.state["gtids"]


def test_tls_and_logins(binlog_kind: Kind, certificate: Certificate, log: Log) -> None:
    server = binlog_kind.factory()
    key = server.put_file("key.pem", certificate.key.read_bytes())
    cert = server.put_file("cert.pem", certificate.certificate.read_bytes())
    server.restart({"ssl-key": str(key), "ssl-cert": str(cert), "ssl-ca": str(cert)})
    plugin = "mysql_native_password" if binlog_kind.mariadb else "caching_sha2_password"
    named = (
        f" VIA {plugin} USING PASSWORD('s3cret')"
        if binlog_kind.mariadb
        else (f" WITH {plugin} BY 's3cret'")
    )
    for user, need in (("secure", "SSL"), ("plain", "NONE")):
        run(
            server,
            f"CREATE USER '{user}'@'%' IDENTIFIED{named} REQUIRE {need}",
            f"GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{user}'@'%'",
        )
    secure = Log(binlog_kind.type, server)
    secure.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    trusted = f"tls=verify-full&ca={certificate.certificate}"
    ways = [("secure", trusted), ("secure", "tls=required"), ("plain", "tls=disabled")]
    for user, options in [*ways, ("plain", "tls=disabled")]:
        dsn = server.dsn(user=user, password="s3cret", options=options)
        with closing(secure.source(dsn=dsn).open(secure.begun)) as reader:
            assert ids(read(reader, 1)) == [1]
    for user, options, code in (
        ("secure", "tls=disabled", "mysql.login"),
        ("secure", "tls=verify-full", "mysql.tls"),
        ("secure", "tls=verify-full&ca=/nowhere", "mysql.tls_files"),
    ):
        dsn = server.dsn(user=user, password="s3cret", options=options)
        with pytest.raises(ConfigError) as caught:
            secure.source(dsn=dsn).open(secure.begun)
        assert caught.value.code == code
        assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"mysql\.login"):
        secure.source(dsn=server.dsn(user="plain", password="wrong")).open(None)


def test_each_setting_that_is_wrong_has_its_own_error(binlog_kind: Kind, log: Log) -> None:
    other = "mysql" if binlog_kind.mariadb else "mariadb"
    spec = registry.source_spec(other).model_validate({"type": other, "dsn": log.server.dsn()})
    with pytest.raises(ConfigError, match=f"type: {binlog_kind.type}"):
        registry.source(other, "x", spec, (), source_context()).open(None)
    with pytest.raises(ConfigError, match="server_id"):
        log.source(server_id=1).open(None)
    with closing(log.source(server_id=77).open(None)):
        other_source = Log(log.type, log.server)
        with pytest.raises(ConfigError, match=rf"a replica of the server \(waxtap/{log.name}\)"):
            other_source.source(server_id=77).open(None)
    user, right = f"u{log.name}", "BINLOG MONITOR" if binlog_kind.mariadb else "REPLICATION CLIENT"
    run(log.server, f"CREATE USER '{user}'@'%'", f"GRANT REPLICATION SLAVE ON *.* TO '{user}'@'%'")
    with pytest.raises(ConfigError, match=f"GRANT {right}"):
        log.source(dsn=log.server.dsn(user=user)).open(None)
    server = binlog_kind.factory({"log-bin-trust-function-creators": "ON"})
    settings = {"binlog_format": ("STATEMENT", "ROW"), "binlog_row_metadata": ("MINIMAL", "FULL")}
    if not binlog_kind.mariadb:
        settings["binlog_row_value_options"] = ("PARTIAL_JSON", "")
        settings["gtid_mode"] = ("ON_PERMISSIVE", "ON")
    for name, (bad, good) in settings.items():
        run(server, f"SET GLOBAL {name} = '{bad}'")
        with pytest.raises(ConfigError, match=rf"SET (GLOBAL|PERSIST) {name} = '?{good}"):
            log.source(dsn=server.dsn()).open(None)
        run(server, f"SET GLOBAL {name} = '{good}'")
    log.source(dsn=server.dsn()).open(None).close()
    server.restart({"log-bin": None})
    with pytest.raises(ConfigError, match="log_bin"):
        log.source(dsn=server.dsn()).open(None)


def test_a_server_that_is_away_is_waited_for(binlog_kind: Kind) -> None:
    server = binlog_kind.factory()
    log = Log(binlog_kind.type, server)
    server.kill()
    with pytest.raises(RetryableError):
        log.source().open(log.begun)
    server.start()
    log.source().open(log.begun).close()


def test_a_host_that_takes_connections_and_says_nothing_is_passed_over(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    monkeypatch.setattr("connectors.mysql.server.CONNECT_TIMEOUT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        hosts = f"127.0.0.1:{frozen.getsockname()[1]},127.0.0.1:{log.server.port}"
        began = time.monotonic()
        with closing(log.source(dsn=f"mysql://waxtap@{hosts}/").open(log.begun)) as reader:
            assert time.monotonic() - began < 10
            assert ids(read(reader, 1)) == [1]
        # a query may take longer than a login
        with closing(connect_source(log.settings().dsn, log.name)) as connection:
            assert query(connection, "SELECT SLEEP(1.5)") == [(0,)]


def test_other_tables_are_not_decoded(log: Log) -> None:
    log.run(
        "CREATE TABLE `odd table` (id int PRIMARY KEY)",
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO `odd table` VALUES (1)",
        "INSERT INTO t VALUES (2)",
    )
    with closing(log.source(tables=[f"{log.name}.`odd table`"]).open(log.begun)) as reader:
        # the state tells other patterns than before, and no transaction is stored in part
        chunks = read(reader, 1)
        assert ids(chunks) == [1]
        log.run("INSERT INTO t VALUES (3)", "INSERT INTO `odd table` VALUES (4)")
        more = read(reader, 1)
    changes: list[Change] = [change for chunk in more for change in chunk.changes]
    assert [after(change)["id"] for change in changes] == [4]


def test_ddl_statements_are_told_once_whenever_the_source_is_asked_to(log: Log) -> None:
    log.run(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE u (id int PRIMARY KEY) SELECT 2 AS id UNION SELECT 3",
        "TRUNCATE t",
        "CREATE INDEX i ON t (id)",
        "CREATE TEMPORARY TABLE v (id int)",
        "RENAME TABLE u TO w",
        "DROP TABLE t, w",
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (4)",
    )
    telling, silent = source_context(ddl=True), source_context()
    with closing(MysqlSource(log.name, log.spec(), (), telling).open(log.begun)) as reader:
        (chunk,) = read(reader, 12)
    every = chunk.changes
    ops = "".join({DDL: "#"}.get(change.op, change.op) for change in every)
    assert ops == "#c#cc#t###" + "#c"
    kinds = [decode(change.envelope)["ddl"]["kind"] for change in every if change.op == DDL]
    assert kinds == ["create", "create", "truncate", "alter", "rename", "drop", "create"]
    positions = [change.position for change in every]
    assert positions == sorted(positions)
    for context in (telling, silent):
        source = MysqlSource(log.name, log.spec(), (), context)
        for position in positions[:-1]:
            rest = [each for each in every if each.position > position]
            rest = [each for each in rest if context.ddl or each.op != DDL]
            with closing(source.open(Checkpoint(position, chunk.resume))) as reader:
                (again,) = read(reader, len(rest))
            found = [(change.op, change.position) for change in again.changes]
            assert found == [(change.op, change.position) for change in rest]
