"""Who is alive: leases, locks, the declaration of a loss, and what the process makes of it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from agents import Agent, function_tool

from perdure.db import open_pool
from perdure.worker import watch
from perdure.worker.lease import Lease
from perdure.worker.recovery import declare_lost
from tests.engine_support import SECONDS, Gate, call, calls_of, eventually, query, running, turns

_ENTER = (
    "INSERT INTO perdure.executors (id, host, pid, version, renewed_at, lease_until)"
    " VALUES (%s, %s, %s, '', now() - %s::interval, now() + %s::interval)"
)


async def _true(look: Callable[[], Any]) -> Any:
    await asyncio.sleep(0)
    return look()


async def test_who_is_declared_lost(database_url: str) -> None:
    """Silence and a free lock, a lease that is over, a process that is gone; nobody else."""
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    here, elsewhere = os.uname().nodename, "elsewhere"
    async with (
        await open_pool(database_url) as pool,
        pool.connection() as conn,
        pool.connection() as other,
        Lease(database_url, "") as lease,
    ):
        for id, host, pid, silent, left in (
            ("renews", elsewhere, 1, "-1 min", "1 min"),
            ("silent, its session ended", elsewhere, 1, "3 s", "3 s"),
            ("silent, its session stands", elsewhere, 1, "3 s", "1 min"),
            ("its lease is over, its session stands", elsewhere, 1, "1 min", "-1 s"),
            ("its process is gone", here, gone.pid, "-1 min", "1 min"),
            ("its process is there", here, os.getpid(), "-1 min", "1 min"),
        ):
            await conn.execute(_ENTER, (id, host, pid, silent, left))
            if id.endswith("stands"):
                await other.execute(
                    "SELECT pg_advisory_lock(hashtextextended('perdure:' || %s, 0))", (id,)
                )
        await eventually(partial(_true, lambda: lease.gone))
        # The server of this test may be younger than a lease.
        lease._since -= timedelta(hours=1)
        dead = {
            "silent, its session ended",
            "its lease is over, its session stands",
            "its process is gone",
        }
        # Two at once find each of them once.
        both = await asyncio.gather(declare_lost(pool, lease), declare_lost(pool, lease))
        assert sorted(both[0] + both[1]) == sorted(dead)
        assert await declare_lost(pool, lease) == []
        cursor = await conn.execute("SELECT id, lost_to FROM perdure.executors WHERE lost_to <> ''")
        lost = {row["id"]: row["lost_to"] for row in await cursor.fetchall()}
        assert lost == dict.fromkeys(dead, lease.executor_id)
        assert lease.held()


async def test_an_observer_that_was_cut_off_gives_the_others_time(database_url: str) -> None:
    """After an outage nobody has renewed: that says nothing."""
    async with (
        await open_pool(database_url) as pool,
        pool.connection() as conn,
        Lease(database_url, "") as lease,
    ):
        await conn.execute(_ENTER, ("waits too", "elsewhere", 1, "1 min", "-1 min"))
        first = lease.since
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'perdure-lease%'"
        )
        await eventually(partial(_true, lambda: lease.since != first and lease.held()))
        assert await declare_lost(pool, lease) == []
        # Its own lease goes on as if nothing had been.
        cursor = await conn.execute(
            "SELECT lost_at, stopped_at FROM perdure.executors WHERE id = %s", (lease.executor_id,)
        )
        assert await cursor.fetchone() == {"lost_at": None, "stopped_at": None}


async def test_a_worker_that_is_taken_over_begins_nothing_more_and_is_replaced(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its effect under way ends, the calls after it are not begun, its runs go on."""
    made: list[str] = []
    gate = Gate()

    @function_tool
    async def first() -> str:
        made.append("first")
        await gate.stop()
        return "one"

    @function_tool
    async def second() -> str:
        made.append("second")
        return "two"

    model = turns([call("first", "c1")], [call("second", "c2")], "done")
    agent = Agent(name="agent", model=model, tools=[first, second])
    async with running(database_url, agent) as engine:
        worker = engine._worker
        assert worker is not None
        run = await engine.start("agent", "go")
        await gate.reached()
        await query(
            engine,
            "UPDATE perdure.executors SET lost_at = now(), lost_to = 'another' WHERE id = %s",
            worker.executor_id,
        )
        async with asyncio.timeout(SECONDS):
            await worker.lost.wait()
        assert not worker._lease.held()
        gate.open()
        await run.wait(SECONDS)
        # Nobody had begun it again by then, so the outcome counts; what came after it did not
        # begin here.
        assert (run.status, made) == ("completed", ["first", "second"]), run.data
        segments = await query(engine, "SELECT epoch, executor_id FROM perdure.segments")
        assert engine._worker is not worker
        assert engine._worker is not None
        assert segments == [{"epoch": 2, "executor_id": engine._worker.executor_id}]
        assert {one["status"] for one in (await calls_of(engine, run)).values()} == {"succeeded"}
    assert "taken for dead" in caplog.text


