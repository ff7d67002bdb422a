"""A run's life from outside: started, waited for, delayed, cancelled."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from agents import Agent, RunContextWrapper, function_tool
from agents.testing import assistant_message
from psycopg import AsyncConnection
from psycopg.rows import dict_row, tuple_row

from perdure import tool_call
from perdure.engine import Engine, Run
from perdure.errors import (
    ConfigurationError,
    IdempotencyConflictError,
    InvalidRequestError,
    InvalidStateError,
    NotFoundError,
)
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    approve,
    call,
    calls_of,
    items_of,
    outputs_in,
    query,
    records,
    replies_in,
    rested,
    running,
    turns,
)


def _echo() -> RuleModel:
    return RuleModel(lambda items: [assistant_message(f"you said {items[0]['content']}")])


@pytest.mark.parametrize("key", [None, "k1"])
async def test_a_start_joins_the_callers_transaction(database_url: str, key: str | None) -> None:
    async with running(database_url, Agent(name="a", model=_echo())) as engine:
        await query(engine, "CREATE TABLE orders (id int PRIMARY KEY)")
        for n, (factory, autocommit) in enumerate(
            itertools.product((tuple_row, dict_row), (True, False))
        ):
            conn: AsyncConnection[Any] = await AsyncConnection.connect(
                database_url, autocommit=autocommit, row_factory=cast(Any, factory)
            )
            async with conn:
                await _order_twice(engine, conn, n, key and f"{key}-{n}")
        assert len(await query(engine, "SELECT id FROM perdure.runs")) == 4
        assert len(await query(engine, "SELECT id FROM orders")) == 4
        assert len(await query(engine, "SELECT workflow_uuid FROM dbos.workflow_status")) == 4


async def _order_twice(engine: Engine, conn: AsyncConnection[Any], n: int, key: str | None) -> None:
    """Start a run in a transaction that is undone, and again in one that commits."""

    async def order() -> Run:
        await conn.execute("INSERT INTO orders VALUES (%s)", (n,))
        return await engine.start("a", f"order {n}", connection=conn, idempotency_key=key)

    async with conn.transaction(force_rollback=True):
        undone = await order()
    with pytest.raises(NotFoundError):
        await undone.refresh()
    if conn.autocommit:
        async with conn.transaction():
            run = await order()
            # Nobody sees it before it is committed.
            with pytest.raises(NotFoundError):
                await run.refresh()
    else:
        run = await order()
        with pytest.raises(NotFoundError):
            await run.refresh()
        await conn.commit()
    await run.wait(SECONDS)
    assert run.output == f"you said order {n}"


async def test_an_idempotency_key_starts_one_run(database_url: str) -> None:
    async with running(database_url, Agent(name="a", model=_echo())) as engine:
        runs = await asyncio.gather(
            *(engine.start("a", "once", idempotency_key="k", metadata={"n": 1}) for _ in range(10))
        )
        assert len({run.id for run in runs}) == 1
        same: dict[str, Any] = {"input": "once", "metadata": {"n": 1}}
        others: list[dict[str, Any]] = [
            {"input": "twice"},
            {"metadata": {"n": 2}},
            {"context": {"a": 1}},
            {"user_id": "ada"},
            {"max_turns": 3},
            {"delay_seconds": 1},
        ]
        for other in others:
            with pytest.raises(IdempotencyConflictError):
                await engine.start("a", idempotency_key="k", **same | other)
        assert (await runs[0].wait(SECONDS)).output == "you said once"
        again = await engine.start("a", "once", idempotency_key="k", metadata={"n": 1})
        assert (await again.refresh()).status == "completed"
        assert len(await query(engine, "SELECT id FROM perdure.runs")) == 1


async def test_a_start_that_cannot_be_is_refused_and_leaves_nothing(database_url: str) -> None:
    async with running(database_url, Agent(name="a", model=_echo())) as engine:
        refused: list[dict[str, Any]] = [
            {"agent": "b"},
            {"context": {1, 2}},
            {"context": {"a": object()}},
            {"priority": -1},
            {"delay_seconds": -1.0},
            {"max_turns": 0},
            {"max_turns": -1},
            {"metadata": {"a": float("nan")}},
            {"input": [{"a": float("inf")}]},
        ]
        for given in refused:
            with pytest.raises(InvalidRequestError):
                await engine.start(**{"agent": "a", "input": "hi", "idempotency_key": "k"} | given)
        assert await query(engine, "SELECT id FROM perdure.runs") == []
        # Not even the key is used up.
        run = await engine.start("a", "hi", idempotency_key="k")
        assert (await run.wait(SECONDS)).status == "completed"


async def test_waiting_for_too_long_says_so(database_url: str) -> None:
    gate = Gate()

    async def rule(_: list[Any]) -> Any:
        await gate.stop()
        return [assistant_message("done")]

    async with running(database_url, Agent(name="a", model=RuleModel(rule))) as engine:
        run = await engine.start("a", "hi")
        assert run.status == "queued"
        await gate.reached()
        with pytest.raises(TimeoutError, match=f"{run.id} is still running"):
            await run.wait(0.01)
        gate.open()
        assert (await run.wait(SECONDS)).output == "done"
        with pytest.raises(NotFoundError):
            await engine.get("01890000-0000-7000-8000-000000000000")


async def test_of_waiting_runs_the_lowest_priority_goes_first(database_url: str) -> None:
    gate = Gate()
    order: list[str] = []

    async def rule(items: list[Any]) -> Any:
        text = items[0]["content"]
        order.append(text)
        if text == "first":
            await gate.stop()
        return [assistant_message(text)]

    agent = Agent(name="a", model=RuleModel(rule))
    async with running(database_url, agent, concurrency=1) as engine:
        runs = [await engine.start("a", "first")]
        await gate.reached()
        for text, priority in (("late", 9), ("soon", 2), ("soonest", 1), ("soon too", 2)):
            runs.append(await engine.start("a", text, priority=priority))
        assert order == ["first"]
        gate.open()
        for run in runs:
            assert (await run.wait(SECONDS)).status == "completed"
    assert order == ["first", "soonest", "soon", "soon too", "late"]


async def test_a_delayed_run_starts_when_it_is_due(database_url: str) -> None:
    model = _echo()
    async with running(database_url, Agent(name="a", model=model)) as engine:
        began = time.monotonic()
        soon = await engine.start("a", "soon", delay_seconds=0.2)
        later = await engine.start("a", "later", delay_seconds=3600)
        await soon.wait(SECONDS)
        assert 0.2 <= time.monotonic() - began < 2
        await later.refresh()
        assert later.status == "queued"
        [segment] = await query(
            engine,
            "SELECT status, due_at > now() + interval '59 minutes' AS far"
            " FROM perdure.segments WHERE run_id = %s",
            later.id,
        )
        assert segment == {"status": "scheduled", "far": True}
        # An hour passes on the database's clock.
        await query(
            engine,
            "WITH moved AS (UPDATE perdure.segments SET due_at = now() WHERE status = 'scheduled'"
            " RETURNING run_id) SELECT pg_notify('perdure_due', '') FROM moved",
        )
        assert (await later.wait(SECONDS)).output == "you said later"
    assert model.asked == 2


async def test_a_delayed_start_wakes_who_watches_the_clock(database_url: str) -> None:
    async with (
        running(database_url, Agent(name="a", model=_echo())) as engine,
        await AsyncConnection.connect(database_url, autocommit=True) as conn,
    ):
        await conn.execute("LISTEN perdure_due")
        await engine.start("a", "later", delay_seconds=3600)
        heard = [one async for one in conn.notifies(timeout=SECONDS, stop_after=1)]
    assert [one.channel for one in heard] == ["perdure_due"]


async def test_a_delayed_run_can_be_cancelled(database_url: str) -> None:
    model = _echo()
    async with running(database_url, Agent(name="a", model=model)) as engine:
        run = await engine.start("a", "never", delay_seconds=3600)
        await engine.cancel(run.id)
        assert (await run.wait(SECONDS)).status == "cancelled"
        await query(engine, "UPDATE perdure.segments SET due_at = now()")
        assert (await rested(engine, "a", "now")).output == "you said now"
        assert (await run.refresh()).status == "cancelled"
        [segment] = await query(
            engine, "SELECT status, outcome FROM perdure.segments WHERE run_id = %s", run.id
        )
        assert segment == {"status": "rested", "outcome": "cancelled"}
    assert model.asked == 1


async def test_cancelling_a_queued_run(database_url: str) -> None:
    gate = Gate()

    async def rule(_: list[Any]) -> Any:
        await gate.stop()
        return [assistant_message("done")]

    model = RuleModel(rule)
    async with running(database_url, Agent(name="a", model=model), concurrency=1) as engine:
        first = await engine.start("a", "first")
        await gate.reached()
        second = await engine.start("a", "second")
        await engine.cancel(second.id)
        assert (await second.wait(SECONDS)).status == "cancelled"
        gate.open()
        assert (await first.wait(SECONDS)).status == "completed"
        with pytest.raises(InvalidStateError):
            await engine.cancel(first.id)
        await engine.cancel(second.id)
    assert model.asked == 1


async def test_cancelling_an_interrupted_run(database_url: str) -> None:
    @function_tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    model = turns([call("pay", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[pay])) as engine:
        run = await rested(engine, "a")
        [one] = run.interruptions
        await engine.cancel(run.id)
        await run.refresh()
        assert (run.status, run.interruptions) == ("cancelled", [])
        with pytest.raises(InvalidStateError):
            await engine.decide(one.id, "approve", digest=one.digest)


async def test_cancelling_a_running_model_call(database_url: str) -> None:
    gate = Gate()
    ended: list[str] = []

    async def rule(items: list[Any]) -> Any:
        if replies_in(items) == 0:
            return [call("look", "c1")]
        try:
            await gate.stop()
        finally:
            ended.append("model")
        return [assistant_message("done")]

    @function_tool
    async def look() -> str:
        return "saw"

    async with running(
        database_url, Agent(name="a", model=RuleModel(rule), tools=[look])
    ) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        began = time.monotonic()
        await engine.cancel(run.id)
        await run.wait(SECONDS)
        assert time.monotonic() - began < 1
        assert (run.status, run.error) == ("cancelled", None)
        assert run.data["cancel_requested_at"] is not None
        assert ended == ["model"]
        # What had happened until then is kept.
        assert (await calls_of(engine, run))["c1"]["status"] == "succeeded"
        assert len(await records(engine, run, "usage")) == 1
        [segment] = await query(engine, "SELECT status, outcome FROM perdure.segments")
        assert segment == {"status": "rested", "outcome": "cancelled"}
    assert gate.passed == 0


@pytest.mark.parametrize("kind", ["async", "plain", "nested", "approved"])
async def test_cancelling_a_running_tool_leaves_it_uncertain(database_url: str, kind: str) -> None:
    gate = Gate()
    reached, leave = threading.Event(), threading.Event()

    @function_tool
    async def send() -> str:
        await gate.stop()
        return "sent"

    @function_tool(name_override="send")
    def send_plainly() -> str:
        reached.set()
        assert leave.wait(SECONDS)
        return "sent"

    @function_tool(name_override="send", needs_approval=True)
    async def send_if_approved() -> str:
        await gate.stop()
        return "sent"

    inner = Agent(name="inner", model=turns([call("send", "c1")], "done"), tools=[send])
    tools: dict[str, tuple[Any, Any]] = {
        "approved": (send_if_approved, call("send", "c1")),
        "async": (send, call("send", "c1")),
        "plain": (send_plainly, call("send", "c1")),
        "nested": (inner.as_tool("ask", "asks"), call("ask", "c0", input="x")),
    }
    tool, asked = tools[kind]
    model = turns([asked], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[tool])) as engine:
        run = await engine.start("a", "hi")
        if kind == "approved":
            [one] = (await run.wait(SECONDS)).interruptions
            await engine.decide(one.id, "approve", digest=one.digest)
        if kind == "plain":
            assert await asyncio.to_thread(reached.wait, SECONDS)
        else:
            await gate.reached()
        began = time.monotonic()
        await engine.cancel(run.id)
        await run.wait(SECONDS)
        assert run.status == "cancelled"
        assert time.monotonic() - began < 1
        leave.set()
        gate.open()
        calls = await calls_of(engine, run)
    assert calls["c0/c1" if kind == "nested" else "c1"]["status"] == "uncertain"
    if kind == "nested":
        assert calls["c0"]["status"] == "failed"
        assert calls["c0"]["error"]["type"] == "CancelledError"
    assert gate.passed == 0
    assert model.asked == 1


async def test_a_call_that_is_done_when_the_run_is_cancelled_is_recorded_as_done(
    database_url: str,
) -> None:
    gate = Gate()

    @function_tool
    async def quick() -> str:
        return "done"

    @function_tool
    async def slow() -> str:
        await gate.stop()
        return "done"

    model = turns([call("quick", "c1"), call("slow", "c2")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[quick, slow])) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        await engine.cancel(run.id)
        await run.wait(SECONDS)
        statuses = {key: one["status"] for key, one in (await calls_of(engine, run)).items()}
    assert statuses == {"c1": "succeeded", "c2": "uncertain"}


async def test_cancelling_many_times_at_once(database_url: str) -> None:
    gate = Gate()

    async def rule(_: list[Any]) -> Any:
        await gate.stop()

    async with running(database_url, Agent(name="a", model=RuleModel(rule))) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        await asyncio.gather(*(engine.cancel(run.id) for _ in range(10)))
        assert (await run.wait(SECONDS)).status == "cancelled"


async def test_cancelling_at_the_moment_of_the_start(database_url: str) -> None:
    """Wherever the request falls between enqueueing and running, the run ends cancelled."""
    model = RuleModel(lambda _: _never())

    async def _never() -> Any:
        await asyncio.Event().wait()

    async with running(database_url, Agent(name="a", model=model)) as engine:

        async def one(n: int) -> str:
            run = await engine.start("a", "hi")
            for _ in range(n):
                await asyncio.sleep(0)
            await engine.cancel(run.id)
            return (await run.wait(SECONDS)).status

        assert set(await asyncio.gather(*(one(5 * n) for n in range(20)))) == {"cancelled"}


async def test_an_engine_runs_once_at_a_time(database_url: str) -> None:
    agent = Agent(name="a", model=_echo())
    async with running(database_url, agent) as engine:
        with pytest.raises(ConfigurationError, match="already"):
            async with engine.running(url=database_url):
                pass
        with pytest.raises(ConfigurationError, match="DBOS"):
            async with running(database_url, agent):
                pass
        # It is none the worse for it.
        assert (await rested(engine, "a", "hi")).status == "completed"
    with pytest.raises(ConfigurationError, match="not running"):
        await engine.start("a", "hi")
    async with engine.running(url=database_url):
        assert (await rested(engine, "a", "again")).output == "you said again"


async def test_an_engine_without_a_worker_starts_what_another_runs(database_url: str) -> None:
    gate = Gate()

    @function_tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    def agent() -> Agent[Any]:
        return Agent(name="a", model=turns([call("pay", "c1")], "done"), tools=[pay])

    gate.open()
    async with running(database_url, agent()) as worker:
        client = Engine([agent()])
        async with client.running(url=database_url, worker=False):
            run = await rested(client, "a")
            assert run.status == "interrupted"
            run = await approve(client, run)
            assert (run.status, run.output) == ("completed", "done")
            assert len(await items_of(client, run)) == 4
        assert (await worker.get(run.id)).status == "completed"


async def test_a_worker_that_stops_hands_its_runs_over(database_url: str) -> None:
    gate = Gate()
    asked: list[int] = []

    async def rule(items: list[Any]) -> Any:
        asked.append(replies_in(items))
        if replies_in(items) == 0:
            return [call("send", "c1")]
        if len(asked) == 2:
            await gate.stop()
        return [assistant_message("done")]

    sent: list[str] = []

    @function_tool
    async def send() -> str:
        sent.append("it")
        return "sent"

    agent = Agent(name="a", model=RuleModel(rule), tools=[send])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
    async with running(database_url, agent) as engine:
        run = await (await engine.get(run.id)).wait(SECONDS)
        assert (run.status, run.output) == ("completed", "done")
        [segment] = await query(engine, "SELECT seq, executions FROM perdure.segments")
    # The reply and the call that were recorded stand; only what had no record is asked for again.
    assert segment == {"seq": 1, "executions": 2}
    assert asked == [0, 1, 1]
    assert sent == ["it"]


async def test_a_worker_that_stops_lets_an_effect_finish(database_url: str) -> None:
    gate = Gate()
    sent: list[str] = []

    @function_tool
    async def send() -> str:
        await gate.stop()
        sent.append("it")
        return "sent"

    model = turns([call("send", "c1")], "done")
    agent = Agent(name="a", model=model, tools=[send])
    engine = Engine([agent])
    stack = AsyncExitStack()
    await stack.enter_async_context(engine.running(url=database_url))
    run = await engine.start("a", "hi")
    await gate.reached()
    stopping = asyncio.create_task(stack.aclose())
    worker = engine._worker
    assert worker is not None
    async with asyncio.timeout(SECONDS):
        while not worker._stopping:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
    gate.open()
    await stopping
    async with running(database_url, agent) as engine:
        run = await (await engine.get(run.id)).wait(SECONDS)
        assert (run.status, run.output) == ("completed", "done")
        assert (await calls_of(engine, run))["c1"]["attempt"] == 1
    assert sent == ["it"]
    assert model.asked == 2


async def test_stopping_at_any_moment_loses_and_doubles_nothing(database_url: str) -> None:
    sent: list[tuple[str, str]] = []

    @function_tool
    async def send(name: str) -> str:
        sent.append((tool_call().run_id, tool_call().call_id))
        await asyncio.sleep(0)
        return name

    async def rule(items: list[Any]) -> Any:
        await asyncio.sleep(0)
        n = replies_in(items)
        return [call("send", f"c{n}", name=f"n{n}")] if n < 4 else [assistant_message("done")]

    agent = Agent(name="a", model=RuleModel(rule), tools=[send])
    ids: list[str] = []
    for round_ in range(6):
        async with running(database_url, agent) as engine:
            ids += [(await engine.start("a", "hi")).id for _ in range(3)]
            # Each round stops a little later in the life of its runs.
            for _ in range(round_ * 4):
                await query(engine, "SELECT 1")
    async with running(database_url, agent) as engine:
        for id_ in ids:
            run = await (await engine.get(id_)).wait(SECONDS)
            assert (run.status, run.data["error"]) == ("completed", None)
            assert {one["attempt"] for one in (await calls_of(engine, run)).values()} == {1}
    assert sorted(sent) == sorted((id_, f"c{n}") for id_ in ids for n in range(4))


async def test_many_runs_at_once_keep_to_themselves(database_url: str) -> None:
    @function_tool
    async def echo(context: RunContextWrapper[Any], text: str) -> str:
        context.context["heard"].append(text)
        return f"{context.context['name']} heard {text} in {tool_call().run_id}"

    def rule(items: list[Any]) -> Any:
        name, n = items[0]["content"], replies_in(items)
        if n < 3:
            return [call("echo", f"c{n}", text=f"{name}{n}"), call("echo", f"d{n}", text=name)]
        return [assistant_message(" | ".join(outputs_in(items).values()))]

    agent = Agent(name="a", model=RuleModel(rule), tools=[echo])
    async with running(database_url, agent) as engine:
        names = [f"run-{n}-" for n in range(40)]
        runs = await asyncio.gather(
            *(
                engine.start("a", name, context={"name": name, "heard": []}, priority=n)
                for n, name in enumerate(names)
            )
        )
        await asyncio.gather(*(run.wait(SECONDS * 2) for run in runs))
        contexts = await query(engine, "SELECT id, context FROM perdure.runs")
        heard = {str(row["id"]): row["context"]["heard"] for row in contexts}
    for name, run in zip(names, runs, strict=True):
        assert run.status == "completed"
        expected = [text for n in range(3) for text in (f"{name}{n}", name)]
        assert run.output == " | ".join(f"{name} heard {text} in {run.id}" for text in expected)
        assert heard[run.id] == expected
        assert run.data["usage"]["requests"] == 4
