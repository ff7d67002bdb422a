"""Requests in which hosted MCP servers may act: intents, outcomes, and what is asked about them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import pytest
from agents import (
    Agent,
    HostedMCPTool,
    ModelSettings,
    RunConfig,
    WebSearchTool,
    function_tool,
)
from agents.run import CallModelData, ModelInputData
from agents.testing import assistant_message
from openai.types.responses.response_output_item import McpApprovalRequest, McpCall
from openai.types.responses.tool_param import Mcp

from perdure import effect
from perdure.access.principals import DEFAULT_TENANT
from perdure.engine import Engine, Run
from perdure.runs.resume import retry
from perdure.runs.store import NewRun, start_run
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    call,
    calls_of,
    error_of,
    other_worker,
    outputs_in,
    query,
    quick_retries,
    replies_in,
    rested,
    running,
    turns,
)
from tests.loopback.replies import Asked, Item, text
from tests.loopback.served import served
from tests.loopback.troubles import DOWN, RATE_LIMIT, TOO_LONG, Cut, Silence, Trouble


def mcp(label: str = "crm", approval: Any = "never") -> HostedMCPTool:
    """A hosted MCP server; without an approval the provider's own default counts."""
    config = {"type": "mcp", "server_label": label, "server_url": "https://mcp.example.com"}
    if approval is not None:
        config["require_approval"] = approval
    return HostedMCPTool(tool_config=cast(Mcp, config))


async def asks_of(engine: Engine, run: Run) -> list[tuple[str, str, int]]:
    """Tool, status and attempt of the run's requests with hosted MCP servers, in order."""
    rows = (await calls_of(engine, run)).values()
    return [(one["tool"], one["status"], one["attempt"]) for one in rows if _is_ask(one)]


def _is_ask(row: dict[str, Any]) -> bool:
    return bool(row["kind"] == "hosted_mcp" and row["call_id"].startswith("ask_"))


async def resolve(engine: Engine, run: Run, outcome: str) -> Run:
    """Give the one question a run rests on this outcome, and return it at its next rest."""
    [question] = run.interruptions
    assert question.type == "uncertain_effect"
    await engine.decide(question.id, "resolve", outcome=outcome)
    return await run.wait(SECONDS)


async def test_a_request_in_which_hosted_servers_may_act_has_a_row(database_url: str) -> None:
    def rule(asked: Asked) -> Sequence[Item]:
        return [text("done")]

    offered: dict[str, list[Any]] = {
        "acts": [mcp()],
        "two": [mcp("crm"), mcp("mail", {"never": {"tool_names": ["look"]}})],
        "unsaid": [mcp(approval=None)],
        "read": [effect("read")(mcp())],
        "asks first": [mcp(approval="always")],
        "others": [WebSearchTool()],
    }
    agents = [Agent(name=name, tools=tools) for name, tools in offered.items()]
    async with served(database_url, rule, *agents) as (engine, _):
        found = {}
        for name in offered:
            run = await rested(engine, name)
            assert run.output == "done"
            found[name] = await asks_of(engine, run)
        [row] = (await calls_of(engine, await rested(engine, "acts"))).values()
    assert found == {
        "acts": [("crm", "succeeded", 1)],
        "two": [("crm, mail", "succeeded", 1)],
        "unsaid": [("crm", "succeeded", 1)],
        "read": [],
        "asks first": [],
        "others": [],
    }
    assert (row["effect"], row["arguments"], row["output"]) == ("at_most_once", {}, None)
    assert row["started_at"] <= row["finished_at"]


