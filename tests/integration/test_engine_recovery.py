"""A segment taken over while its first execution still runs: what a recovery does, and a zombie.

The second execution is begun as after a crash; the first one lives on, paused inside a tool or a
model call, and must change nothing when it wakes.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from uuid import UUID

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    CustomTool,
    LocalShellTool,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    ShellCallOutcome,
    ShellCommandOutput,
    ShellResult,
    ShellTool,
    ToolOutputImage,
    ToolOutputText,
    function_tool,
)
from agents.editor import ApplyPatchOperation, ApplyPatchResult
from agents.run_config import CallModelData, ModelInputData
from agents.testing import assistant_message
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseCustomToolCall,
    ResponseFunctionShellToolCall,
    ResponseFunctionWebSearch,
    ResponseReasoningItem,
)
from openai.types.responses.response_output_item import LocalShellCall
from pydantic import BaseModel, Field

from perdure import effect, tool_call
from perdure.access.principals import DEFAULT_TENANT
from perdure.engine import Engine, Run
from perdure.ledger.effects import EffectName
from perdure.runs.execution import current_execution
from perdure.runs.registry import Registry
from perdure.runs.resume import retry
from perdure.runs.workflow import SegmentRunner
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    approve,
    call,
    calls_of,
    error_of,
    items_of,
    other_worker,
    outputs_in,
    query,
    records,
    replies_in,
    rested,
    running,
    turns,
    waiting_for,
)

TABLES = ("model_responses", "tool_calls", "run_states", "run_items", "interruptions")


async def take_over(
    engine: Engine, url: str, run: Run, seq: int = 1, registry: Registry | None = None
) -> str:
    """Begin segment ``seq`` of a run again and drive it to its rest; return how it ended."""
    async with other_worker(engine, url) as other:
        if registry is not None:
            other.registry = registry
        async with asyncio.timeout(SECONDS):
            ended = await other.run(UUID(run.id), seq)
    await run.refresh()
    return ended


async def _everything(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = {
        table: await query(engine, f"SELECT * FROM perdure.{table} ORDER BY id") for table in TABLES
    }
    found["runs"] = await query(engine, "SELECT * FROM perdure.runs")
    found["segments"] = await query(engine, "SELECT * FROM perdure.segments ORDER BY seq")
    return found


async def _first_is_fenced(engine: Engine, gate: Gate) -> None:
    """Wake the zombie, wait for its end, and see that it changed nothing."""
    before = await _everything(engine)
    gate.open()
    worker = engine._worker
    assert worker is not None
    runner = worker._runner
    assert isinstance(runner, SegmentRunner)
    async with asyncio.timeout(SECONDS):
        await runner.quiet()
    assert await _everything(engine) == before


class Paused:
    """A tool whose first attempt stops at a gate."""

    def __init__(self, kind: EffectName) -> None:
        self.gate = Gate()
        self.calls: list[tuple[int, str]] = []

        @effect(kind)
        @function_tool
        async def send(text: str) -> str:
            known = tool_call()
            self.calls.append((known.attempt, known.idempotency_key))
            if known.attempt == 1:
                await self.gate.stop()
            return f"sent {text} at attempt {known.attempt}"

        self.tool = send


@pytest.mark.parametrize("kind", ["read", "idempotent"])
async def test_an_effect_that_may_repeat_runs_again_with_the_same_key(
    database_url: str, kind: Literal["read", "idempotent"]
) -> None:
    paused = Paused(kind)
    done: list[str] = []

    @function_tool
    async def beside() -> str:
        done.append("beside")
        return "beside"

    model = turns([call("beside", "c0"), call("send", "c1", text="it")], "done")
    agent = Agent(name="a", model=model, tools=[paused.tool, beside])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await paused.gate.reached()
        await _recorded(engine, "c0")
        assert await take_over(engine, database_url, run) == "completed"
        assert run.output == "done"
        asked, read = model.asked, outputs_in(model.inputs[-1])
        await _first_is_fenced(engine, paused.gate)
        calls = await calls_of(engine, run)
        [segment] = await query(engine, "SELECT epoch, executions FROM perdure.segments")
        usage = await records(engine, run, "usage")
    assert segment == {"epoch": 2, "executions": 2}
    [(first, key), (second, same_key)] = paused.calls
    assert (first, second, key) == (1, 2, same_key)
    assert (calls["c1"]["status"], calls["c1"]["attempt"]) == ("succeeded", 2)
    assert calls["c1"]["output"] == "sent it at attempt 2"
    # What was recorded is neither asked for nor done again, and paid for once.
    assert done == ["beside"]
    assert calls["c0"]["attempt"] == 1
    assert asked == len(usage) == 2
    assert read == {"c0": "beside", "c1": "sent it at attempt 2"}


async def _recorded(engine: Engine, call_id: str) -> None:
    async with asyncio.timeout(SECONDS):
        while not await query(  # noqa: ASYNC110 - each look is a query
            engine,
            "SELECT 1 FROM perdure.tool_calls WHERE call_id = %s AND finished_at IS NOT NULL",
            call_id,
        ):
            await asyncio.sleep(0)


@pytest.mark.parametrize("outcome", ["done", "done without result", "not_done", "abandon"])
async def test_an_effect_that_must_not_repeat_is_asked_about(
    database_url: str, outcome: str
) -> None:
    paused = Paused("at_most_once")
    model = turns([call("send", "c1", text="it")], "done")
    agent = Agent(name="a", model=model, tools=[paused.tool])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await paused.gate.reached()
        assert await take_over(engine, database_url, run) == "interrupted"
        [one] = run.interruptions
        assert (one.type, one.agent) == ("uncertain_effect", "a")
        assert one.tool["name"] == "send"
        assert one.tool["arguments"] == {"text": "it"}
        assert "send" in one.question
        assert model.asked == 1
        await _first_is_fenced(engine, paused.gate)
        assert (await calls_of(engine, run))["c1"]["status"] == "uncertain"
        assert len(paused.calls) == 1
        asked = model.asked

        decision: dict[str, Any] = {"outcome": outcome.split()[0]}
        if outcome == "done":
            decision["result"] = "it was sent"
        await engine.decide(one.id, "resolve", by="ada", **decision)
        await run.wait(SECONDS)
        calls = await calls_of(engine, run)
        if outcome == "abandon":
            assert error_of(run)["type"] == "abandoned"
            assert "ada" in error_of(run)["message"]
            # Resumed, it asks again before anything happens.
            async with engine.pool.connection() as conn:
                await retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))
            await run.wait(SECONDS)
            assert run.status == "interrupted"
            [one] = run.interruptions
            await engine.decide(one.id, "resolve", outcome="done", result="after all")
            await run.wait(SECONDS)
            calls = await calls_of(engine, run)
        assert (run.status, run.output) == ("completed", "done")
    read = outputs_in(model.inputs[-1])["c1"]
    assert model.asked == asked + 1
    if outcome == "not_done":
        assert [attempt for attempt, _ in paused.calls] == [1, 2]
        assert (read, calls["c1"]["attempt"]) == ("sent it at attempt 2", 2)
    else:
        assert len(paused.calls) == 1
        assert calls["c1"]["attempt"] == 1
        assert calls["c1"]["output"] == read
    if outcome == "done":
        assert read == "it was sent"
    elif outcome == "done without result":
        assert "carried out" in read
    assert calls["c1"]["status"] == "succeeded"


async def test_several_doubts_are_asked_about_at_once(database_url: str) -> None:
    gate = Gate()
    sent: list[str] = []

    @function_tool
    async def send(text: str) -> str:
        sent.append(text)
        if tool_call().attempt == 1:
            await gate.stop()
        return f"sent {text}"

    inner = Agent(
        name="inner",
        model=RuleModel(
            lambda items: (
                [call("send", "c1", text="inner")]
                if replies_in(items) == 0
                else [assistant_message(outputs_in(items)["c1"])]
            )
        ),
        tools=[send],
    )
    model = turns([call("send", "c1", text="outer"), call("ask", "c2", input="x")], "done")
    agent = Agent(name="a", model=model, tools=[send, inner.as_tool("ask", "asks")])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        async with asyncio.timeout(SECONDS):
            while len(sent) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert await take_over(engine, database_url, run) == "interrupted"
        assert len(run.interruptions) == 2
        outer = waiting_for(run, arguments={"text": "outer"})
        nested = waiting_for(run, arguments={"text": "inner"})
        await engine.decide(outer.id, "resolve", outcome="not_done")
        assert (await run.refresh()).status == "interrupted"
        await engine.decide(nested.id, "resolve", outcome="done", result="was sent")
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
        await _first_is_fenced(engine, gate)
    assert sorted(sent) == ["inner", "outer", "outer"]
    assert outputs_in(model.inputs[-1]) == {"c1": "sent outer", "c2": "was sent"}
    assert run.data["usage"]["requests"] == 4


async def test_a_call_begun_late_in_a_segment_is_begun_again_in_the_next(
    database_url: str,
) -> None:
    """Two deaths in one segment, a question, and the calls beside it go on in the segment after."""
    gate, under_way = Gate(), Gate()
    asked: list[int] = []
    keys: list[str] = []
    shipped: list[int] = []

    async def rule(items: list[Any]) -> Any:
        asked.append(replies_in(items))
        if len(asked) == 1:
            await gate.stop()
        if replies_in(items) == 0:
            return [call("send", "c1"), call("ship", "c2")]
        return [assistant_message("; ".join(outputs_in(items).values()))]

    @effect("idempotent")
    @function_tool
    async def send() -> str:
        keys.append(tool_call().idempotency_key)
        if len(keys) == 1:
            await gate.stop()
        return "sent"

    @function_tool
    async def ship() -> str:
        shipped.append(tool_call().attempt)
        if len(shipped) == 1:
            await under_way.stop()
        return "shipped"

    agent = Agent(name="a", model=RuleModel(rule), tools=[send, ship])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        second = asyncio.create_task(take_over(engine, database_url, run))
        await under_way.reached()
        assert await take_over(engine, database_url, run) == "interrupted"
        [doubt] = run.interruptions
        await engine.decide(doubt.id, "resolve", outcome="not_done")
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
        assert run.output == "sent; shipped"
        under_way.open()
        await _first_is_fenced(engine, gate)
        await second
        calls = await calls_of(engine, run)
    assert (keys, shipped) == ([keys[0]] * 2, [1, 2])
    assert [calls[id]["attempt"] for id in ("c1", "c2")] == [2, 2]


async def test_a_transaction_of_a_zombie_does_not_commit(database_url: str) -> None:
    gate = Gate()

    @effect("transactional")
    @function_tool
    async def book() -> str:
        known = tool_call()
        await known.connection.execute("INSERT INTO bookings VALUES (%s)", (known.attempt,))
        if known.attempt == 1:
            await gate.stop()
        return f"booked at attempt {known.attempt}"

    model = turns([call("book", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[book])) as engine:
        await query(engine, "CREATE TABLE bookings (attempt int)")
        run = await engine.start("a", "hi")
        await gate.reached()
        assert await take_over(engine, database_url, run) == "completed"
        await _first_is_fenced(engine, gate)
        assert await query(engine, "SELECT attempt FROM bookings") == [{"attempt": 2}]
        assert (await calls_of(engine, run))["c1"]["output"] == "booked at attempt 2"


async def test_a_reply_that_comes_to_a_zombie_is_nobodys(database_url: str) -> None:
    gate = Gate()
    asked: list[str] = []
    sent: list[str] = []

    async def rule(items: list[Any]) -> Any:
        asked.append("")
        if len(asked) == 1:
            await gate.stop()
            return [call("send", "zombie", text="zombie")]
        if replies_in(items) == 0:
            return [call("send", "c1", text="it")]
        return [assistant_message("done")]

    @function_tool
    async def send(text: str) -> str:
        sent.append(text)
        return "sent"

    agent = Agent(name="a", model=RuleModel(rule), tools=[send])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        assert await take_over(engine, database_url, run) == "completed"
        await _first_is_fenced(engine, gate)
        assert sorted(await calls_of(engine, run)) == ["c1"]
    assert sent == ["it"]
    assert run.data["usage"]["requests"] == 2


async def test_a_segment_that_rested_does_not_begin_again(database_url: str) -> None:
    @function_tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    model = turns([call("pay", "c1")], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[pay])) as engine:
        run = await rested(engine, "a")
        before = await _everything(engine)
        assert await take_over(engine, database_url, run, 1) == "over"
        assert await _everything(engine) == before
        run = await approve(engine, run)
        before = await _everything(engine)
        assert await take_over(engine, database_url, run, 1) == "over"
        assert await take_over(engine, database_url, run, 2) == "over"
        assert await _everything(engine) == before


async def test_an_approval_holds_after_a_takeover(database_url: str) -> None:
    gate = Gate()
    attempts: list[int] = []

    @function_tool(needs_approval=True)
    async def pay(cents: int) -> str:
        attempts.append(tool_call().attempt)
        if cents == 1 and len(attempts) == 1:
            await gate.stop()
        return f"paid {cents}"

    model = turns([call("pay", "c1", cents=1), call("pay", "c2", cents=2)], "done")
    async with running(database_url, Agent(name="a", model=model, tools=[pay])) as engine:
        run = await rested(engine, "a")
        first, second = waiting_for(run, call_id="c1"), waiting_for(run, call_id="c2")
        await engine.decide(second.id, "reject", message="no")
        await engine.decide(first.id, "approve", digest=first.digest)
        await gate.reached()
        assert await take_over(engine, database_url, run, 2) == "interrupted"
        [one] = run.interruptions
        assert (one.type, one.tool["call_id"]) == ("uncertain_effect", "c1")
        await engine.decide(one.id, "resolve", outcome="not_done")
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
        assert model.asked == 2
        assert outputs_in(model.inputs[-1]) == {"c1": "paid 1", "c2": "no"}
        await _first_is_fenced(engine, gate)
    assert attempts == [1, 2]


class Answer(BaseModel):
    """A typed output whose field has another name in JSON."""

    cents: int = Field(alias="centsPaid")


class Files:
    """An editor that notes what it did."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def create_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        self.log.append(f"create {operation.path}")
        return ApplyPatchResult(status="completed", output="created")

    def update_file(self, operation: ApplyPatchOperation) -> str:
        self.log.append(f"update {operation.path}")
        return "updated"

    def delete_file(self, operation: ApplyPatchOperation) -> None:
        self.log.append(f"delete {operation.path}")


