"""Runs that stop for a person, and go on as that person said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    HostedMCPTool,
    RunContextWrapper,
    ToolGuardrailFunctionOutput,
    function_tool,
    tool_input_guardrail,
)
from agents.editor import ApplyPatchOperation
from agents.testing import assistant_message, function_call
from agents.tool import DEFAULT_APPROVAL_REJECTION_MESSAGE
from openai.types.responses import ResponseApplyPatchToolCall
from openai.types.responses.response_output_item import McpApprovalRequest

from perdure import tool_call
from perdure.errors import AlreadyDecidedError, DigestMismatchError
from tests.engine_support import (
    SECONDS,
    RuleModel,
    approve,
    call,
    calls_of,
    items_of,
    outputs_in,
    query,
    records,
    rested,
    running,
    turns,
    waiting_for,
)


class Refunds:
    """A gated and an ungated tool, and what they did."""

    def __init__(self) -> None:
        self.refunded: list[int] = []
        self.looked: list[int] = []

        @function_tool(needs_approval=True)
        async def refund(cents: int) -> str:
            self.refunded.append(cents)
            return f"refunded {cents} at attempt {tool_call().attempt}"

        @function_tool
        async def look(cents: int) -> str:
            self.looked.append(cents)
            return "looked"

        self.tools: list[Any] = [refund, look]


@pytest.mark.parametrize("order", ["gated first", "gated last", "gated between"])
async def test_a_gated_tool_beside_ungated_ones(database_url: str, order: str) -> None:
    tools = Refunds()
    gated = call("refund", "g", cents=5)
    free = [call("look", "f1", cents=1), call("look", "f2", cents=2)]
    place = {"gated first": 0, "gated between": 1, "gated last": 2}[order]
    asked = [*free[:place], gated, *free[place:]]
    model = turns(asked, "done")
    async with running(database_url, Agent(name="r", model=model, tools=tools.tools)) as engine:
        run = await rested(engine, "r")
        assert run.status == "interrupted"
        assert (tools.refunded, sorted(tools.looked)) == ([], [1, 2])
        statuses = {key: one["status"] for key, one in (await calls_of(engine, run)).items()}
        assert statuses == {"g": "awaiting_approval", "f1": "succeeded", "f2": "succeeded"}
        run = await approve(engine, run)
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
        items = await items_of(engine, run)
    assert (tools.refunded, sorted(tools.looked)) == ([5], [1, 2])
    assert outputs_in(model.inputs[-1])["g"] == "refunded 5 at attempt 1"
    assert (calls["g"]["status"], calls["g"]["attempt"]) == ("succeeded", 1)
    assert model.asked == run.data["usage"]["requests"] == 2
    assert sorted(item["type"] for item in items) == [
        "message",
        "message_output",
        *["tool_call"] * 3,
        *["tool_call_output"] * 3,
    ]


async def test_an_interrupted_run_is_rows_and_nothing_else(database_url: str) -> None:
    tools = Refunds()
    model = turns([call("refund", "g", cents=5)], "done")
    async with running(database_url, Agent(name="r", model=model, tools=tools.tools)) as engine:
        run = await rested(engine, "r")
        [one] = run.interruptions
        assert (one.type, one.status, one.agent, one.run_id) == (
            "tool_approval",
            "pending",
            "r",
            run.id,
        )
        assert one.tool["name"] == "refund"
        assert one.tool["call_id"] == "g"
        assert one.tool["arguments"] == {"cents": 5}
        assert one.tool["schema"]["properties"]["cents"]["type"] == "integer"

        async def workflows() -> list[str]:
            rows = await query(
                engine, "SELECT status FROM dbos.workflow_status ORDER BY created_at"
            )
            return [row["status"] for row in rows]

        # The run is seen to rest a moment before DBOS has recorded the end of its workflow.
        async with asyncio.timeout(SECONDS):
            while await workflows() != ["SUCCESS"]:  # noqa: ASYNC110 - each look is a query
                await asyncio.sleep(0)
        [segment] = await query(engine, "SELECT status, outcome FROM perdure.segments")
        assert segment == {"status": "rested", "outcome": "interrupted"}
        await approve(engine, run)
        states = await records(engine, run, "checkpoints")
    assert [state["kind"] for state in states] == ["interrupted", "final"]
    assert states[0]["resumed_at"] is not None


@pytest.mark.parametrize("first", ["refused", "allowed"])
async def test_refusing_one_call_of_a_tool_and_allowing_another(
    database_url: str, first: str
) -> None:
    tools = Refunds()
    model = turns([call("refund", "c1", cents=1), call("refund", "c2", cents=2)], "done")
    async with running(database_url, Agent(name="r", model=model, tools=tools.tools)) as engine:
        run = await rested(engine, "r")
        refused, allowed = waiting_for(run, call_id="c1"), waiting_for(run, call_id="c2")

        async def refuse() -> None:
            await engine.decide(refused.id, "reject", message="too much")

        async def allow() -> None:
            await engine.decide(allowed.id, "approve", digest=allowed.digest)

        for step in (refuse, allow) if first == "refused" else (allow, refuse):
            assert (await run.refresh()).status == "interrupted"
            await step()
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert tools.refunded == [2]
    assert outputs_in(model.inputs[-1]) == {"c1": "too much", "c2": "refunded 2 at attempt 1"}
    assert (calls["c1"]["status"], calls["c1"]["attempt"]) == ("rejected", 0)
    assert calls["c1"]["error"] == {"type": "rejected", "message": "too much"}
    assert (calls["c2"]["status"], calls["c2"]["attempt"]) == ("succeeded", 1)


async def test_an_approval_stands_for_no_later_call(database_url: str) -> None:
    tools = Refunds()
    model = turns([call("refund", "c1", cents=1)], [call("refund", "c2", cents=1)], "done")
    async with running(database_url, Agent(name="r", model=model, tools=tools.tools)) as engine:
        run = await rested(engine, "r")
        run = await approve(engine, run)
        assert run.status == "interrupted"
        assert tools.refunded == [1]
        [one] = run.interruptions
        assert one.tool["call_id"] == "c2"
        await engine.decide(one.id, "reject")
        await run.wait(SECONDS)
        assert tools.refunded == [1]
    assert outputs_in(model.inputs[-1])["c2"] == DEFAULT_APPROVAL_REJECTION_MESSAGE


async def test_whether_a_call_needs_approval_may_depend_on_it(database_url: str) -> None:
    paid: list[int] = []
    asked: list[tuple[int, str, str]] = []

    async def large(
        context: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str
    ) -> bool:
        asked.append((arguments["cents"], call_id, context.context["customer"]))
        return bool(arguments["cents"] > 10)

    @function_tool(needs_approval=large)
    async def pay(cents: int) -> str:
        paid.append(cents)
        return "paid"

    model = turns([call("pay", "c1", cents=5), call("pay", "c2", cents=50)], "done")
    async with running(database_url, Agent(name="p", model=model, tools=[pay])) as engine:
        run = await rested(engine, "p", context={"customer": "ada"})
        assert (run.status, paid) == ("interrupted", [5])
        assert {(5, "c1", "ada"), (50, "c2", "ada")} <= set(asked)
        run = await approve(engine, run)
        assert (run.status, sorted(paid)) == ("completed", [5, 50])
        calls = await calls_of(engine, run)
    assert {one["attempt"] for one in calls.values()} == {1}


async def test_a_decision_binds_to_what_was_shown_and_counts_once(database_url: str) -> None:
    tools = Refunds()
    model = turns([call("refund", "g", cents=5)], "done")
    async with running(database_url, Agent(name="r", model=model, tools=tools.tools)) as engine:
        run = await rested(engine, "r")
        [one] = run.interruptions
        with pytest.raises(DigestMismatchError):
            await engine.decide(one.id, "approve", digest="sha256:" + "0" * 64)

        async def decide(n: int) -> str:
            try:
                if n % 2:
                    await engine.decide(one.id, "approve", digest=one.digest, by=f"p{n}")
                else:
                    await engine.decide(one.id, "reject", message="no", by=f"p{n}")
            except AlreadyDecidedError:
                return "late"
            return f"p{n}"

        answers = await asyncio.gather(*(decide(n) for n in range(20)))
        [winner] = [answer for answer in answers if answer != "late"]
        await run.wait(SECONDS)
        assert run.status == "completed"
        decided = await query(engine, "SELECT by_subject, decision FROM perdure.decisions")
        segments = await query(engine, "SELECT seq FROM perdure.segments")
    assert decided == [
        {"by_subject": winner, "decision": "approve" if int(winner[1:]) % 2 else "reject"}
    ]
    assert len(tools.refunded) == int(winner[1:]) % 2
    assert len(segments) == 2


async def test_the_last_two_decisions_at_once_go_on_once(database_url: str) -> None:
    tools = Refunds()
    model = turns([call("refund", f"c{n}", cents=n) for n in range(6)], "done")
    async with running(database_url, Agent(name="r", model=model, tools=tools.tools)) as engine:
        run = await rested(engine, "r")
        await asyncio.gather(
            *(engine.decide(one.id, "approve", digest=one.digest) for one in run.interruptions)
        )
        await run.wait(SECONDS)
        assert run.status == "completed"
        assert len(await query(engine, "SELECT seq FROM perdure.segments")) == 2
    assert sorted(tools.refunded) == list(range(6))


async def test_arguments_that_are_no_object_are_shown_as_they_are(database_url: str) -> None:
    tools = Refunds()
    model = turns([function_call("refund", '{"cents": NaN', call_id="c1")], "done")
    async with running(database_url, Agent(name="r", model=model, tools=tools.tools)) as engine:
        run = await rested(engine, "r")
        [one] = run.interruptions
        assert one.tool["arguments"] == '{"cents": NaN'
        run = await approve(engine, run)
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert tools.refunded == []
    assert (calls["c1"]["arguments"], calls["c1"]["arguments_raw"]) == (None, '{"cents": NaN')
    assert calls["c1"]["status"] == "failed"
    assert "error" in outputs_in(model.inputs[-1])["c1"]


async def test_an_approved_call_still_meets_its_input_guardrails(database_url: str) -> None:
    sent: list[str] = []

    @tool_input_guardrail
    def no_strangers(data: Any) -> ToolGuardrailFunctionOutput:
        if "stranger" in (data.context.tool_arguments or ""):
            return ToolGuardrailFunctionOutput.reject_content("not to strangers")
        return ToolGuardrailFunctionOutput.allow()

    @function_tool(needs_approval=True, tool_input_guardrails=[no_strangers])
    async def send(to: str) -> str:
        sent.append(to)
        return "sent"

    model = turns([call("send", "c1", to="stranger"), call("send", "c2", to="ada")], "done")
    async with running(database_url, Agent(name="m", model=model, tools=[send])) as engine:
        run = await rested(engine, "m")
        run = await approve(engine, run)
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert sent == ["ada"]
    assert outputs_in(model.inputs[-1]) == {"c1": "not to strangers", "c2": "sent"}
    assert (calls["c1"]["status"], calls["c2"]["status"]) == ("approved", "succeeded")


async def test_who_decided_and_what_they_said_stays_with_the_interruption(
    database_url: str,
) -> None:
    tools = Refunds()
    model = turns([call("refund", "g", cents=5)], "done")
    async with running(database_url, Agent(name="r", model=model, tools=tools.tools)) as engine:
        run = await rested(engine, "r")
        [one] = run.interruptions
        decided = await engine.decide(
            one.id, "reject", message="nul \x00, lone \ud800", by="ada@example.com"
        )
        assert decided["status"] == "rejected"
        assert decided["decision"]["by"]["subject"] == "ada@example.com"
        assert decided["decision"]["message"] == "nul \x00, lone \ud800"
        await run.wait(SECONDS)
        assert run.status == "completed"
        assert run.interruptions == []
    assert outputs_in(model.inputs[-1]) == {"g": "nul \x00, lone \ud800"}


@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_a_call_of_a_hosted_mcp_server(database_url: str, decision: str) -> None:
    """The provider makes the call; what a person said goes back to it."""
    asked = McpApprovalRequest(
        type="mcp_approval_request",
        id="r1",
        name="send",
        server_label="mail",
        arguments='{"to": "ada"}',
    )

    def rule(items: list[Any]) -> Any:
        answered = any(item.get("type") == "mcp_approval_response" for item in items)
        return [assistant_message("done")] if answered else [asked]

    model = RuleModel(rule)
    config: Any = {"type": "mcp", "server_label": "mail", "server_url": "https://mail.example/mcp"}
    agent = Agent(name="a", model=model, tools=[HostedMCPTool(tool_config=config)])
    async with running(database_url, agent) as engine:
        run = await rested(engine, "a")
        [one] = run.interruptions
        assert (one.tool["name"], one.tool["arguments"]) == ("send", {"to": "ada"})
        more = {"digest": one.digest} if decision == "approve" else {"message": "not her"}
        await engine.decide(one.id, decision, **more)
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
        assert (await calls_of(engine, run))["r1"]["kind"] == "hosted_mcp"
    answer = model.inputs[-1][-1]
    assert answer["approval_request_id"] == "r1"
    assert answer["approve"] is (decision == "approve")
    assert answer.get("reason") == (None if decision == "approve" else "not her")


async def test_equal_patches_are_decided_apart(database_url: str) -> None:
    """An editor is not told which call it serves: a refused one must not stand in for another."""
    done: list[str] = []

    class Editor:
        async def create_file(self, operation: ApplyPatchOperation) -> None:
            done.append(tool_call().call_id)

        update_file = delete_file = create_file

    def patch(call_id: str) -> ResponseApplyPatchToolCall:
        return ResponseApplyPatchToolCall.model_validate(
            {
                "type": "apply_patch_call",
                "id": f"ap_{call_id}",
                "call_id": call_id,
                "status": "completed",
                "operation": {"type": "create_file", "path": "a", "diff": "+1"},
            }
        )

    model = turns([patch("p1"), patch("p2"), patch("p3")], "done")
    tool = ApplyPatchTool(editor=Editor(), needs_approval=True)
    async with running(database_url, Agent(name="a", model=model, tools=[tool])) as engine:
        run = await rested(engine, "a")
        shown = {one.tool["call_id"]: one for one in run.interruptions}
        assert shown["p1"].tool["arguments"] == {"type": "create_file", "path": "a", "diff": "+1"}
        await engine.decide(shown["p1"].id, "reject", message="no")
        for call_id in ("p3", "p2"):
            one = shown[call_id]
            await engine.decide(one.id, "approve", digest=one.digest)
        await run.wait(SECONDS)
        assert (run.status, run.data["error"]) == ("completed", None)
        statuses = {key: one["status"] for key, one in (await calls_of(engine, run)).items()}
    assert sorted(done) == ["p2", "p3"]
    assert statuses == {"p1": "rejected", "p2": "succeeded", "p3": "succeeded"}