async def test_a_call_a_person_approved_is_made_by_the_request_that_says_so(
    database_url: str,
) -> None:
    gate = Gate()
    request = McpApprovalRequest(
        id="mcpr_1", type="mcp_approval_request", server_label="crm", name="pay", arguments="{}"
    )
    made = McpCall(
        id="mcp_1",
        type="mcp_call",
        server_label="crm",
        name="pay",
        arguments="{}",
        output="paid",
        approval_request_id="mcpr_1",
    )

    @function_tool
    async def look() -> str:
        return "saw"

    async def rule(items: list[Any]) -> Any:
        kinds = {item.get("type") for item in items}
        if "mcp_approval_response" not in kinds:
            return [request]
        if model.asked == 2:
            await gate.stop()
        return [made, call("look", "c1")] if "mcp_call" not in kinds else [assistant_message("ok")]

    model = RuleModel(rule)
    tools: list[Any] = [mcp(approval="always"), mcp("mail", approval="always"), look]
    async with running(database_url, Agent(name="a", model=model, tools=tools)) as engine:
        run = await rested(engine, "a")
        assert await asks_of(engine, run) == []
        [asked] = run.interruptions
        await engine.decide(asked.id, "approve", digest=asked.digest)
        await gate.reached()
        async with other_worker(engine, database_url) as other:
            assert await other.run(UUID(run.id), 2) == "interrupted"
        gate.open()
        run = await resolve(engine, await run.refresh(), "done")
        assert (run.status, run.output) == ("completed", "ok")
        # Only the request that carries the approval may act, and of the server it is for.
        assert await asks_of(engine, run) == [("crm", "succeeded", 1)] * 2
        assert model.asked == 4


async def test_a_run_that_asks_first_has_a_server_ask_before_each_call(database_url: str) -> None:
    sent: list[tuple[Any, Any]] = []

    def rule(asked: Asked) -> Sequence[Item]:
        [tool] = asked.body["tools"]
        sent.append((asked.body["model"], tool["require_approval"]))
        if any(item.get("type") == "mcp_approval_response" for item in asked.items):
            return [text("paid")]
        request = {"id": "mcpr_1", "type": "mcp_approval_request", "server_label": "crm"}
        return [{**request, "name": "pay", "arguments": "{}"}]

    new = NewRun(DEFAULT_TENANT, "a", "hi", max_turns=5, tools="ask", model="gpt-5-mini")
    async with served(database_url, rule, tools=[mcp()]) as (engine, _):
        async with engine.pool.connection() as conn:
            run = await engine.get(await start_run(conn, new))
        [asked] = (await run.wait(SECONDS)).interruptions
        assert (asked.type, asked.tool["name"]) == ("tool_approval", "pay")
        assert await asks_of(engine, run) == []
        await engine.decide(asked.id, "approve", digest=asked.digest)
        assert (await run.wait(SECONDS)).output == "paid"
        # The model is the run's in its next segment too; the request with the approval may act.
        assert sent == [("gpt-5-mini", "always")] * 2
        assert await asks_of(engine, run) == [("crm", "succeeded", 1)]


LOST: dict[str, Trouble] = {
    "reset": Cut(0),
    "cut within": Cut(6),
    "ended too soon": Cut(6, "ended"),
    "server error": DOWN,
    "client's time-out": Silence(),
    "SDK's time-out": Silence(3),
}