def _patch(call_id: str, **operation: str) -> ResponseApplyPatchToolCall:
    return ResponseApplyPatchToolCall.model_validate(
        {
            "type": "apply_patch_call",
            "id": f"ap_{call_id}",
            "call_id": call_id,
            "status": "completed",
            "operation": operation,
        }
    )


def _all_tools(log: list[str]) -> list[Any]:  # noqa: C901 - a list
    @function_tool
    async def text() -> str:
        log.append("text")
        return "text \x00 \ud800"

    @function_tool
    async def table() -> dict[str, Any]:
        log.append("table")
        return {"rows": [1, 2.5, None], "nan": float("nan")}

    @function_tool
    async def picture() -> list[Any]:
        log.append("picture")
        return [
            ToolOutputText(text="a dot"),
            ToolOutputImage(image_url="data:image/png;base64,AAAA", detail="low"),
        ]

    @function_tool(output_type=Answer)
    async def typed() -> Answer:
        log.append("typed")
        return Answer(centsPaid=5)

    @function_tool
    def plain() -> tuple[int, int]:
        log.append("plain")
        return 1, 2

    @function_tool
    async def breaks() -> str:
        log.append("breaks")
        raise ValueError("broken")

    @function_tool(failure_error_function=lambda _, error: f"sorry {error}")
    async def breaks_kindly() -> str:
        log.append("breaks_kindly")
        raise ValueError("broken")

    @effect("read")
    @function_tool(timeout=0.01)
    async def slow() -> str:
        log.append("slow")
        await asyncio.Event().wait()
        return "never"

    @effect("read")
    @function_tool
    async def cancels() -> str:
        log.append("cancels")
        raise asyncio.CancelledError

    @function_tool
    async def silent() -> None:
        log.append("silent")

    async def grep(_: Any, given: str) -> str:
        log.append(f"grep {given}")
        return "found"

    def run_shell(request: Any) -> ShellResult:
        log.append("shell")
        if request.data.action.commands == ["fail"]:
            raise PermissionError("not here")
        outcome = ShellCallOutcome(type="timeout")
        return ShellResult([ShellCommandOutput("out", "err", outcome)], max_output_length=100)

    async def run_local(request: Any) -> str:
        log.append("local")
        return "local"

    return [
        *[text, table, picture, typed, plain, breaks, breaks_kindly, slow, cancels, silent],
        CustomTool(name="grep", description="Looks.", on_invoke_tool=grep),
        ShellTool(executor=run_shell),
        LocalShellTool(executor=run_local),
        ApplyPatchTool(editor=Files(log)),
    ]


