"""Whether a server still has, and has already, what follows the place where a source goes on."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from connectors.errors import FatalError, GapError, RetryableError
from connectors.mysql.binlog.gtids import MariadbGtids, MysqlGtids, parse_gtid_text
from connectors.mysql.binlog.progress import Resume, is_behind
from connectors.mysql.server import Connection, rows
from connectors.mysql.setup.preflight import is_replica, log_status
from connectors.mysql.setup.settings import gap_token
from connectors.snapshot.progress import STATE, Progress

if TYPE_CHECKING:
    from connectors.mysql.setup.preflight import Server
    from connectors.mysql.setup.settings import Settings

_NEXT = re.compile(r"GTID_NEXT\s*=\s*'([^']+)'")


def beginning(connection: Connection, server: Server, settings: Settings) -> Resume:
    """Where a source begins that has captured nothing yet: at the end of the log.

    Raises:
        ConfigError: `mysql.monitor_right`.
        RetryableError: The connection broke.
    """
    log_status(connection, server)
    return Resume(
        server=server.identity,
        generation=0,
        file="",
        offset=0,
        gtids=executed(connection, server),
        tables=settings.tables,
        more={STATE: Progress().encoded} if settings.snapshot != "never" else {},
    )


def executed(connection: Connection, server: Server) -> str:
    """The GTIDs of everything that the server's log holds or has held.

    Raises:
        RetryableError: The connection broke.
    """
    variable = "gtid_binlog_pos" if server.mariadb else "gtid_executed"
    ((gtids,),) = rows(connection, f"SELECT @@GLOBAL.{variable}")
    return str(MariadbGtids(str(gtids)) if server.mariadb else MysqlGtids(str(gtids)))


def generation(connection: Connection, server: Server, resume: Resume) -> int:
    """The generation of this server's positions: a new one if they might not follow the others.

    Raises:
        ConfigError: `mysql.monitor_right`.
        RetryableError: The connection broke.
    """
    file, _ = log_status(connection, server)
    if server.identity != resume.server or (resume.file and is_behind(file, resume.file)):
        return resume.generation + 1
    return resume.generation


def check(connection: Connection, server: Server, settings: Settings, resume: Resume) -> Resume:
    """Check that the server has everything behind a place, and nothing of before is unknown to it.

    Returns:
        From where to go on: the same place, or one behind a gap that the user accepts.

    Raises:
        GapError: `mysql.binlog_purged` or `mysql.server_behind`.
        RetryableError: `mysql.server_lags` or `mysql.not_committed`, or the connection broke.
    """
    unknown = (_unknown_mariadb if server.mariadb else _unknown_mysql)(connection, resume)
    if unknown:
        if is_replica(connection, server):
            raise RetryableError(
                "mysql.server_lags",
                f"it is a replica that has yet to replicate {unknown}",
                where=server.where,
            )
        if not server.mariadb and _is_logged(connection, server, resume, unknown):
            raise RetryableError(
                "mysql.not_committed",
                f"the server's log holds transactions that are not committed yet: {unknown}",
                where=server.where,
                cure="if this lasts, see whether commits wait for a semi-synchronous replica",
            )
        raise GapError(
            "mysql.server_behind",
            f"the stream holds transactions that the server does not know: {unknown}; it was"
            " restored from a backup or reset, a replica that lagged behind took over, or it is"
            " another server",
            where=server.where,
            cure="point the DSN at a server of the same topology that has them, or give the source"
            " a new name to start anew",
        )
    missing, behind = (_missing_mariadb if server.mariadb else _missing_mysql)(connection, resume)
    if not missing:
        return resume
    if settings.accepts_gap(resume):
        gone = (MariadbGtids if server.mariadb else MysqlGtids)(behind)
        partial = {gtid: count for gtid, count in resume.partial.items() if gtid not in gone}
        return replace(
            resume,
            gtids=behind,
            held={},
            done=(),
            partial=partial,
            generation=resume.generation + 1,
        )
    token = gap_token(settings.source, resume)
    raise GapError(
        "mysql.binlog_purged",
        f"the server has removed log files that are needed: the transactions {missing} are gone",
        where=server.where,
        cure=f"go on without them with `accept: [{token!r}]` in the source; a longer"
        " binlog_expire_logs_seconds prevents a repetition",
    )


def _unknown_mysql(connection: Connection, resume: Resume) -> str:
    ((text,),) = rows(
        connection,
        "SELECT GTID_SUBTRACT(%s, @@GLOBAL.gtid_executed)",
        str(resume.stored(mariadb=False)),
    )
    return "".join(str(text).split())


def _is_logged(connection: Connection, server: Server, resume: Resume, unknown: str) -> bool:
    """Whether the log has one of these transactions where we have read it.

    A commit that waits for a semi-synchronous replica is in the log, but not in `gtid_executed`.
    """
    if server.identity != resume.server or not resume.file:
        return False
    try:
        query = "SHOW BINLOG EVENTS IN %s FROM %s LIMIT 1"
        found = rows(connection, query, resume.file, resume.offset)
    except FatalError:
        # There is no such file, or no event begins there.
        return False
    match = _NEXT.search(str(found[0][5])) if found else None
    return match is not None and parse_gtid_text(match[1]) in MysqlGtids(unknown)


def _missing_mysql(connection: Connection, resume: Resume) -> tuple[str, str]:
    start = resume.start(mariadb=False)
    ((text, purged),) = rows(
        connection,
        "SELECT GTID_SUBTRACT(@@GLOBAL.gtid_purged, %s), @@GLOBAL.gtid_purged",
        str(start),
    )
    return "".join(str(text).split()), str(MysqlGtids(f"{start},{purged}"))


def _unknown_mariadb(connection: Connection, resume: Resume) -> str:
    """Each server's last transaction is known for each domain (`gtid_binlog_state`)."""
    ((state,),) = rows(connection, "SELECT @@GLOBAL.gtid_binlog_state")
    known: dict[str, int] = {}
    for part in str(state).split(","):
        source, _, number = part.strip().rpartition("-")
        known[f"{source}-"] = int(number or "0")
    ours = MariadbGtids(str(resume.stored(mariadb=True))).domains.values()
    return ",".join(
        f"{gtid.source}{gtid.number}" for gtid in ours if known.get(gtid.source, 0) < gtid.number
    )


def _missing_mariadb(connection: Connection, resume: Resume) -> tuple[str, str]:
    (first, *_), *_ = rows(connection, "SHOW BINARY LOGS")
    ((text,),) = rows(connection, "SELECT BINLOG_GTID_POS(%s, 4)", str(first))
    start = MariadbGtids(str(resume.start(mariadb=True)))
    behind = MariadbGtids(str(resume.seen(mariadb=True)))
    missing = []
    for gtid in MariadbGtids(str(text or "")).domains.values():
        if gtid not in start:
            last = start.last(gtid)
            missing.append(f"{last.number + 1 if last else 1} to {gtid.number} of {gtid.source}*")
        if gtid not in behind:
            behind.add(gtid)
    return ", ".join(missing), str(behind)
