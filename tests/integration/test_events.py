"""The log of a run: what is in it, in which order, and how a program follows it."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from uuid import UUID

import pytest
from agents import Agent, function_tool

from perdure import effect, notify
from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Pool, open_pool
from perdure.errors import NotFoundError
from perdure.events import Event, Hub, read_events
from perdure.events import hub as hubs
from perdure.runs.store import NewRun, delete_run, start_run
from perdure.tasks import end
from tests.engine_support import SECONDS, Gate, approve, call, query, running, turns
from tests.events_support import check_log, log_of, shape


@effect("idempotent")
@function_tool
async def look(order: str) -> str:
    return f"order {order}"


@function_tool(needs_approval=True)
async def refund(cents: int) -> str:
    raise ValueError("no money\0" + "x" * 900)


def _shop() -> Agent[None]:
    back = Agent(
        name="back", model=turns("", "", [call("refund", "r1", cents=5)], "done"), tools=[refund]
    )
    return Agent(
        name="front",
        model=turns([call("look", "l1", order="7" * 900)], [call("transfer_to_back", "h1")]),
        tools=[look],
        handoffs=[back],
    )


async def test_all_of_a_run_in_order(database_url: str) -> None:
    async with running(database_url, _shop()) as engine:
        run = await engine.start("front", "hi")
        followed: list[Event] = []

        async def follow() -> None:
            followed.extend([event async for event in run.events()])

        following = asyncio.create_task(follow())
        await run.wait(SECONDS)
        await approve(engine, run, by="alice")
        async with asyncio.timeout(SECONDS):
            await following
        assert shape(followed) == [
            "run.queued",
            "run.started",
            "agent.started",
            "model.started",
            "model.completed",
            "tool.started look",
            "tool.completed look",
            "model.started",
            "model.completed",
            "handoff",
            "agent.started",
            "checkpoint.saved",
            "model.started",
            "model.completed",
            "checkpoint.saved",
            "interruption.created refund",
            "run.interrupted",
            "interruption.decided refund",
            "run.queued",
            "run.resumed",
            "tool.started refund",
            "tool.failed refund",
            "model.started",
            "model.delta",
            "model.completed",
            "checkpoint.saved",
            "run.completed",
        ]
        check_log(followed, run.status)
        assert await log_of(engine.pool, run.id, page=3) == followed
        said = {one.event: one.data for one in followed}
        assert said["handoff"] == {"from": "front", "to": "back"}
        assert said["interruption.decided"]["by"]["subject"] == "alice"
        assert said["interruption.decided"]["status"] == "approved"
        # Short, whatever a model or a tool wrote; the whole of it is with the call.
        [looked] = [
            one for one in followed if one.event == "tool.started" if "look" in shape([one])[0]
        ]
        assert len(looked.data["arguments"]) == 500
        assert said["tool.failed"]["error"].startswith("no money\0xx")
        assert max(len(str(one.data)) for one in followed) < 1200

        # From the middle on, and after the end.
        async with asyncio.timeout(SECONDS):
            assert [one async for one in run.events(after=5)] == followed[5:]
            assert [one async for one in run.events(after=len(followed))] == []
            with pytest.raises(NotFoundError):
                [one async for one in engine._handle(UUID(int=7)).events()]


async def test_a_failed_run_that_is_resumed_and_one_that_is_deleted(database_url: str) -> None:
    agent = Agent(name="a", model=turns([call("gone", "c1")], [call("gone", "c1")]))
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi", max_turns=1)
        await run.wait(SECONDS)
        check_log(await log_of(engine.pool, run.id), "failed")
        later = await engine.start("a", "hi", delay_seconds=3600)
        async with asyncio.timeout(SECONDS), aclosing(later.events()) as events:
            first = await anext(events)
            assert first.data["due_at"] is not None
            waiting = asyncio.create_task(anext(events))
            await engine.cancel(later.id)
            assert (await waiting).event == "run.cancelled"
        parked = await engine.start("a", "hi", delay_seconds=3600)
        async with asyncio.timeout(SECONDS), aclosing(parked.events(after=1)) as events:
            waiting = asyncio.create_task(anext(events))
            await asyncio.sleep(0)
            await engine.cancel(parked.id)
            assert (await waiting).id == 2
        async with engine.pool.connection() as conn:
            await delete_run(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(parked.id))
        assert (
            await query(engine, "SELECT 1 FROM perdure.run_events WHERE run_id = %s", parked.id)
            == []
        )


async def test_a_number_is_never_overtaken(database_url: str) -> None:
    """Eight sessions write for two runs, each in transactions that end when they please."""
    rng = random.Random(7)  # noqa: S311
    async with await open_pool(database_url, 2, 16) as pool:
        runs = [await _a_run(pool) for _ in range(2)]
        done = asyncio.Event()

        async def write(n: int) -> None:
            for k in range(12):
                async with pool.connection() as conn, conn.transaction():
                    # In the order of their ids, as everywhere.
                    for run_id in sorted(rng.sample(runs, rng.choice([1, 2]))):
                        await conn.execute(
                            "SELECT perdure.add_event(%s, 'tool.completed', %s::jsonb)",
                            (run_id, f'{{"by": "{n}.{k}"}}'),
                        )
                    await conn.execute("SELECT pg_sleep(%s)", (rng.random() / 200,))
                    if rng.random() < 0.2:
                        # What is rolled back leaves no gap.
                        await conn.execute("ROLLBACK AND CHAIN")

        async def watch(run_id: UUID) -> list[Event]:
            seen: list[Event] = []
            while True:
                over = done.is_set()
                async with pool.connection() as conn:
                    page = await read_events(
                        conn, tenant_id=DEFAULT_TENANT, run_id=run_id, after=len(seen)
                    )
                seen += page.events
                assert [one.id for one in seen] == list(range(1, len(seen) + 1))
                if over and not page.has_more:
                    return seen

        watching = [asyncio.create_task(watch(run_id)) for run_id in runs]
        await asyncio.gather(*(write(n) for n in range(8)))
        done.set()
        for run_id, seen in zip(runs, await asyncio.gather(*watching), strict=True):
            assert await log_of(pool, run_id) == seen
            assert len({one.data.get("by") for one in seen}) == len(seen) > 40


async def _a_run(pool: Pool) -> UUID:
    async with pool.connection() as conn:
        return await start_run(
            conn,
            NewRun(
                tenant_id=DEFAULT_TENANT, agent="a", input="hi", max_turns=1, delay_seconds=3600
            ),
        )


async def test_a_worker_and_cancellations_beside_it(database_url: str) -> None:
    """What a worker records, and what others do to its runs meanwhile, make one log a run."""
    gate = Gate()

    @effect("read")
    @function_tool
    async def wait(n: int) -> str:
        if n == 1:
            await gate.stop()
        return "waited"

    asked = [[call("wait", f"c{n}", n=n), call("wait", f"d{n}", n=0)] for n in range(3)]
    agent = Agent(name="a", model=turns(*asked, "done"), tools=[wait])
    async with running(database_url, agent) as one:
        runs = [await one.start("a", "hi") for _ in range(10)]
        await gate.reached()
        for run in runs[::2]:
            await one.cancel(run.id)
        gate.open()
        for run in runs:
            await run.wait(SECONDS)
            check_log(await log_of(one.pool, run.id), run.status)
        assert {run.status for run in runs} == {"completed", "cancelled"}


async def test_what_nobody_tells_of_is_found_beside_what_is_told_of_all_the_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "FALLBACK_SECONDS", 0.2)
    monkeypatch.setattr(hubs, "_SETTLING_SECONDS", 0.0)
    async with (
        asyncio.timeout(SECONDS),
        await open_pool(database_url, 2, 8) as pool,
        Hub(lambda: pool).serving(database_url) as hub,
        pool.connection() as conn,
        pool.connection() as other,
    ):
        loud, silent = await _a_run(pool), await _a_run(pool)
        add = "SELECT perdure.{}(%s, ARRAY['tool.completed'], ARRAY['{{}}'::jsonb])"
        async with (
            aclosing(hub.follow(DEFAULT_TENANT, loud)) as told,
            aclosing(hub.follow(DEFAULT_TENANT, silent)) as untold,
        ):
            assert [len(await anext(one)) for one in (told, untold)] == [1, 1]

            async def follow_loud() -> None:
                async for _ in told:
                    await other.execute(add.format("add_events"), (loud,))

            waiting = asyncio.create_task(anext(untold))
            await conn.execute(add.format("add_events"), (loud,))
            talking = asyncio.create_task(follow_loud())
            for number in (2, 3):
                await conn.execute(add.format("write_events"), (silent,))
                assert [one.event.id for one in await waiting] == [number]
                waiting = asyncio.create_task(anext(untold))
            for task in (talking, waiting):
                await end(task)