def _all_calls(tools: list[Any]) -> list[Any]:
    action = {"type": "exec", "command": ["ls"], "env": {}}
    return [
        *(call(tool.name, f"f-{tool.name}") for tool in tools[:10]),
        ResponseCustomToolCall(
            type="custom_tool_call", call_id="custom", name="grep", input="x", id="ctc"
        ),
        *(
            ResponseFunctionShellToolCall.model_validate(
                {
                    "type": "shell_call",
                    "id": f"sh-{command}",
                    "call_id": f"shell-{command}",
                    "status": "completed",
                    "action": {"commands": [command], "timeout_ms": 10},
                }
            )
            for command in ("ls", "fail")
        ),
        LocalShellCall.model_validate(
            {
                "type": "local_shell_call",
                "id": "ls",
                "call_id": "local",
                "status": "completed",
                "action": action,
            }
        ),
        _patch("p1", type="create_file", path="a", diff="+1"),
        _patch("p2", type="update_file", path="a", diff="+2"),
        _patch("p3", type="update_file", path="a", diff="+2"),
        _patch("p4", type="delete_file", path="a"),
    ]


def _thoughts() -> list[Any]:
    """What a reply may hold besides calls of ours."""
    return [
        ResponseReasoningItem.model_validate(
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "think"}],
                "encrypted_content": "opaque",
                "later_field": {"kept": True},
            }
        ),
        ResponseFunctionWebSearch.model_validate(
            {
                "type": "web_search_call",
                "id": "ws_1",
                "status": "completed",
                "action": {"type": "search", "query": "perdure"},
            }
        ),
        assistant_message("let me see"),
    ]