async def test_a_request_that_failed_without_a_word_is_asked_about(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rule(asked: Asked) -> Sequence[Item]:
        return [text("done")]

    slow = ModelSettings(extra_args={"timeout": 0.2})
    impatient = ModelSettings(timeout=0.2)
    agents = [
        Agent(name="a", tools=[mcp()]),
        Agent(name="client's time-out", tools=[mcp()], model_settings=slow),
        Agent(name="SDK's time-out", tools=[mcp()], model_settings=impatient),
    ]
    with quick_retries(monkeypatch):
        async with served(database_url, rule, *agents) as (engine, server):
            for n, (name, trouble) in enumerate(LOST.items()):
                asked = len(server.requests)
                server.trouble(trouble)
                run = await rested(engine, name if "time-out" in name else "a")
                # One request, no retry, and a question that says what it is about.
                assert (run.status, len(server.requests)) == ("interrupted", asked + 1), name
                [question] = run.interruptions
                words = str(question.question)
                assert words.startswith("The model was asked with hosted MCP server crm"), words
                assert "the request failed without a reply" in words, words
                assert question.tool["arguments"] == {}
                outcome = ("done", "not_done")[n % 2]
                agents[n - 3 if "time-out" in name else 0].model_settings = ModelSettings()
                run = await resolve(engine, run, outcome)
                assert (run.status, run.output) == ("completed", "done"), name
                assert len(server.requests) == asked + 2
                assert await asks_of(engine, run) == (
                    [("crm", "succeeded", 1), ("crm", "succeeded", 1)]
                    if outcome == "done"
                    else [("crm", "succeeded", 2)]
                )


async def test_a_request_that_did_nothing_is_retried_or_fails_as_any(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rule(asked: Asked) -> Sequence[Item]:
        return [text("done")]

    with quick_retries(monkeypatch):
        async with served(database_url, rule, tools=[mcp()]) as (engine, server):
            server.trouble(RATE_LIMIT, RATE_LIMIT)
            run = await rested(engine, "a")
            assert (run.output, len(server.requests)) == ("done", 3)
            assert await asks_of(engine, run) == [("crm", "succeeded", 1)]

            # Cancelled while it waits to ask again: nobody has acted.
            waits = asyncio.Event()

            def for_long(*_: Any) -> float:
                waits.set()
                return 1000.0

            with monkeypatch.context() as patch:
                patch.setattr("perdure.runs.asking._delay", for_long)
                server.trouble(RATE_LIMIT)
                run = await engine.start("a", "hi")
                async with asyncio.timeout(SECONDS):
                    await waits.wait()
                await engine.cancel(run.id)
                await run.wait(SECONDS)
                assert run.status == "cancelled"
                assert await asks_of(engine, run) == [("crm", "failed", 1)]

            server.trouble(TOO_LONG)
            run = await rested(engine, "a")
            assert error_of(run)["type"] == "model_error"
            assert await asks_of(engine, run) == [("crm", "failed", 1)]
            async with engine.pool.connection() as conn:
                await retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))
            await run.wait(SECONDS)
            assert run.output == "done"
            assert await asks_of(engine, run) == [("crm", "failed", 1), ("crm", "succeeded", 1)]
            answered = len(server.requests)

            # Nobody listens: nothing has left.
            port = server.url
            monkeypatch.setattr("perdure.runs.asking.MAX_RETRIES", 1)
            await server.close()
            run = await rested(engine, "a")
            assert error_of(run)["type"] == "model_error", port
            assert await asks_of(engine, run) == [("crm", "failed", 1)]
            assert len(server.requests) == answered


@pytest.mark.parametrize("outcome", ["done", "not_done", "abandon"])
async def test_a_process_that_died_while_the_model_was_asked(
    database_url: str, outcome: str
) -> None:
    gate = Gate()
    looked: list[str] = []

    @function_tool
    async def look() -> str:
        looked.append("look")
        return "saw"

    async def rule(items: list[Any]) -> Any:
        if replies_in(items) == 0:
            return [call("look", "c1")]
        if model.asked == 2:
            await gate.stop()
            return [assistant_message("of a dead process")]
        return [assistant_message("done")]

    model = RuleModel(rule)
    agent = Agent(name="a", model=model, tools=[look, mcp()])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        # The intent was there before the provider was asked.
        assert [one[1] for one in await asks_of(engine, run)] == ["succeeded", "executing"]
        async with other_worker(engine, database_url) as other:
            assert await other.run(UUID(run.id), 1) == "interrupted"
        assert model.asked == 2
        await run.refresh()
        assert [one[1] for one in await asks_of(engine, run)] == ["succeeded", "uncertain"]
        [question] = run.interruptions
        assert "its process died before the reply was recorded" in str(question.question)
        gate.open()
        run = await resolve(engine, run, outcome)
        if outcome == "abandon":
            assert error_of(run)["type"] == "abandoned"
            async with engine.pool.connection() as conn:
                await retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))
            await run.wait(SECONDS)
            assert (run.status, model.asked) == ("interrupted", 2)
            run = await resolve(engine, run, "done")
        assert (run.status, run.output) == ("completed", "done")
        assert (model.asked, looked) == (3, ["look"])
        first, *later = await asks_of(engine, run)
        again = (
            [("crm", "succeeded", 2)] if outcome == "not_done" else [("crm", "succeeded", 1)] * 2
        )
        assert [first, *later] == [("crm", "succeeded", 1), *again]
        # Each reply is recorded once; a request that nobody answered has none.
        replies = await query(engine, "SELECT count(*) AS n FROM perdure.model_responses")
        assert replies == [{"n": 2}]


