"""Drives the scenario from outside: workers that die, people who decide, and what must hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.budgets.limits import Limits
from perdure.db import Pool, open_pool
from perdure.interruptions.rules import UNSET, Decision
from perdure.notify import RUNS, Listener, Waiters
from perdure.runs import resume, store
from perdure.runs.in_session import InSession, start_in_session
from perdure.runs.store import NewRun
from tests.crash.nursery import Nursery
from tests.crash.scenario import ANSWER, INSTEAD, read_log

PATIENCE_SECONDS = 30


class Story:
    """One run, from its start to its end, whatever happens to the workers."""

    def __init__(
        self,
        url: str,
        pool: Pool,
        waiters: Waiters,
        log: Path,
        nursery: Nursery,
        scene: str = "scenario",
    ) -> None:
        self.url = url
        self.scene = scene
        self.pool = pool
        self.log_path = log
        self.uncertain: list[str] = []
        self._waiters = waiters
        self._nursery = nursery
        self.worker_pid = 0
        self.run_id: Any = None

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the log's lines of one kind."""
        return [line for line in read_log(self.log_path) if line["kind"] == kind]

    async def start(self, agent: str = "triage") -> None:
        """Accept the run; no worker is there yet."""
        async with self.pool.connection() as conn:
            await conn.execute("CREATE TABLE IF NOT EXISTS bookings (order_id text)")
            self.run_id = await start_in_session(
                conn,
                NewRun(
                    tenant_id=DEFAULT_TENANT,
                    agent=agent,
                    input="go",
                    max_turns=20,
                    budget=Limits(total_tokens=100_000),
                ),
                InSession(key="crashing"),
                program_principal("tester"),
            )

    async def worker(self, name: str = "", n: int = 0, when: str = "before") -> None:
        """Start a worker that dies at the n-th statement of that name (0: it does not)."""
        self.worker_pid = await self._nursery.worker(
            self.url, self.log_path, name, n, when, self.scene
        )

    async def until_rest_or_death(self) -> dict[str, Any] | None:
        """Return the run when it rests, or None when the worker is dead."""
        resting = asyncio.create_task(self._rested())
        dying = asyncio.create_task(self._nursery.death(self.worker_pid))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.wait({resting, dying}, return_when=asyncio.FIRST_COMPLETED)
            return None if dying.done() else resting.result()
        finally:
            for task in (resting, dying):
                task.cancel()
            await asyncio.wait({resting, dying})

    async def _rested(self) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            try:
                run = await self.read()
            except (psycopg.Error, PoolTimeout):
                return None
            return run if run["status"] not in ("queued", "running") else None

        run = await self._waiters.until(str(self.run_id), look)
        assert run is not None
        return run

    async def read(self) -> dict[str, Any]:
        """Return the run as the API shows it."""
        async with self.pool.connection() as conn:
            return await store.get_run(conn, tenant_id=DEFAULT_TENANT, run_id=self.run_id)

    async def decide_all(self, run: dict[str, Any]) -> None:
        """Approve with other arguments, answer questions; settle doubts by what the log says."""
        for interruption in run["interruptions"]:
            instead = INSTEAD if self.scene == "scenario" else UNSET
            decision = Decision("approve", digest=interruption["digest"], arguments=instead)
            if interruption["type"] == "question":
                decision = Decision("answer", answer=ANSWER)
            if interruption["type"] == "uncertain_effect":
                call_id = interruption["tool"]["call_id"]
                self.uncertain.append(call_id)
                happened = [line for line in self.events("effect") if line["call_id"] == call_id]
                outcome = "done" if happened else "not_done"
                decision = Decision(
                    decision="resolve",
                    outcome=outcome,
                    **({"result": "shipped 7"} if happened else {}),
                )
            async with self.pool.connection() as conn:
                await resume.decide_and_resume(
                    conn,
                    tenant_id=DEFAULT_TENANT,
                    interruption_id=interruption["id"],
                    decision=decision,
                    by=program_principal("tester"),
                )

    async def finish(self, name: str = "", n: int = 0, when: str = "before") -> bool:
        """Run to the end, the first worker dying where ``worker`` says; whether it died."""
        await self.worker(name, n, when)
        return await self.to_the_end()

    async def to_the_end(self) -> bool:
        """Decide what is asked and replace the worker when it dies, once; whether it did."""
        died = False
        try:
            while True:
                run = await self.until_rest_or_death()
                if run is None:
                    assert not died, "the second worker was not to die"
                    died = True
                    await self.worker()
                elif run["status"] == "interrupted":
                    await self.decide_all(run)
                else:
                    return died
        finally:
            await self._nursery.kill(self.worker_pid)

    async def rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query with the run's id as %(run_id)s."""
        async with self.pool.connection() as conn:
            return await (await conn.execute(query, {"run_id": self.run_id})).fetchall()


@asynccontextmanager
async def story(
    url: str, log: Path, nursery: Nursery, *, scene: str = "scenario", agent: str = "triage"
) -> AsyncIterator[Story]:
    """A story on an empty, migrated database: a run of ``agent`` in a scenario's module."""
    waiters = Waiters()
    async with await open_pool(url, 1, 4) as pool, Listener(url, {RUNS: waiters.notify}):
        told = Story(url, pool, waiters, log, nursery, scene)
        await told.start(agent)
        yield told