async def test_a_replay_shows_the_model_what_it_was_shown(database_url: str) -> None:
    """Every kind of output comes back from its row as it went in, and no tool runs twice."""
    log: list[str] = []
    tools = _all_tools(log)
    gate = Gate()

    async def rule(items: list[Any]) -> Any:
        if replies_in(items) == 0:
            return [*_thoughts(), *_all_calls(tools)]
        if model.asked == 2:
            await gate.stop()
        return [assistant_message("done")]

    model = RuleModel(rule)
    async with running(database_url, Agent(name="a", model=model, tools=tools)) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        ran = sorted(log)
        assert len(ran) == len(_all_calls(tools))
        # All outcomes are in their rows before they are needed.
        for one in _all_calls(tools):
            await _recorded(engine, one.call_id)
        assert await take_over(engine, database_url, run) == "completed"
        await _first_is_fenced(engine, gate)
        items = await items_of(engine, run)
        calls = await calls_of(engine, run)
    assert sorted(log) == ran
    first, second, third = model.inputs
    assert len(first) == 1
    assert third == second
    assert len(items) == 2 + len(_thoughts()) + 2 * len(_all_calls(tools))
    assert {one["attempt"] for one in calls.values()} == {1}
    assert calls["f-typed"]["output"] == {"cents": 5}


