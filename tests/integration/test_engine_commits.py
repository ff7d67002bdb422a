"""What waits for a commit, and what goes on beside it."""

from __future__ import annotations

import asyncio

import pytest
from agents import Agent, RunHooks, function_tool
from psycopg import AsyncConnection

from tests.engine_support import (
    SECONDS,
    Gate,
    call,
    calls_of,
    eventually,
    items_of,
    query,
    running,
    turns,
)

_WRITER_WAITS = """
SELECT 1 AS waits FROM pg_stat_activity
 WHERE application_name LIKE 'perdure-ledger%%' AND datname = current_database()
   AND wait_event_type = 'Lock'"""

_STATE_WAITS = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
   AND query LIKE '%%perdure.run_states%%'"""


class _Seen(RunHooks[None]):
    """Notes when the SDK is about to run a tool, or to ask the model of agent ``back``."""

    def __init__(self) -> None:
        self.tool, self.back = Gate(), Gate()
        self.tool.open()
        self.back.open()

    async def on_tool_start(self, *_: object) -> None:
        await self.tool.stop()

    async def on_llm_start(self, context: object, agent: Agent[None], *_: object) -> None:
        if agent.name == "back":
            await self.back.stop()


async def test_no_effect_begins_before_its_reply_has_committed(database_url: str) -> None:
    ran = asyncio.Event()

    @function_tool
    async def pay() -> str:
        ran.set()
        return "paid"

    hooks = _Seen()
    agent = Agent(name="a", model=turns([call("pay", "c1")], "done"), tools=[pay])
    async with running(database_url, agent, hooks=hooks) as engine:
        async with await AsyncConnection.connect(database_url) as conn:
            # Nobody can record a reply until this transaction ends.
            await conn.execute("LOCK TABLE perdure.model_responses IN SHARE MODE")
            run = await engine.start("a", "hi")
            await eventually(lambda: query(engine, _WRITER_WAITS))
            # The SDK has gone on with the reply, as far as the call it asks for.
            await hooks.tool.reached()
            assert not ran.is_set()
            assert await calls_of(engine, run) == {}
            assert not ran.is_set()
        await run.wait(SECONDS)
        assert (run.status, run.output) == ("completed", "done")
        assert (await calls_of(engine, run))["c1"]["status"] == "succeeded"


async def test_the_last_reply_has_committed_when_its_run_is_over(database_url: str) -> None:
    agent = Agent(name="a", model=turns("done"))
    async with running(database_url, agent) as engine:
        async with await AsyncConnection.connect(database_url) as conn:
            await conn.execute("LOCK TABLE perdure.model_responses IN SHARE MODE")
            run = await engine.start("a", "hi")
            await eventually(lambda: query(engine, _WRITER_WAITS))
            assert (await run.refresh()).status == "running"
        await run.wait(SECONDS)
        assert run.data["usage"]["requests"] == 1


@pytest.mark.parametrize("lost", [False, True])
async def test_nothing_is_asked_before_a_state_has_committed(database_url: str, lost: bool) -> None:
    """A lost connection costs the segment's execution, not the run."""
    front_model, back_model = turns([call("transfer_to_back", "h1")]), turns("done")
    back = Agent(name="back", model=back_model)
    front = Agent(name="front", model=front_model, handoffs=[back])
    hooks = _Seen()
    async with running(database_url, front, hooks=hooks) as engine:
        async with await AsyncConnection.connect(database_url) as conn:
            await conn.execute("LOCK TABLE perdure.run_states IN SHARE MODE")
            run = await engine.start("front", "hi")
            [waiting] = await eventually(lambda: query(engine, _STATE_WAITS))
            # The SDK has gone on from the state, as far as the next request.
            await hooks.back.reached()
            assert await query(engine, _STATE_WAITS) == [waiting]
            assert (front_model.asked, back_model.asked) == (1, 0)
            if lost:
                await query(engine, "SELECT pg_terminate_backend(%s)", waiting["pid"])
        await run.wait(SECONDS)
        assert (run.status, run.output, run.error) == ("completed", "done", None)
        [segment] = await query(engine, "SELECT executions FROM perdure.segments")
        items = await items_of(engine, run)
    assert segment == {"executions": 2 if lost else 1}
    assert (front_model.asked, back_model.asked) == (1, 1)
    assert [item["type"] for item in items] == [
        "message",
        "handoff_call",
        "handoff_output",
        "message_output",
    ]
