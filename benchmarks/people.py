"""The side of a run that is not a worker: starts gated runs, approves them, reads what happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from benchmarks import workload
from perdure import Engine

_STARTS_AT_ONCE = 16
_STRANDED_SECONDS = 600


class People:
    """Starts runs and decides about them over the database, with the worker in another process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str) -> AsyncIterator[Self]:
        """Open the database of ``url``; no worker runs here."""
        engine = Engine(agents=[workload.agent(workload.tool(workload.moment, gated=True))])
        async with engine.running(worker=False, migrate_first=False, url=url):
            yield cls(engine)

    async def start(self, turns: int) -> str:
        """Start a run and return its id."""
        run = await self._engine.start(workload.AGENT, workload.prompt(turns, 0))
        return run.id

    async def output(self, run_id: str) -> str:
        """Wait for a run's end and return its output."""
        run = await (await self._engine.get(run_id)).wait(60)
        return str(run.output) if run.status == "completed" else f"{run.status}: {run.error}"

    async def question(self, run_id: str) -> dict[str, Any]:
        """Wait until a run asks for an approval and return the interruption."""
        run = await (await self._engine.get(run_id)).wait(60)
        [interruption] = run.interruptions
        return interruption

    async def approve(self, interruption: dict[str, Any]) -> None:
        """Approve a call as it was shown."""
        await self._engine.decide(interruption["id"], "approve", digest=interruption["digest"])

    async def park(self, count: int) -> list[str]:
        """Start ``count`` runs and wait until each waits for its approval; return their ids."""
        async with asyncio.timeout(_STRANDED_SECONDS):
            slots = asyncio.Semaphore(_STARTS_AT_ONCE)

            async def one() -> str:
                async with slots:
                    run_id = await self.start(1)
                    await self.question(run_id)
                    return run_id

            return list(await asyncio.gather(*(one() for _ in range(count))))

    async def row(self, statement: str, *values: Any) -> dict[str, Any]:
        """Return the one row of a query."""
        async with self._engine.pool.connection() as conn:
            [row] = await (await conn.execute(statement, values)).fetchall()
            return dict(row)

    async def tool_ran_at(self, run_id: str) -> float:
        """Return the moment the run's tool ran, on the monotonic clock of the machine."""
        row = await self.row(
            "SELECT output ->> 'text' AS at FROM perdure.tool_calls WHERE run_id = %s", run_id
        )
        return float(row["at"])