async def test_replies_of_nested_agents_are_matched_by_what_they_answered(
    database_url: str,
) -> None:
    """Two runs of one agent in one turn, taken over when each stands at another place."""
    gate = Gate()
    sent: list[str] = []

    @effect("idempotent")
    @function_tool
    async def send(text: str) -> str:
        sent.append(text)
        if text == "two" and tool_call().attempt == 1:
            await gate.stop()
        return f"sent {text}"

    def rule(items: list[Any]) -> Any:
        text = items[0]["content"]
        if replies_in(items) == 0:
            return [call("send", "same", text=text)]
        return [assistant_message(f"[{outputs_in(items)['same']}]")]

    inner_model = RuleModel(rule)
    inner = Agent(name="inner", model=inner_model, tools=[send])
    model = turns(
        [call("ask", f"a{n}", input=text) for n, text in enumerate(["one", "two", "three"])], "done"
    )
    agent = Agent(name="a", model=model, tools=[inner.as_tool("ask", "asks")])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        await _recorded(engine, "a0")
        await _recorded(engine, "a2")
        asked = inner_model.asked
        assert asked == 5
        assert await take_over(engine, database_url, run) == "completed"
        await _first_is_fenced(engine, gate)
        calls = await calls_of(engine, run)
    assert outputs_in(model.inputs[-1]) == {
        "a0": "[sent one]",
        "a1": "[sent two]",
        "a2": "[sent three]",
    }
    assert sorted(sent) == ["one", "three", "two", "two"]
    assert run.data["usage"]["requests"] == 8
    assert calls["a1/same"]["attempt"] == 2


async def test_a_question_of_a_nested_run_is_asked_by_whoever_takes_over(
    database_url: str,
) -> None:
    """Its replies are recorded, its question is not yet: a replay comes to the same one."""
    paused = Paused("idempotent")
    paid: list[str] = []

    @function_tool(needs_approval=True)
    async def pay(text: str) -> str:
        paid.append(text)
        return f"paid {text}"

    def rule(items: list[Any]) -> Any:
        if replies_in(items) == 0:
            return [call("pay", "same", text=items[0]["content"])]
        return [assistant_message(f"[{outputs_in(items)['same']}]")]

    inner_model = RuleModel(rule)
    inner = Agent(name="inner", model=inner_model, tools=[pay])
    model = turns(
        [
            call("ask", "a", input="one"),
            call("send", "same", text="it"),
            call("ask", "b", input="two"),
        ],
        "done",
    )
    agent = Agent(name="a", model=model, tools=[inner.as_tool("ask", "asks"), paused.tool])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await paused.gate.reached()
        async with asyncio.timeout(SECONDS):
            while len(await records(engine, run, "usage")) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert await take_over(engine, database_url, run) == "interrupted"
        assert (model.asked, inner_model.asked) == (1, 2)
        one = waiting_for(run, arguments={"text": "one"})
        two = waiting_for(run, arguments={"text": "two"})
        await _first_is_fenced(engine, paused.gate)
        await engine.decide(one.id, "approve", digest=one.digest)
        await engine.decide(two.id, "reject", message="no")
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
    assert paid == ["one"]
    assert outputs_in(model.inputs[-1]) == {
        "a": "[paid one]",
        "same": "sent it at attempt 2",
        "b": "[no]",
    }
    assert run.data["usage"]["requests"] == 6


