"""Approving a call with other arguments than the model wrote."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from agents import (
    Agent,
    CustomTool,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailData,
    ToolOutputText,
    function_tool,
    tool_input_guardrail,
)
from agents.mcp import MCPServerStdio
from openai.types.responses import ResponseCustomToolCall
from pydantic import BaseModel

from perdure import Engine, Run, tool_call
from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.errors import (
    DigestMismatchError,
    InvalidRequestError,
    InvalidStateError,
    NotSupportedError,
)
from perdure.interruptions.queries import get_interruption
from perdure.interruptions.rules import Decision
from perdure.runs.resume import decide_and_resume
from tests.engine_support import (
    SECONDS,
    approve,
    call,
    calls_of,
    outputs_in,
    query,
    rested,
    running,
    turns,
    waiting_for,
)

_SERVER = """
import logging
from mcp.server.mcpserver import MCPServer

logging.disable()
server = MCPServer("sums")


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


server.run()
"""


class Receipt(BaseModel):
    """What a typed tool returns."""

    cents: int


class Tools:
    """Gated tools, and what they were called with."""

    def __init__(self) -> None:
        self.paid: list[tuple[int, str, int]] = []

        @function_tool(needs_approval=True)
        async def pay(cents: int, to: str) -> str:
            self.paid.append((cents, to, tool_call().attempt))
            return f"paid {cents}"

        @function_tool(needs_approval=True)
        async def pay_typed(cents: int, to: str) -> Receipt:
            return Receipt(cents=cents)

        @function_tool(needs_approval=True)
        async def pay_shown(cents: int, to: str) -> list[ToolOutputText]:
            return [ToolOutputText(text=f"shown {cents}")]

        self.pay = pay
        self.all: list[Any] = [pay, pay_typed, pay_shown]


async def edit(engine: Engine, run: Run, call_id: str, **arguments: Any) -> dict[str, Any]:
    """Approve a call of a run with other arguments."""
    one = waiting_for(run, call_id=call_id)
    return await engine.decide(one.id, "approve", digest=one.digest, arguments=arguments)


async def test_each_call_runs_once_with_what_was_approved(database_url: str) -> None:
    tools = Tools()
    asked = [
        call("pay", "c1", cents=500, to="ada"),
        call("pay", "c2", cents=7, to="bob"),
        call("pay_typed", "c3", cents=500, to="ada"),
        call("pay_shown", "c4", cents=500, to="ada"),
    ]
    model = turns(asked, "done")
    async with running(database_url, Agent(name="p", model=model, tools=tools.all)) as engine:
        run = await rested(engine, "p")
        shown = waiting_for(run, call_id="c1")
        edited = await edit(engine, run, "c1", cents=50, to="ada")
        assert edited["tool"]["arguments"] == {"cents": 50, "to": "ada"}
        assert edited["tool"]["original_arguments"] == {"cents": 500, "to": "ada"}
        decision = edited["decision"]
        assert decision["arguments"] == {"cents": 50, "to": "ada"}
        assert (decision["digest"], decision["executes"]) == (shown.digest, edited["digest"])
        assert edited["digest"] != shown.digest
        # The same arguments are no edit.
        same = await edit(engine, run, "c2", cents=7, to="bob")
        assert "original_arguments" not in same["tool"]
        assert same["decision"]["executes"] == same["digest"]
        await edit(engine, run, "c3", cents=3, to="ada")
        await edit(engine, run, "c4", cents=4, to="ada")
        run = await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert sorted(tools.paid) == [(7, "bob", 1), (50, "ada", 1)]
    assert calls["c1"]["arguments"] == {"cents": 500, "to": "ada"}
    assert calls["c1"]["approved_arguments"] == {"cents": 50, "to": "ada"}
    assert calls["c1"]["output"] == "paid 50"
    assert calls["c2"]["approved_arguments"] is None
    read = outputs_in(model.inputs[-1])
    note = "A person changed the arguments before approving this call. It was executed with:"
    assert read["c1"] == f'paid 50\n\n({note} {{"to":"ada","cents":50}})'
    assert read["c2"] == "paid 7"
    assert '"cents":3' in read["c3"].replace(" ", "")
    assert note in read["c3"]
    first, second = (part["text"] for part in read["c4"])
    assert first == "shown 4"
    assert note in second


async def test_what_does_not_fit_is_refused_and_nothing_is_decided(database_url: str) -> None:
    tools = Tools()
    raw = CustomTool(
        name="raw", description="", on_invoke_tool=lambda *_: "never", needs_approval=True
    )
    asked = [
        call("pay", "c1", cents=500, to="ada"),
        ResponseCustomToolCall(call_id="c2", input="anything", name="raw", type="custom_tool_call"),
    ]
    agent = Agent(name="p", model=turns(asked, "done"), tools=[tools.pay, raw])
    async with running(database_url, agent) as engine:
        run = await rested(engine, "p")
        one = waiting_for(run, call_id="c1")
        for arguments, pointers in (
            ({"cents": "much", "to": "ada"}, ["/arguments/cents"]),
            ({"cents": 1}, ["/arguments"]),
            ({"cents": 1, "to": 2, "more": 3}, ["/arguments", "/arguments/to"]),
        ):
            with pytest.raises(InvalidRequestError) as refused:
                await edit(engine, run, "c1", **arguments)
            assert sorted(error.pointer for error in refused.value.errors) == pointers
        with pytest.raises(InvalidRequestError, match="arguments"):
            await engine.decide(one.id, "reject", arguments={"cents": 1, "to": "ada"})
        other = waiting_for(run, call_id="c2")
        with pytest.raises(NotSupportedError, match="custom call cannot be changed"):
            await engine.decide(other.id, "approve", digest=other.digest, arguments={})
        with pytest.raises(DigestMismatchError):
            await engine.decide(
                one.id, "approve", digest="sha256:" + "0" * 64, arguments={"cents": 1, "to": "a"}
            )
        await run.refresh()
        assert {one.status for one in run.interruptions} == {"pending"}
        assert await query(engine, "SELECT FROM perdure.decisions") == []
    assert tools.paid == []


async def test_guardrails_look_at_what_will_run(database_url: str) -> None:
    looked: list[str] = []
    paid: list[int] = []

    @tool_input_guardrail
    def small(data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        looked.append(data.context.tool_arguments)
        if '"cents":5}' in data.context.tool_arguments.replace(" ", ""):
            return ToolGuardrailFunctionOutput.allow()
        return ToolGuardrailFunctionOutput.reject_content("too much")

    @function_tool(needs_approval=True, tool_input_guardrails=[small])
    async def pay(cents: int) -> str:
        paid.append(cents)
        return "paid"

    model = turns([call("pay", "c1", cents=500), call("pay", "c2", cents=5)], "done")
    async with running(database_url, Agent(name="p", model=model, tools=[pay])) as engine:
        run = await rested(engine, "p")
        await edit(engine, run, "c1", cents=5)
        await edit(engine, run, "c2", cents=600)
        run = await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
    # The model's own 500 is not what was looked at, and the person's 600 does not pass.
    assert paid == [5]
    assert sorted(looked) == ['{"cents":5}', '{"cents":600}']
    read = outputs_in(model.inputs[-1])
    assert read["c1"].startswith("paid")
    assert read["c2"] == "too much"


async def test_calls_beneath_agents_and_of_mcp_servers(database_url: str, tmp_path: Path) -> None:
    tools = Tools()
    inner_model = turns([call("pay", "x", cents=500, to="ada")], "inner done")
    inner = Agent(name="inner", model=inner_model, tools=[tools.pay])
    model = turns(
        [
            call("one", "o1", input="go"),
            call("gated", "o2", input="spend it all"),
            call("add", "m", a=1, b=2),
        ],
        "done",
    )
    script = tmp_path / "sums.py"
    script.write_text(_SERVER)
    async with MCPServerStdio(
        params={"command": sys.executable, "args": [str(script)]},
        client_session_timeout_seconds=20,
        require_approval="always",
    ) as server:
        agent = Agent(
            name="p",
            model=model,
            tools=[
                inner.as_tool("one", ""),
                Agent(name="quiet", model=turns("heard")).as_tool("gated", "", needs_approval=True),
            ],
            mcp_servers=[server],
        )
        async with running(database_url, agent) as engine:
            run = await rested(engine, "p")
            await edit(engine, run, "x", cents=1, to="ada")
            await edit(engine, run, "o2", input="spend little")
            await edit(engine, run, "m", a=20, b=22)
            run = await run.wait(SECONDS)
            assert (run.status, run.error) == ("completed", None)
    assert tools.paid == [(1, "ada", 1)]
    read = outputs_in(model.inputs[-1])
    assert read["o2"].startswith("heard")
    assert "spend little" in read["o2"]
    assert "42" in str(read["m"])
    assert outputs_in(inner_model.inputs[-1])["x"].startswith("paid 1")


_TAMPERED = {
    "the state": r"""UPDATE perdure.run_states SET parts = ARRAY(
        SELECT regexp_replace(part, 'cents\\":\s*5,', 'cents\\": 5000,', 'g')
        FROM unnest(parts) WITH ORDINALITY AS p(part, n) ORDER BY n)
        WHERE parts::text ~ 'cents.*5,' AND run_id = %s""",
    "the ledger": """UPDATE perdure.tool_calls SET arguments =
        '{"cents": 5000, "to": "ada"}' WHERE run_id = %s""",
    "the interruption": """UPDATE perdure.interruptions SET tool =
        jsonb_set(tool, '{arguments,cents}', '5000') WHERE run_id = %s""",
    "an edit that nobody made": """UPDATE perdure.interruptions SET tool = tool ||
        '{"original_arguments": {"cents": 5, "to": "ada"},
          "arguments": {"cents": 5000, "to": "ada"}}' WHERE run_id = %s""",
    "the digest": """UPDATE perdure.interruptions SET digest =
        'sha256:' || repeat('0', 64) WHERE run_id = %s""",
}


