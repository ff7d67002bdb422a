"""A deploy: what one build of an application began, another one goes on with."""

from __future__ import annotations

from typing import Any

from agents import Agent, function_tool
from agents.testing import assistant_message

from perdure import effect
from perdure.db import connect
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    approve,
    call,
    query,
    replies_in,
    rested,
    running,
)


@effect("read")
@function_tool
async def look() -> str:
    return "saw"


@effect("idempotent")
@function_tool(needs_approval=True)
async def pay() -> str:
    return "paid"


@effect("read")
@function_tool
async def more() -> str:
    return "more of it"


async def test_a_build_goes_on_with_what_another_one_began(database_url: str) -> None:
    gate = Gate()
    told: list[str] = []

    def build(instructions: str, *tools: Any) -> tuple[Agent[Any], RuleModel]:
        def dynamic(_: Any, __: Any) -> str:
            told.append(instructions)
            return instructions

        async def rule(items: list[Any]) -> Any:
            first = {"parked": "pay", "under way": "look"}[items[0]["content"]]
            if replies_in(items) == 0:
                return [call(first, "c1")]
            if instructions == "old":
                await gate.stop()
            if replies_in(items) == 1 and instructions == "new":
                return [call("more", "c2")]
            return [assistant_message(f"done by the {instructions} build")]

        model = RuleModel(rule)
        return Agent(name="a", instructions=dynamic, model=model, tools=list(tools)), model

    agent, old = build("old", look, pay)
    async with running(database_url, agent) as engine:
        parked = await rested(engine, "a", "parked")
        assert parked.status == "interrupted"
        began_with = engine.registry.versions["a"]
        under_way = await engine.start("a", "under way")
        await gate.reached()
    assert old.asked == 3
    async with await connect(database_url) as conn:
        # As if it had been killed: nobody gave the run back.
        killed = await conn.execute(
            "UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = 'of the old build'"
            " WHERE workflow_uuid = %s AND status = 'ENQUEUED'",
            (f"{under_way.id}:1",),
        )
        assert killed.rowcount == 1
    agent, new = build("new", look, pay, more)
    told.clear()
    async with running(database_url, agent) as engine:
        assert (await (await engine.get(under_way.id)).wait(SECONDS)).status == "completed"
        parked = await engine.get(parked.id)
        assert (await approve(engine, parked)).output == "done by the new build"
        # It has the version of the build that began it.
        fresh = await rested(engine, "a", "parked")
        assert (await engine.get(parked.id)).data["agent_version"] == began_with
        assert fresh.data["agent_version"] == engine.registry.versions["a"] != began_with
        versions = await query(
            engine, "SELECT DISTINCT application_version AS v FROM dbos.workflow_status"
        )
    assert set(told) == {"new"}
    # What the old one was told is not asked again: two replies more to each.
    assert new.asked == 2 + 2 + 1
    assert all("more" in offered for offered in new.offered)
    assert versions == [{"v": "perdure"}]