@pytest.mark.parametrize("stands_at", ["outer", "middle"])
async def test_a_nested_run_that_was_approved_and_ended_waits_no_more(
    database_url: str, stands_at: str
) -> None:
    """The state the segment began at has it waiting; its outcome is in its row since."""
    gate = Gate()
    paid: list[str] = []

    @function_tool(needs_approval=True)
    async def pay() -> str:
        paid.append(tool_call().idempotency_key)
        return "paid"

    def asks(name: str, who: str) -> RuleModel:
        async def rule(items: list[Any]) -> Any:
            if replies_in(items) == 0:
                return [call(who, "c1", input="x")]
            if name == stands_at and not gate.was_reached:
                await gate.stop()
            return [assistant_message(f"{name}({outputs_in(items)['c1']})")]

        return RuleModel(rule)

    inner_model = RuleModel(
        lambda items: (
            [call("pay", "c1")]
            if replies_in(items) == 0
            else [assistant_message(f"inner({outputs_in(items)['c1']})")]
        )
    )
    inner = Agent(name="inner", model=inner_model, tools=[pay])
    middle_model, outer_model = asks("middle", "ask_inner"), asks("outer", "ask_middle")
    middle = Agent(name="middle", model=middle_model, tools=[inner.as_tool("ask_inner", "asks")])
    outer = Agent(name="outer", model=outer_model, tools=[middle.as_tool("ask_middle", "asks")])
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        [one] = run.interruptions
        await engine.decide(one.id, "approve", digest=one.digest)
        await gate.reached()
        await _recorded(engine, "c1")
        assert await take_over(engine, database_url, run, 2) == "completed"
        assert run.output == "outer(middle(inner(paid)))"
        await _first_is_fenced(engine, gate)
    assert len(paid) == 1
    assert inner_model.asked == 2
    assert run.data["usage"]["requests"] == 6


async def test_a_takeover_begins_at_the_latest_state(database_url: str) -> None:
    """Past a handoff and a state in between; what is before them is not even read."""
    gate = Gate()
    ran: list[int] = []

    @effect("idempotent")
    @function_tool
    async def step(n: int) -> str:
        ran.append(n)
        if n == 60 and tool_call().attempt == 1:
            await gate.stop()
        return f"did {n}"

    def rule(items: list[Any]) -> Any:
        n = replies_in(items)
        return [assistant_message("done") if n == 65 else call("step", f"c{n}", n=n)]

    back_model = RuleModel(rule)
    back = Agent(name="back", model=back_model, tools=[step])
    front_model = turns([call("transfer_to_back", "h1")])
    front = Agent(name="front", model=front_model, handoffs=[back])
    async with running(database_url, front) as engine:
        run = await engine.start("front", "hi", max_turns=100)
        await gate.reached()
        asked = back_model.asked
        assert await take_over(engine, database_url, run) == "completed"
        assert (front_model.asked, back_model.asked) == (1, asked + 5)
        assert [len(given) for given in back_model.inputs] == [3 + 2 * n for n in range(65)]
        await _first_is_fenced(engine, gate)
        states = await records(engine, run, "checkpoints")
        items = await items_of(engine, run)
    assert [state["kind"] for state in states] == ["handoff", "periodic", "final"]
    assert sorted(ran) == sorted([*range(1, 65), 60])
    assert [item["item"].get("call_id") for item in items[3:-1]] == [
        f"c{n}" for n in range(1, 65) for _ in range(2)
    ]
    assert run.data["usage"]["requests"] == 66


