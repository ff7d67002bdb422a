"""A worker process that may be killed at one of its own statements."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from psycopg import AsyncConnection

from perdure.db import load_sql
from perdure.ledger.writer import WRITE_WITH_OPERATIONS
from perdure.runs.workflow import SegmentRunner
from tests.crash import orders, outside, policed, scenario, steered, talker, till
from tests.crash.orders_server import FATAL
from tests.crash.scenario import LOG, log

COUNTED = {
    statement: name
    for package, file in (
        ("perdure.runs", "segment.sql"),
        ("perdure.runs", "segment_rows.sql"),
        ("perdure.runs", "states.sql"),
        ("perdure.runs", "transactions.sql"),
        ("perdure.runs", "doubts.sql"),
        ("perdure.runs", "inputs.sql"),
        ("perdure.runs", "guardrails.sql"),
        ("perdure.budgets", "reserving.sql"),
        ("perdure.ledger", "writer.sql"),
    )
    for name, statement in load_sql(package, file).items()
} | {WRITE_WITH_OPERATIONS: "write"}


class Killer:
    """Kills this process before or after the n-th time it runs a statement, or never (n = 0)."""

    def __init__(self, name: str, n: int, when: str) -> None:
        self.name = name
        self.n = n
        self.when = when
        self.seen = 0

    def install(self) -> None:
        """Count statements from now on."""
        execute = AsyncConnection.execute
        killer = self

        async def counted(conn: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            name = COUNTED.get(query) if isinstance(query, str) else None
            mine = name == killer.name and killer.next()
            if mine and killer.when == "before":
                killer.kill()
            cursor = await execute(conn, query, *args, **kwargs)
            if mine and killer.when == "after":
                killer.kill()
            return cursor

        AsyncConnection.execute = counted  # type: ignore[method-assign,assignment]
        scenario.die_at(self.at)
        run = SegmentRunner.run

        async def ran(runner: Any, run_id: Any, seq: int) -> str:
            outcome = await run(runner, run_id, seq)
            killer.at("rested, before DBOS records it")
            return outcome

        SegmentRunner.run = ran  # type: ignore[method-assign,assignment]

    def at(self, name: str) -> None:
        """Die, or stop, here if this is the place."""
        if name == self.name and self.next():
            self.kill()
        elif self.name == f"stop at {name}" and self.next():
            log("stopped", at=name)
            os.kill(os.getpid(), signal.SIGSTOP)

    def next(self) -> bool:
        """Count one; whether it is the one."""
        self.seen += 1
        return self.seen == self.n

    def kill(self) -> None:
        """Die as by kill -9."""
        log("killed", at=f"{self.when} {self.name} {self.n}")
        os.kill(os.getpid(), signal.SIGKILL)


SCENARIOS = {
    "scenario": scenario,
    "outside": outside,
    "orders": orders,
    "till": till,
    "policed": policed,
    "steered": steered,
    "talker": talker,
}


def main(url: str, log_path: str, name: str, n: int, when: str, scene: str) -> None:
    """Be a worker of a scenario on the database of ``url`` until killed."""
    os.environ[LOG] = log_path
    os.environ[FATAL] = name
    # Receivers of webhooks listen on this machine.
    os.environ["PERDURE_WEBHOOK_ALLOW"] = "127.0.0.1"
    Killer(name, n, when).install()
    asyncio.run(_work(url, scene))


async def _work(url: str, scene: str) -> None:
    async with SCENARIOS[scene].at_work(url):
        await asyncio.get_running_loop().create_future()
