"""A seeded schedule of what goes wrong in production, against a workload.

    python -m tests.e2e.chaos --minutes 30 --seed 7

prints the seed and every action, and at the end what was compared. The same seed gives the same
actions and transactions; where they hit is up to the machine.
"""

from __future__ import annotations

import argparse
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from control.servers.local import LocalServer
from control.servers.nats import NatsServer
from control.servers.postgres import PostgresServer
from tests.e2e import shop, verify, verify_stream
from tests.e2e.deployment import Deployment
from tests.e2e.flows import Layout, SupervisedFlow, await_capture
from tests.e2e.witness import Witness
from tests.e2e.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.e2e.flows import Run

# How often each action comes in one deck; a deck is shuffled, dealt to its end, and made anew.
DECK: Mapping[str, int] = {
    "kill capture": 5,
    "kill deliver": 5,
    "kill nats": 3,
    "kill source": 3,
    "kill target": 3,
    "kill capture twice": 2,
    "kill deliver twice": 2,
    "kill capture and wipe": 1,
    "kill deliver and wipe": 1,
    "kill everything": 1,
    "terminate capture": 1,
    "terminate deliver": 1,
    "supplant capture": 2,
    "supplant deliver": 2,
    "freeze nats": 1,
}
# A flow that ends by itself this often in a row, with all servers up, would call for a human.
_CRASH_LOOP = 5


@dataclass
class Report:
    """What a run did and compared.

    Attributes:
        seed: Of the schedule and the workload.
        actions: How often each action was taken.
        kills: Processes and servers that were ended by SIGKILL.
        zombies: How supplanted flows ended after they were continued: exit status, or `alive`.
        transactions: That the workload carried through.
        changes: Compared between the witness and the stream.
        rows: Compared between source and target.
        unasked: Ends of flows that nobody asked for, by their reason.
        seconds: How long the chaos lasted.
        drained: Seconds from the end of the workload until target and source agreed.
    """

    seed: int
    actions: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    zombies: Counter[str] = field(default_factory=Counter)
    transactions: int = 0
    changes: int = 0
    rows: int = 0
    unasked: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    drained: float = 0.0

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.kills} kills in {self.seconds:.0f} s"
            f" ({', '.join(f'{n}x {action}' for action, n in sorted(self.actions.items()))});"
            f" zombies: {dict(self.zombies)}; {self.transactions} transactions,"
            f" {self.changes} changes in the stream, {self.rows} rows agree,"
            f" drained in {self.drained:.1f} s; ends that nobody asked for: {dict(self.unasked)}"
        )


class Chaos:
    """Takes actions against a deployment and its two flows.

    Args:
        deployment: The servers.
        seed: Of the schedule.
        say: Told every action.
    """

    def __init__(self, deployment: Deployment, seed: int, say: Callable[[str], None]) -> None:
        self._random = random.Random(seed)
        self._layouts = random.Random(seed + 1)
        self._deployment, self._say = deployment, say
        self.report = Report(seed)
        self.capture = SupervisedFlow(deployment, "capture/shop", self._layout)
        self.deliver = SupervisedFlow(deployment, "deliver/warehouse", self._layout)
        self._frozen: list[tuple[float, Run]] = []
        self._continued: list[Run] = []
        self._deck: list[str] = []
        self._began = time.monotonic()

    def act(self) -> None:
        """Take the next action, after a while in which the flows work or are just starting."""
        self._settle()
        if not self._deck:
            self._deck = [action for action, times in DECK.items() for _ in range(times)]
            self._random.shuffle(self._deck)
        action = self._deck.pop()
        self.report.actions[action] += 1
        self._say(f"[{time.monotonic() - self._began:6.1f} s] {action}")
        flow = self.deliver if "deliver" in action else self.capture
        match action.split(" ", 1):
            case ["kill", "everything"]:
                self._kill_everything()
            case ["kill", "nats" | "source" | "target" as server]:
                self._kill_server(server)
            case ["kill", what]:
                flow.kill(wipe=what.endswith("wipe"))
                self.report.kills += 1
                if what.endswith("twice"):
                    # the second one falls into the start, or into its first epochs
                    time.sleep(self._random.uniform(0.3, 4.0))
                    flow.kill()
                    self.report.kills += 1
            case ["terminate", _]:
                self._terminate(flow)
            case ["supplant", _]:
                run = flow.supplant()
                self._frozen.append((time.monotonic() + self._random.uniform(3, 8), run))
            case ["freeze", _]:
                self._deployment.nats.suspend()
                time.sleep(self._random.uniform(0.5, 3))
                self._deployment.nats.resume()
            case other:
                raise ValueError(f"unknown action {other}")
        self._continue_zombies()

    def finish(self) -> None:
        """Let zombies go on and see how they end."""
        self._continue_zombies(everyone=True)
        deadline = time.monotonic() + 20
        for run in self._continued:
            try:
                (status, *_) = run.wait(max(0.1, deadline - time.monotonic()))
                self.report.zombies[str(status)] += 1
            except subprocess.TimeoutExpired:
                self.report.zombies["alive"] += 1
        for flow in (self.capture, self.deliver):
            for end in flow.unasked:
                self.report.unasked[_reason(end.last_words, end.status)] += 1

    def _layout(self) -> Layout:
        """Mostly one worker; now and then two, or a cluster of two processes."""
        return self._layouts.choice([Layout(), Layout(), Layout(workers=2), Layout(processes=2)])

    def _settle(self) -> None:
        """Mostly wait until both flows have got on, so that the action interrupts real work."""
        if self._random.random() < 0.75:
            stored = self._deployment.stream_sequence()
            delivered = self._deployment.delivered_sequence()
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline and (
                self._deployment.stream_sequence() <= stored
                or self._deployment.delivered_sequence() <= delivered
            ):
                self._continue_zombies()
                time.sleep(0.1)
        # anywhere in an epoch, which lasts a second
        time.sleep(self._random.uniform(0, 1))

    def _kill_server(self, name: str) -> None:
        server: LocalServer = getattr(self._deployment, name)
        server.kill()
        self.report.kills += 1
        time.sleep(self._random.choice([0, 0.2, 1, 3]))
        server.start()

    def _kill_everything(self) -> None:
        self._deployment.nats.kill()
        self.capture.kill()
        self._deployment.source.kill()
        self.deliver.kill()
        self._deployment.target.kill()
        self.report.kills += 5
        time.sleep(self._random.uniform(0, 2))
        for server in (self._deployment.target, self._deployment.nats, self._deployment.source):
            server.start()

    def _terminate(self, flow: SupervisedFlow) -> None:
        began = time.monotonic()
        statuses = flow.terminate()
        self._say(f"    ended with {statuses} in {time.monotonic() - began:.1f} s")

    def _continue_zombies(self, *, everyone: bool = False) -> None:
        now = time.monotonic()
        for due, run in list(self._frozen):
            if everyone or now >= due:
                self._frozen.remove((due, run))
                run.signal(signal.SIGCONT)
                self._continued.append(run)
                self._say("    a zombie goes on")