@pytest.mark.parametrize("typed", [True, False])
async def test_a_replay_gives_back_the_context_as_tools_had_left_it(
    database_url: str, typed: bool
) -> None:
    class Basket(BaseModel):
        items: list[str] = []

    gate = Gate()

    def items(context: RunContextWrapper[Any]) -> list[str]:
        found: list[str] = context.context.items if typed else context.context["items"]
        return found

    @function_tool
    async def add(context: RunContextWrapper[Any], item: str) -> str:
        items(context).append(item)
        return "added"

    @effect("read")
    @function_tool
    async def show(context: RunContextWrapper[Any]) -> str:
        if tool_call().attempt == 1:
            await gate.stop()
        return ",".join(items(context))

    model = turns(
        [call("add", "c1", item="a")], [call("add", "c2", item="b")], [call("show", "c3")], "done"
    )
    agent = Agent(name="a", model=model, tools=[add, show])
    options: dict[str, Any] = {"context_type": Basket} if typed else {}
    async with running(database_url, agent, **options) as engine:
        run = await engine.start("a", "hi", context={"items": []})
        await gate.reached()
        assert await take_over(engine, database_url, run) == "completed"
        assert outputs_in(model.inputs[-1])["c3"] == "a,b"
        await _first_is_fenced(engine, gate)
        [row] = await query(engine, "SELECT context FROM perdure.runs")
    assert row["context"] == {"items": ["a", "b"]}


async def test_instructions_that_change_do_not_lose_a_reply(database_url: str) -> None:
    paused = Paused("idempotent")
    said: list[str] = []

    def instructions(context: Any, agent: Any) -> str:
        said.append(f"It is {len(said)} o'clock.")
        return said[-1]

    model = turns([call("send", "c1", text="it")], "done")
    agent = Agent(name="a", instructions=instructions, model=model, tools=[paused.tool])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await paused.gate.reached()
        assert await take_over(engine, database_url, run) == "completed"
        assert model.asked == 2
        assert len(said) > 2
        await _first_is_fenced(engine, paused.gate)


@pytest.mark.parametrize("outcome", ["done", "not_done", "abandon"])
@pytest.mark.parametrize("begun", ["finished", "under way"])
async def test_a_conversation_that_comes_out_differently_is_asked_about(
    database_url: str, outcome: str, begun: str
) -> None:
    """The model is never asked anew behind people's backs once a reply has had effects."""
    gate = Gate()
    turn_of_the_clock = ["morning"]
    sent: list[str] = []

    async def clocked(data: CallModelData[Any]) -> ModelInputData:
        note: Any = {"role": "developer", "content": f"good {turn_of_the_clock[-1]}"}
        return ModelInputData(input=[*data.model_data.input, note], instructions=None)

    @effect("idempotent")
    @function_tool
    async def send(text: str) -> str:
        sent.append(text)
        if begun == "under way" and len(sent) == 1:
            await gate.stop()
        return f"sent {text}"

    async def rule(items: list[Any]) -> Any:
        morning = items[-1]["content"] == "good morning"
        if not outputs_in(items):
            return [call("send", "c1" if morning else "c2", text="it")]
        if morning:
            await gate.stop()
        return [assistant_message("done")]

    model = RuleModel(rule)
    config = RunConfig(call_model_input_filter=clocked)
    agent = Agent(name="a", model=model, tools=[send])
    async with running(database_url, agent, run_config=config) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        turn_of_the_clock.append("evening")
        assert await take_over(engine, database_url, run) == "interrupted"
        assert model.asked == (2 if begun == "finished" else 1)
        [one] = run.interruptions
        assert (one.type, one.tool["call_id"]) == ("uncertain_effect", "c1")
        await _first_is_fenced(engine, gate)
        assert sent == ["it"]
        await engine.decide(one.id, "resolve", outcome=outcome)
        await run.wait(SECONDS)
        if outcome == "abandon":
            assert error_of(run)["type"] == "abandoned"
            assert len(sent) == 1
        else:
            # Somebody has looked: the model is asked anew.
            assert (run.status, run.error) == ("completed", None)
            assert sent == ["it", "it"]
            assert outputs_in(model.inputs[-1]) == {"c2": "sent it"}


async def test_a_tool_that_is_gone_answers_from_its_row(database_url: str) -> None:
    paused = Paused("idempotent")
    looked: list[str] = []

    @function_tool
    async def look() -> str:
        looked.append("look")
        return "saw"

    model = turns([call("look", "c1")], [call("send", "c2", text="it")], "done")
    agent = Agent(name="a", model=model, tools=[look, paused.tool])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await paused.gate.reached()
        newer = Engine([Agent(name="a", model=model, tools=[paused.tool])]).registry
        assert await take_over(engine, database_url, run, registry=newer) == "completed"
        assert outputs_in(model.inputs[-1]) == {"c1": "saw", "c2": "sent it at attempt 2"}
        await _first_is_fenced(engine, paused.gate)
    assert looked == ["look"]