async def test_nothing_begins_while_the_lease_is_not_held(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an effect nor a request to a model; it goes on when the lease is confirmed."""
    doubtful = asyncio.Event()
    confirmed = asyncio.Event()
    asked_for = asyncio.Event()
    made: list[str] = []

    def held(_: Lease) -> bool:
        return not doubtful.is_set() or confirmed.is_set()

    async def wait(_: Lease) -> None:
        if doubtful.is_set():
            asked_for.set()
            await confirmed.wait()

    @function_tool
    async def pay() -> str:
        made.append("paid")
        return "ok"

    def rule(reply: Any) -> Any:
        async def late(items: list[Any]) -> Any:
            doubtful.set()
            return reply

        return late

    model = turns([call("pay", "c1")], "done")
    rules = model._rule
    model._rule = lambda items: rule(rules(items))(items)
    async with running(database_url, Agent(name="agent", model=model, tools=[pay])) as engine:
        monkeypatch.setattr(Lease, "held", held)
        monkeypatch.setattr(Lease, "confirmed", wait)
        run = await engine.start("agent", "go")
        async with asyncio.timeout(SECONDS):
            await asked_for.wait()
        [row] = await query(engine, "SELECT status FROM perdure.tool_calls")
        # Marked as begun with the reply; not made.
        assert (row["status"], made) == ("executing", [])
        confirmed.set()
        await run.wait(SECONDS)
        assert (run.status, made) == ("completed", ["paid"])


async def test_a_tool_that_holds_up_the_loop_is_named(
    database_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "ASK_SECONDS", 0.01)
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.1)

    @function_tool
    async def compute() -> str:
        deadline = time.monotonic() + SECONDS
        while "Tool compute" not in caplog.text:
            assert time.monotonic() < deadline
        return "done"

    model = turns([call("compute", "c1")], "done")
    with caplog.at_level(logging.WARNING, "perdure.worker.watch"):
        async with running(database_url, Agent(name="agent", model=model, tools=[compute])) as e:
            run = await e.start("agent", "go")
            await run.wait(SECONDS)
    assert run.status == "completed"
    assert f"Tool compute (call c1 of run {run.id}) has held up the event loop" in caplog.text
    assert f"in compute, {__file__}" in caplog.text


async def test_a_stopped_worker_is_not_a_dead_one(database_url: str) -> None:
    async with running(database_url, Agent(name="agent", model=turns("hi"))) as engine:
        worker = engine._worker
        assert worker is not None
    async with running(database_url, Agent(name="agent", model=turns("hi"))) as engine:

        async def stopped() -> list[dict[str, Any]]:
            return await query(
                engine, "SELECT lost_at FROM perdure.executors WHERE stopped_at IS NOT NULL"
            )

        assert await eventually(stopped) == [{"lost_at": None}]
