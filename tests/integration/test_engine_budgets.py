"""Runs stop before the call that would pass a budget, and go on when a person raises it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool

from perdure import Engine, Interruption, Price, effect
from perdure.access.principals import program_principal
from perdure.budgets import store as budgets
from perdure.budgets.limits import parse_limits
from perdure.errors import InvalidRequestError, InvalidStateError, NotFoundError
from perdure.runs.handle import Run
from perdure.tenants import DEFAULT_TENANT
from tests.engine_support import (
    Gate,
    RuleModel,
    call,
    error_of,
    eventually,
    query,
    replies_in,
    rested,
    running,
    turns,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
BY = program_principal("Ada")
EACH = 15
"""Tokens of each request of these models: 10 in, 5 out."""


@effect("read")
@function_tool
def look(what: str) -> str:
    """Look at something."""
    return f"saw {what}"


def looping(name: str = "looper", *, ends_after: int = 100) -> Agent[Any]:
    """An agent that calls a tool in every turn."""

    def rule(items: list[Any]) -> Any:
        n = replies_in(items)
        if n >= ends_after:
            return turns("done")._rule([])
        return [call("look", f"c{n}", what=str(n))]

    return Agent(name=name, model=RuleModel(rule), tools=[look])


async def make(engine: Engine, limits: dict[str, Any], **new: Any) -> dict[str, Any]:
    async with engine.pool.connection() as conn:
        one = budgets.NewBudget(limits=parse_limits(limits, ""), **new)
        return await budgets.create_budget(conn, one, tenant_id=DEFAULT_TENANT, by=BY)


async def stands(engine: Engine, budget: dict[str, Any]) -> dict[str, Any]:
    async with engine.pool.connection() as conn:
        return await budgets.get_budget(
            conn, tenant_id=DEFAULT_TENANT, budget_id=UUID(budget["id"])
        )


async def raise_to(engine: Engine, run: Run, **limits: Any) -> Run:
    asked = the_budget(run)
    await engine.decide(asked.id, "approve", digest=asked.digest, arguments=limits, by="Ada")
    return await run.wait()


def the_budget(run: Run) -> Interruption:
    """The one thing a run waits for: its budget."""
    [asked] = run.interruptions
    assert asked.type == "budget"
    return asked


async def nothing_is_reserved(engine: Engine) -> None:
    assert await query(engine, "SELECT * FROM perdure.budget_reservations") == []


@asynccontextmanager
async def at_work(url: str, *agents: Agent[Any], **options: Any) -> AsyncIterator[Engine]:
    async with running(url, *agents, **options) as engine:
        yield engine
        await nothing_is_reserved(engine)


async def test_a_loop_stops_before_the_call_that_would_pass_the_budget(database_url: str) -> None:
    async with at_work(database_url, looping(ends_after=4)) as engine:
        run = await rested(engine, "looper", budget={"total_tokens": 3 * EACH - 5})
        assert run.status == "interrupted"
        assert run.data["usage"]["total_tokens"] == 2 * EACH
        assert run.data["budget"] == {"cost_usd": None, "total_tokens": 3 * EACH - 5}
        asked = the_budget(run)
        [shown] = run.data["interruptions"]
        assert shown["tool"] is None
        assert shown["budget"]["scope"] == "run"
        assert shown["budget"]["spent_tokens"] == 2 * EACH
        assert shown["schema"]["properties"].keys() == {"total_tokens"}
        assert "30 of 40 tokens are spent" in shown["question"]

        digest = {"digest": asked.digest}
        for wrong, field in (
            ({}, "/arguments"),
            ({"arguments": {"total_tokens": 40}}, "/arguments/total_tokens"),
            ({"arguments": {"total_tokens": "60"}}, "/arguments/total_tokens"),
            ({"arguments": {"cost_usd": "1"}}, "/arguments/cost_usd"),
            ({"arguments": {"tokens": 60}}, "/arguments/tokens"),
            ({"arguments": {}}, "/arguments"),
        ):
            with pytest.raises(InvalidRequestError) as refused:
                await engine.decide(asked.id, "approve", **digest, **wrong)
            assert [error.pointer for error in refused.value.errors] == [field]
        assert (await run.refresh()).status == "interrupted"

        run = await raise_to(engine, run, total_tokens=4 * EACH)
        assert run.status == "interrupted"
        assert run.data["usage"]["total_tokens"] == 4 * EACH
        assert run.data["budget"]["total_tokens"] == 4 * EACH
        run = await raise_to(engine, run, total_tokens=1000)
        assert (run.status, run.output) == ("completed", "done")
        # Each tool ran once, whatever was replayed.
        calls = await query(
            engine, "SELECT attempt FROM perdure.tool_calls WHERE run_id = %s", run.id
        )
        assert [one["attempt"] for one in calls] == [1] * 4
        told = await query(
            engine, "SELECT kind FROM perdure.audit_log WHERE run_id = %s ORDER BY id", run.id
        )
        assert [one["kind"] for one in told].count("budget.raised") == 2


async def test_who_refuses_more_budget_ends_the_run(database_url: str) -> None:
    async with at_work(database_url, looping()) as engine:
        run = await rested(engine, "looper", budget={"total_tokens": 20})
        asked = the_budget(run)
        await engine.decide(asked.id, "reject", message="Enough.", by="Ada")
        run = await run.wait()
        assert error_of(run)["type"] == "budget"
        assert error_of(run)["message"].startswith("Ada gave the run no more budget: Enough.")


async def test_money_and_models_without_a_price(database_url: str) -> None:
    agents = [looping("looper"), Agent(name="unknown", model=turns("done"))]
    agents[0].model.model = "house-1"  # type: ignore[union-attr]
    prices = {"house-1": Price("100000", "0")}
    async with at_work(database_url, *agents, prices=prices) as engine:
        # Each request costs 1 USD: its 10 tokens in.
        run = await rested(engine, "looper", budget={"cost_usd": "2.5", "total_tokens": 10**6})
        assert run.data["usage"]["cost_usd"] == "2"
        run = await raise_to(engine, run, cost_usd="4")
        assert run.data["usage"]["cost_usd"] == "4"
        [shown] = run.data["interruptions"]
        assert "4 of 4 USD and 60 of 1000000 tokens are spent" in shown["question"]

        run = await rested(engine, "unknown", budget={"cost_usd": "2.5"})
        [shown] = run.data["interruptions"]
        assert shown["budget"]["reason"] == "unpriced"
        assert run.data["usage"]["requests"] == 0
        asked = the_budget(run)
        await engine.decide(asked.id, "approve", digest=asked.digest)
        run = await run.wait()
        assert run.status == "completed"
        assert run.data["usage"]["unpriced_requests"] == 1


async def test_runs_side_by_side_cannot_overspend_together(database_url: str) -> None:
    runs, fit = 12, 5
    agent = Agent(name="talker", model=turns("done"))
    async with at_work(database_url, agent) as engine:
        limit = {"total_tokens": fit * EACH + 7}
        budget = await make(engine, limit, scope="user", subject="u-1", period="month")
        other = await make(engine, {"total_tokens": 1}, scope="user", subject="u-2")
        started = [await engine.start("talker", "hi", user_id="u-1") for _ in range(runs)]
        await asyncio.gather(*(run.wait() for run in started))
        done = [run for run in started if run.status == "completed"]
        assert len(done) == fit
        now = await stands(engine, budget)
        assert (now["spent_tokens"], now["reserved_tokens"]) == (fit * EACH, 0)
        assert (await stands(engine, other))["spent_tokens"] == 0

        # The budget itself is raised: what waits is tried again when somebody says so.
        async with engine.pool.connection() as conn:
            changed = await budgets.change_budget(
                conn,
                tenant_id=DEFAULT_TENANT,
                budget_id=UUID(budget["id"]),
                limits=parse_limits({"total_tokens": runs * EACH}, ""),
                name=None,
                by=BY,
            )
        assert changed["total_tokens"] == runs * EACH
        waits = [run for run in started if run.status == "interrupted"]
        for run in waits:
            asked = the_budget(run)
            await engine.decide(asked.id, "approve", digest=asked.digest)
        await asyncio.gather(*(run.wait() for run in waits))
        assert {run.status for run in started} == {"completed"}
        assert (await stands(engine, budget))["spent_tokens"] == runs * EACH


async def test_a_call_waits_for_what_others_have_reserved(database_url: str) -> None:
    gate = Gate()

    async def slow(items: list[Any]) -> Any:
        await gate.stop()
        return RuntimeError("the model is broken")

    agents = [
        Agent(name="talker", model=turns("done")),
        Agent(name="slow", model=RuleModel(slow)),
    ]
    async with at_work(database_url, *agents) as engine:
        budget = await make(engine, {"total_tokens": 2 * EACH}, scope="tenant")
        assert (await rested(engine, "talker")).status == "completed"
        held = await engine.start("slow", "hi")
        await gate.reached()
        assert (await stands(engine, budget))["reserved_tokens"] == EACH
        waits = await engine.start("talker", "hi")
        awaited = "SELECT 1 FROM perdure.budget_periods WHERE awaited"
        await eventually(lambda: query(engine, awaited))
        # Who waits has reserved nothing, and spent nothing.
        now = await stands(engine, budget)
        assert (now["spent_tokens"], now["reserved_tokens"]) == (EACH, EACH)
        assert (await waits.refresh()).status == "running"
        # It fails: what it had reserved is free, and who waited goes on.
        gate.open()
        assert (await held.wait()).status == "failed"
        assert (await waits.wait()).status == "completed"
        assert (await stands(engine, budget))["spent_tokens"] == 2 * EACH
        assert (await rested(engine, "talker")).status == "interrupted"


async def test_budgets_of_each_scope_count_what_is_theirs(database_url: str) -> None:
    nested = Agent(name="nested", model=turns("well"))
    outer = Agent(
        name="outer",
        model=RuleModel(
            lambda items: (
                turns("done")._rule([])
                if items[-1].get("type") == "function_call_output"
                else [call("ask", f"c{len(items)}", input="how?")]
            )
        ),
        tools=[nested.as_tool(tool_name="ask", tool_description="Ask.")],
    )
    async with at_work(database_url, outer) as engine:
        first = await rested(engine, "outer", user_id="u-1", session_key="s-1")
        session_id = UUID(first.data["session_id"])
        # What was spent before counts.
        session = await make(
            engine, {"total_tokens": 4 * EACH}, scope="session", session_id=session_id
        )
        agent = await make(engine, {"total_tokens": 100 * EACH}, scope="agent", subject="nested")
        tenant = await make(engine, {"total_tokens": 100 * EACH}, scope="tenant", period="month")
        for budget, spent in ((session, 3), (agent, 1), (tenant, 3)):
            assert budget["spent_tokens"] == spent * EACH
        run = await rested(engine, "outer", user_id="u-1", session_key="s-1")
        assert run.status == "interrupted"
        assert run.data["usage"]["requests"] == 1
        for budget, spent in ((session, 4), (agent, 1), (tenant, 4)):
            assert (await stands(engine, budget))["spent_tokens"] == spent * EACH
        # A month that is over is another's: nothing of it counts.
        await query(
            engine,
            "UPDATE perdure.budget_periods SET starts_at = starts_at - interval"
            " '1 month' WHERE budget_id = %s RETURNING 1",
            tenant["id"],
        )
        assert (await stands(engine, tenant))["spent_tokens"] == 0
        run = await raise_to(engine, run, total_tokens=6 * EACH)
        assert run.status == "completed"
        assert (await stands(engine, session))["spent_tokens"] == 6 * EACH
        assert (await stands(engine, session))["raised"] is True
        assert (await stands(engine, tenant))["spent_tokens"] == 2 * EACH
        with pytest.raises(InvalidStateError, match="there already"):
            await make(engine, {"total_tokens": 1}, scope="agent", subject="nested")
        with pytest.raises(NotFoundError):
            await make(engine, {"total_tokens": 1}, scope="session", session_id=UUID(int=7))
        with pytest.raises(InvalidRequestError):
            await make(engine, {"total_tokens": 1}, scope="user")


async def test_a_budget_made_while_a_run_is_under_way_holds_for_its_next_calls(
    database_url: str,
) -> None:
    gate = Gate()

    def rule(items: list[Any]) -> Any:
        return [call("pause", f"c{replies_in(items)}")]

    @effect("read")
    @function_tool
    async def pause() -> str:
        """Wait."""
        await gate.stop()
        return "on"

    agent = Agent(name="looper", model=RuleModel(rule), tools=[pause])
    async with at_work(database_url, agent) as engine:
        run = await engine.start("looper", "hi", max_turns=50)
        await gate.reached()
        budget = await make(engine, {"total_tokens": 4 * EACH}, scope="tenant")
        assert budget["spent_tokens"] == EACH
        gate.open()
        await run.wait()
        assert run.status == "interrupted"
        assert run.data["usage"]["total_tokens"] == 4 * EACH
        assert (await stands(engine, budget))["spent_tokens"] == 4 * EACH