async def test_a_tool_that_is_gone_in_mid_effect_is_asked_about(database_url: str) -> None:
    paused = Paused("idempotent")
    model = turns([call("send", "c1", text="it")], "done")
    agent = Agent(name="a", model=model, tools=[paused.tool])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await paused.gate.reached()
        newer = Engine([Agent(name="a", model=model)]).registry
        assert await take_over(engine, database_url, run, registry=newer) == "interrupted"
        [one] = run.interruptions
        assert (one.type, one.tool["name"]) == ("uncertain_effect", "send")
        await _first_is_fenced(engine, paused.gate)
        await engine.decide(one.id, "resolve", outcome="done", result="was sent")
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
    assert len(paused.calls) == 1
    assert outputs_in(model.inputs[-1]) == {"c1": "was sent"}


async def test_an_agent_that_is_gone_in_mid_run_has_its_effects_asked_about(
    database_url: str,
) -> None:
    paused, sent = Paused("idempotent"), list[str]()

    @function_tool
    async def note() -> str:
        sent.append("note")
        return "noted"

    def build(name: str) -> Agent[Any]:
        script = [call("note", "n1")], [call("send", "n2", text="it")], "sent"
        helper = Agent(name=name, model=turns(*script), tools=[note, paused.tool])
        model = turns([call("ask", "c1", input="go")], "done")
        return Agent(name="a", model=model, tools=[helper.as_tool("ask", "asks")])

    async with running(database_url, build("helper")) as engine:
        run = await engine.start("a", "hi")
        await paused.gate.reached()
        newer = Engine([build("assistant")]).registry
        assert await take_over(engine, database_url, run, registry=newer) == "interrupted"
        # Asked anew under its new name, its model would have both made again.
        asked = {one.tool["name"]: one.type for one in run.interruptions}
        assert asked == {"note": "uncertain_effect", "send": "uncertain_effect"}
        await _first_is_fenced(engine, paused.gate)
    assert (sent, len(paused.calls)) == (["note"], 1)


async def test_lost_connections_delay_a_run_and_nothing_else(database_url: str) -> None:
    ran: list[str] = []

    @function_tool
    async def cut(name: str) -> str:
        ran.append(name)
        await query(
            engine,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND application_name LIKE %s",
            "perdure%",
        )
        return f"cut {name}"

    model = turns([call("cut", "c1", name="a")], [call("cut", "c2", name="b")], "done")
    agent = Agent(name="a", model=model, tools=[cut])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        # Who waits loses connections too.
        await run.wait(SECONDS)
        assert (run.status, run.error, run.output) == ("completed", None, "done")
        calls = await calls_of(engine, run)
    assert ran == ["a", "b"]
    assert model.asked == 3
    assert outputs_in(model.inputs[-1]) == {"c1": "cut a", "c2": "cut b"}
    assert {one["attempt"] for one in calls.values()} == {1}


async def test_what_was_never_begun_is_not_asked_about(database_url: str) -> None:
    """A transaction is lost; this process knows which calls it had not begun yet."""
    attempts: list[tuple[str, int]] = []

    @effect("transactional")
    @function_tool
    async def cut() -> str:
        attempts.append(("cut", tool_call().attempt))
        if tool_call().attempt == 1:
            session = tool_call().connection.info.backend_pid
            await query(engine, "SELECT pg_terminate_backend(%s)", session)
        return "cut"

    @function_tool
    async def send() -> str:
        attempts.append(("send", tool_call().attempt))
        return "sent"

    class Hooks(RunHooks[Any]):
        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            execution = current_execution.get()
            if tool.name == "send" and execution is not None and execution.epoch == 1:
                await execution.stopped

    model = turns([call("cut", "c1"), call("send", "c2")], "done")
    agent = Agent(name="a", model=model, tools=[cut, send])
    async with running(database_url, agent, hooks=Hooks()) as engine:
        run = await rested(engine, "a")
        assert (run.status, run.data["error"]) == ("completed", None)
        calls = await calls_of(engine, run)
        [segment] = await query(engine, "SELECT executions FROM perdure.segments")
    assert segment == {"executions": 2}
    assert sorted(attempts) == [("cut", 1), ("cut", 2), ("send", 1)]
    assert (calls["c1"]["attempt"], calls["c2"]["attempt"]) == (2, 1)
    assert model.asked == 2


async def test_cancelling_a_run_nobody_executes_any_more(database_url: str) -> None:
    """Its worker died with a call under way; whoever takes the run over ends it."""
    paused = Paused("at_most_once")
    model = turns([call("send", "c1", text="it")], "done")
    agent = Agent(name="a", model=model, tools=[paused.tool])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await paused.gate.reached()
        await query(engine, "UPDATE perdure.runs SET cancel_requested_at = now()")
        assert await take_over(engine, database_url, run) == "cancelled"
        assert run.status == "cancelled"
        assert (await calls_of(engine, run))["c1"]["status"] == "uncertain"
        await _first_is_fenced(engine, paused.gate)