def run(
    deployment: Deployment,
    seed: int,
    enough: Callable[[Report], bool],
    say: Callable[[str], None],
) -> Report:
    """Write and break until `enough`, then drain and compare everything.

    Args:
        deployment: The servers, databases still empty.
        seed: Of the workload and the schedule.
        enough: Asked after each action.
        say: Told every action.

    Raises:
        AssertionError: Something was lost, repeated or reordered, or needed a human.
    """
    say(f"seed {seed}")
    with psycopg.connect(deployment.source_dsn) as connection:
        connection.execute(shop.setup())
    witness = Witness(
        deployment.source_dsn, {f"{table.schema}.{table.name}": table.key for table in shop.TABLES}
    )
    chaos = Chaos(deployment, seed, say)
    report = chaos.report
    workload = Workload(deployment.source_dsn, seed)
    began = time.monotonic()
    with chaos.capture, chaos.deliver:
        await_capture(deployment)
        workload.start()
        try:
            while not enough(report):
                chaos.act()
        finally:
            workload.stop()
        report.seconds = time.monotonic() - began
        report.transactions = workload.transactions
        shop.write_last(deployment.source_dsn)
        chaos.finish()
        say(f"drains; so far {report}")
        drain = time.monotonic()
        verify.await_agreement(deployment.source_dsn, deployment.target_dsn)
        report.drained = time.monotonic() - drain
        report.rows = verify.count_rows(deployment.target_dsn)
        check_no_crash_loop(chaos.capture)
        check_no_crash_loop(chaos.deliver)
    report.changes = verify_stream.check_stream(
        verify_stream.read_stream(deployment.nats.url), witness.read()
    )
    say(str(report))
    return report


def check_no_crash_loop(flow: SupervisedFlow) -> None:
    """No flow may end by itself again and again: that would call for a human."""
    ends = flow.unasked
    for first, last in zip(ends, ends[_CRASH_LOOP - 1 :], strict=False):
        assert last.at - first.at > 30, f"{flow.flow} is in a crash loop:\n{last.last_words}"


def _reason(last_words: str, status: int) -> str:
    lines = [line for line in last_words.splitlines() if line.strip()]
    return f"{status}: {lines[-1][-160:]}" if lines else str(status)


def main(arguments: list[str]) -> None:
    """Run for some minutes on servers of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--keep", action="store_true", help="keep the logs, as after a failure")
    chosen = parser.parse_args(arguments)
    seed = secrets.randbelow(10**6) if chosen.seed is None else chosen.seed
    folder = Path(tempfile.mkdtemp(prefix="waxtap-chaos-"))
    print(f"logs in {folder}", flush=True)
    deadline = time.monotonic() + chosen.minutes * 60
    with ExitStack() as stack:
        deployment = Deployment(
            source=stack.enter_context(PostgresServer({"fsync": "off"})),
            target=stack.enter_context(PostgresServer({"fsync": "off"})),
            nats=stack.enter_context(NatsServer()),
            folder=folder,
            more=PARTITIONED,
        )
        run(
            deployment,
            seed,
            enough=lambda report: time.monotonic() > deadline,
            say=lambda line: print(line, flush=True),
        )
    if not chosen.keep:
        shutil.rmtree(folder)


PARTITIONED: Mapping[str, dict[str, object]] = {
    "topics": {"db.customers": {"partitions": 4}, "db.scratch": {"partitions": 2}}
}

if __name__ == "__main__":
    main(sys.argv[1:])