async def test_nested_agents_beside_the_one_in_doubt_finish(database_url: str) -> None:
    """The request of one fails while that of another is under way, and one tool is running."""
    failing, slow = Gate(), Gate()
    asked: list[str] = []
    did: list[str] = []

    @function_tool
    async def work() -> str:
        await slow.stop()
        did.append("work")
        return "worked"

    async def rule(items: list[Any]) -> Any:
        who = items[0]["content"]
        asked.append(who)
        if who == "fails" and asked.count("fails") == 1:
            await failing.stop()
            slow.open()
            raise ConnectionResetError("cut")
        if who == "finishes":
            failing.open()
            await slow.stop()
        return [assistant_message(f"[{who}]")]

    inner = Agent(name="inner", model=RuleModel(rule), tools=[mcp()])
    model = turns(
        [
            call("ask", "c1", input="fails"),
            call("ask", "c2", input="finishes"),
            call("work", "c3"),
        ],
        "done",
    )
    outer = Agent(name="outer", model=model, tools=[inner.as_tool("ask", "asks"), work])
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        assert (run.status, did) == ("interrupted", ["work"])
        [question] = run.interruptions
        assert question.agent == "inner"
        assert "ConnectionResetError: cut" in str(question.question)
        run = await resolve(engine, run, "not_done")
        assert (run.status, run.output, run.error) == ("completed", "done", None)
        calls = await calls_of(engine, run)
    # What was asked beside it was answered once, and is not asked again.
    assert sorted(asked) == ["fails", "fails", "finishes"]
    assert did == ["work"]
    assert outputs_in(model.inputs[-1]) == {"c1": "[fails]", "c2": "[finishes]", "c3": "worked"}
    asks = {key.split("/")[0]: one for key, one in calls.items() if _is_ask(one)}
    assert {key: (one["status"], one["attempt"]) for key, one in asks.items()} == {
        "c1": ("succeeded", 2),
        "c2": ("succeeded", 1),
    }


async def test_a_nested_request_that_the_sdk_gave_up_is_asked_about(database_url: str) -> None:
    gate = Gate()
    asked: list[str] = []

    async def rule(items: list[Any]) -> Any:
        asked.append("inner")
        if len(asked) == 1:
            await gate.stop()
        return [assistant_message("answer")]

    inner = Agent(
        name="inner",
        model=RuleModel(rule),
        tools=[mcp()],
        model_settings=ModelSettings(timeout=0.05),
    )
    model = turns([call("ask", "c1", input="x")], "done")
    outer = Agent(name="outer", model=model, tools=[inner.as_tool("ask", "asks")])
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        # The SDK told the outer model that the tool failed: that is not recorded, nor heard.
        assert (run.status, model.asked) == ("interrupted", 1)
        run = await resolve(engine, run, "done")
        assert (run.status, run.output, asked) == ("completed", "done", ["inner"] * 2)
    assert outputs_in(model.inputs[-1]) == {"c1": "answer"}


async def test_a_reply_in_which_a_server_acted_is_not_asked_for_again_unasked(
    database_url: str,
) -> None:
    """After a death the conversation comes out differently than it was recorded."""
    gate = Gate()
    clock = ["morning"]
    made = McpCall(
        id="mcp_1", type="mcp_call", server_label="crm", name="pay", arguments="{}", output="paid"
    )

    @effect("read")
    @function_tool
    async def look() -> str:
        await gate.stop()
        return "saw"

    async def clocked(data: CallModelData[Any]) -> ModelInputData:
        note: Any = {"role": "developer", "content": f"good {clock[-1]}"}
        return ModelInputData(input=[*data.model_data.input, note], instructions=None)

    def rule(items: list[Any]) -> Any:
        return [made, call("look", "c1")] if replies_in(items) == 0 else [assistant_message("done")]

    async with running(
        database_url,
        Agent(name="a", model=RuleModel(rule), tools=[look, mcp()]),
        run_config=RunConfig(call_model_input_filter=clocked),
    ) as engine:
        run = await engine.start("a", "hi")
        await gate.reached()
        clock.append("evening")
        async with other_worker(engine, database_url) as other:
            assert await other.run(UUID(run.id), 1) == "interrupted"
        await run.refresh()
        tools = {one.tool["name"]: str(one.question) for one in run.interruptions}
        assert tools.keys() == {"look", "crm"}
        assert "the model would be asked again after crm had begun (succeeded)" in tools["crm"]
        gate.open()
        for one in run.interruptions:
            await engine.decide(one.id, "resolve", outcome="done")
        await run.wait(SECONDS)
        assert (run.status, run.output) == ("completed", "done")
        assert await asks_of(engine, run) == [("crm", "succeeded", 1)] * 3
