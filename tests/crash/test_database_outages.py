"""A database that dies again and again under many runs: all finish, and nothing happens twice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from typing import Any

from agents import Agent, function_tool

from perdure import effect, tool_call
from perdure.engine import Engine, Run
from perdure.errors import UnavailableError
from tests.engine_support import call, query, running, turns
from tests.own_server import OwnServer, own_server

RUNS = int(os.environ.get("PERDURE_TEST_OUTAGE_RUNS", "100"))
"""How many runs; with 500 the test takes about a minute."""
RESTARTS = 10
CAUGHT = 3
"""So many effects at least, or all that are left, are under way when the server dies."""
PATIENCE_SECONDS = 240.0


class _Outages:
    """Ends the server when enough runs are over, with effects under way, and starts it again."""

    def __init__(self, server: OwnServer) -> None:
        self._server = server
        self._left = RUNS
        self._due = False
        self._away = asyncio.Event()
        self._enough = asyncio.Event()
        self.caught: list[int] = []

    async def straddle(self) -> None:
        """Called within an effect: while an outage is due, it goes on when the server is dead."""
        if self._due:
            self.caught[-1] += 1
            self._look()
            await self._away.wait()

    def one_is_over(self) -> None:
        """Note the end of a run."""
        self._left -= 1
        self._look()

    def _look(self) -> None:
        if self._due and self.caught[-1] >= min(CAUGHT, self._left):
            self._enough.set()

    async def once(self, how: signal.Signals) -> None:
        """Let one outage happen, with a few effects that began before it and end within it."""
        self._away.clear()
        self._enough.clear()
        self.caught.append(0)
        self._due = True
        self._look()
        await self._enough.wait()
        await asyncio.to_thread(self._server.end, how)
        self._due = False
        self._away.set()
        await asyncio.to_thread(self._server.start)


async def test_ten_restarts_under_many_runs() -> None:
    sent: Counter[str] = Counter()
    keys: dict[str, set[str]] = {}

    with own_server() as server:
        outages = _Outages(server)

        @function_tool
        async def pay() -> str:
            sent[tool_call().run_id] += 1
            await outages.straddle()
            return "paid"

        @effect("idempotent")
        @function_tool
        async def notify() -> str:
            keys.setdefault(tool_call().run_id, set()).add(tool_call().idempotency_key)
            return "told"

        @effect("transactional")
        @function_tool
        async def book() -> str:
            await tool_call().connection.execute(
                "INSERT INTO bookings VALUES (%s)", (tool_call().run_id,)
            )
            return "booked"

        model = turns([call("pay", "c1")], [call("notify", "c2"), call("book", "c3")], "done")
        agent = Agent(name="a", model=model, tools=[pay, notify, book])
        async with running(server.url, agent, concurrency=12) as engine:
            await query(engine, "CREATE TABLE bookings (run_id text)")
            over = asyncio.Semaphore(0)
            places = asyncio.Semaphore(8)
            ended: list[Run] = []
            began = time.monotonic()

            async def one(n: int) -> None:
                async with places:
                    run = await _start(engine, f"run {n}")
                await run.wait(PATIENCE_SECONDS)
                ended.append(run)
                outages.one_is_over()
                over.release()

            async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
                for n in range(RUNS):
                    tasks.create_task(one(n))
                for n in range(RESTARTS):
                    for _ in range(RUNS // (RESTARTS + 2)):
                        await over.acquire()
                    await outages.once(signal.SIGKILL if n % 2 else signal.SIGQUIT)
            print(f"{RUNS} runs in {time.monotonic() - began:.1f} s; caught {outages.caught}")
            assert {(run.status, run.output) for run in ended} == {("completed", "done")}
            ids = {run.id for run in ended}
            assert len(ids) == RUNS
            assert sent == dict.fromkeys(ids, 1)
            assert keys.keys() == ids
            assert all(len(one) == 1 for one in keys.values())
            assert await _counts(engine) == {
                "bookings": RUNS,
                "booked": RUNS,
                "runs": RUNS,
                "calls": 3 * RUNS,
                "succeeded": 3 * RUNS,
                "questions": 0,
            }
    assert sum(outages.caught) >= RESTARTS


async def _start(engine: Engine, key: str) -> Run:
    while True:
        try:
            return await engine.start("a", "go", idempotency_key=key)
        except UnavailableError:
            # As any client would: the same again, a moment later.
            await asyncio.sleep(0.1)


async def _counts(engine: Engine) -> dict[str, Any]:
    [counts] = await query(
        engine,
        """
        SELECT (SELECT count(*) FROM bookings) AS bookings,
               (SELECT count(DISTINCT run_id) FROM bookings) AS booked,
               (SELECT count(*) FROM perdure.runs) AS runs,
               (SELECT count(*) FROM perdure.tool_calls) AS calls,
               (SELECT count(*) FROM perdure.tool_calls
                 WHERE status = 'succeeded' AND attempt >= 1) AS succeeded,
               (SELECT count(*) FROM perdure.interruptions) AS questions""",
    )
    return counts