@pytest.mark.parametrize("what", _TAMPERED)
async def test_what_was_changed_behind_our_back_does_not_run(database_url: str, what: str) -> None:
    tools = Tools()
    model = turns([call("pay", "c1", cents=5, to="ada")], "done")
    async with running(database_url, Agent(name="p", model=model, tools=[tools.pay])) as engine:
        run = await rested(engine, "p")
        [one] = run.interruptions
        async with engine.pool.connection() as conn, conn.transaction():
            await decide_and_resume(
                conn,
                tenant_id=DEFAULT_TENANT,
                interruption_id=UUID(one.id),
                decision=Decision("approve", digest=one.digest),
                by=program_principal("ada"),
            )
            changed = await conn.execute(_TAMPERED[what].encode(), (run.id,))
            assert changed.rowcount == 1
        run = await run.wait(SECONDS)
        assert run.status == "failed"
        assert "call c1 of pay is not what was approved any more" in str(run.error)
    assert (tools.paid, model.asked) == ([], 1)


async def test_a_tool_that_changed_or_went_is_asked_about_again(database_url: str) -> None:
    done: list[str] = []

    def build(*, strict: bool | None) -> Agent[Any]:
        @function_tool(needs_approval=True)
        async def other(text: str) -> str:
            done.append(f"other {text}")
            return "other done"

        @function_tool(needs_approval=True, name_override="pay")
        async def old(cents: int) -> str:
            done.append(f"old {cents}")
            return "old done"

        @function_tool(needs_approval=True, name_override="pay")
        async def new(cents: int, currency: str = "EUR") -> str:
            done.append(f"new {cents} {currency}")
            return "new done"

        tools = {None: [other], True: [other, old], False: [other, new]}[strict]
        return Agent(name="p", model=model, tools=list(tools))

    model = turns([call("pay", "c1", cents=5), call("other", "c2", text="x")], "done")
    async with running(database_url, build(strict=True)) as engine:
        changed, removed = await rested(engine, "p"), await rested(engine, "p")
    async with running(database_url, build(strict=False)) as engine:
        for one in changed.interruptions:
            await engine.decide(one.id, "approve", digest=one.digest)
        run = await (await engine.get(changed.id)).wait(SECONDS)
        assert run.status == "interrupted"
        # What else was approved stands, and waits with it.
        assert done == []
        [again] = run.interruptions
        before = waiting_for(changed, call_id="c1")
        assert (again.replaces, again.tool["call_id"]) == (before.id, "c1")
        assert "currency" in again.tool["schema"]["properties"]
        assert again.digest != before.digest
        voided = await get_interruption_of(engine, before.id)
        assert (voided["status"], voided["reason"]) == ("cancelled", "schema_changed")
        [told] = await query(
            engine,
            "SELECT actor_type FROM perdure.audit_log"
            " WHERE kind = 'interruption.cancelled' AND subject_id = %s",
            str(before.id),
        )
        assert told == {"actor_type": "system"}
        with pytest.raises(InvalidStateError, match="there is a new question"):
            await engine.decide(before.id, "approve", digest=before.digest)
        run = await approve(engine, run)
        assert (run.status, run.error) == ("completed", None)
        assert sorted(done) == ["new 5 EUR", "other x"]
    done.clear()
    async with running(database_url, build(strict=None)) as engine:
        for one in removed.interruptions:
            await engine.decide(one.id, "approve", digest=one.digest)
        run = await (await engine.get(removed.id)).wait(SECONDS)
        assert run.status == "interrupted", run.error
        [again] = run.interruptions
        assert again.tool["schema"] is None
        assert "the tool is gone" in again.question
        voided = await get_interruption_of(engine, waiting_for(removed, call_id="c1").id)
        assert (voided["status"], voided["reason"]) == ("cancelled", "tool_removed")
        run = await approve(engine, run)
        assert (run.status, run.error) == ("completed", None)
    assert done == ["other x"]
    assert "no longer available" in outputs_in(model.inputs[-1])["c1"]


async def get_interruption_of(engine: Engine, interruption_id: str) -> dict[str, Any]:
    """An interruption as the API shows it."""
    async with engine.pool.connection() as conn:
        return await get_interruption(
            conn, tenant_id=DEFAULT_TENANT, interruption_id=UUID(interruption_id)
        )
