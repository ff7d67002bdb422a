"""Policies in runs: what they hold up, let through and deny, whatever kind of tool it is."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from agents import (
    Agent,
    ApplyPatchTool,
    CustomTool,
    HostedMCPTool,
    LocalShellTool,
    ShellTool,
    function_tool,
)
from agents.mcp import MCPServer, MCPServerStdio
from agents.testing import assistant_message
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseCustomToolCall,
    ResponseFunctionShellToolCall,
)
from openai.types.responses.response_output_item import LocalShellCall, McpApprovalRequest

from perdure import Deciders, Engine, Policy
from perdure.access.principals import DEFAULT_TENANT
from perdure.errors import (
    AlreadyDecidedError,
    ConfigurationError,
    ForbiddenError,
    InvalidRequestError,
)
from perdure.interruptions.policies import store as policies
from perdure.interruptions.policies.policy import Then
from perdure.runs import resume
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    approve,
    call,
    calls_of,
    eventually,
    outputs_in,
    query,
    rested,
    running,
    turns,
)

_SERVER = """
import logging
from mcp.server.mcpserver import MCPServer

logging.disable()
server = MCPServer("words")


@server.tool()
def upper(text: str) -> str:
    return text.upper()


server.run()
"""


@pytest_asyncio.fixture
async def words(tmp_path: Path) -> AsyncIterator[MCPServer]:
    script = tmp_path / "words.py"
    script.write_text(_SERVER)
    async with MCPServerStdio(
        params={"command": sys.executable, "args": [str(script)]},
        client_session_timeout_seconds=20,
    ) as server:
        yield server


def _item(kind: Any, call_id: str, **fields: Any) -> Any:
    return kind.model_validate(
        {"id": f"i_{call_id}", "call_id": call_id, "status": "completed", **fields}
    )


_CALLS = [
    call("look", "function", text="a"),
    call("upper", "mcp", text="b"),
    call("helper", "agent", input="go"),
    _item(
        ResponseFunctionShellToolCall,
        "shell",
        type="shell_call",
        action={"commands": ["ls"], "timeout_ms": 1000},
    ),
    _item(
        ResponseApplyPatchToolCall,
        "patch",
        type="apply_patch_call",
        operation={"type": "create_file", "path": "a", "diff": "+1"},
    ),
    _item(ResponseCustomToolCall, "custom", type="custom_tool_call", name="grep", input="x"),
]
_KINDS = {"function", "mcp", "agent", "shell", "patch", "custom"}


class Everything:
    """An agent with a tool of each kind that can wait, and what was done."""

    def __init__(self, name: str, server: MCPServer, *, gated: bool) -> None:
        self.done: list[str] = []
        self.model = turns(_CALLS, "done")
        note = self.done.append

        # A default: the SDK would ask about such a call if anything callable stood in its gate.
        @function_tool(needs_approval=gated)
        async def look(text: str, times: int = 1) -> str:
            note("function")
            return text * times

        @function_tool
        async def inner() -> str:
            note("agent")
            return "inside"

        class Editor:
            async def create_file(self, operation: Any) -> None:
                note("patch")

            update_file = delete_file = create_file

        async def execute(request: Any) -> str:
            note("shell")
            return "out"

        async def grep(_: Any, text: str) -> str:
            note("custom")
            return text

        helper = Agent(name=f"{name}_helper", model=turns([call("inner", "n")], "helped"))
        helper.tools = [inner]
        self.agent: Agent[Any] = Agent(
            name=name,
            model=self.model,
            mcp_servers=[server],
            tools=[
                look,
                helper.as_tool("helper", "Helps.", needs_approval=gated),
                ShellTool(executor=execute, needs_approval=gated),
                ApplyPatchTool(editor=Editor(), needs_approval=gated),
                CustomTool(name="grep", description="", on_invoke_tool=grep, needs_approval=gated),
            ],
        )


async def test_tools_of_all_kinds(database_url: str, words: MCPServer) -> None:
    asked, denied, allowed, free = (
        Everything(name, words, gated=name == "allowed")
        for name in ("asked", "denied", "allowed", "free")
    )
    everybody = [one.agent for one in (asked, denied, allowed, free)]
    made = [
        Policy("ask", agent="asked", message="Look twice."),
        Policy("never", agent="denied", then="deny", message="Not here."),
        Policy("fine", agent="allowed", then="allow"),
    ]
    async with running(database_url, *everybody, policies=made) as engine:
        run = await rested(engine, "asked")
        assert run.status == "interrupted"
        assert asked.done == []
        assert {one.tool["call_id"] for one in run.interruptions} == _KINDS
        assert {one.policy["name"] for one in run.interruptions} == {"ask"}
        run = await approve(engine, run)
        assert (run.status, run.error) == ("completed", None)
        assert sorted(asked.done) == ["agent", "custom", "function", "patch", "shell"]

        run = await rested(engine, "denied")
        assert (run.status, run.error) == ("completed", None)
        assert denied.done == []
        assert {one["status"] for one in (await calls_of(engine, run)).values()} == {"rejected"}
        outputs = outputs_in(denied.model.inputs[-1])
        assert set(outputs) == _KINDS - {"custom"} | {"custom"}
        assert "Not here." in str(outputs["function"])
        decided = await _decisions(engine, run.id)
        assert {one["by"]["id"] for one in decided} == {"never"}
        assert {one["decision"] for one in decided} == {"reject"}
        assert len(decided) == len(_KINDS)

        run = await rested(engine, "allowed")
        assert (run.status, run.error) == ("completed", None)
        assert sorted(allowed.done) == ["agent", "custom", "function", "patch", "shell"]
        decided = await _decisions(engine, run.id)
        # What the MCP server offers has no gate of its own: nobody has to allow it.
        assert len(decided) == len(_KINDS) - 1
        assert {(one["by"]["type"], one["decision"]) for one in decided} == {("policy", "approve")}

        run = await rested(engine, "free")
        assert (run.status, run.error) == ("completed", None)
        assert len(free.done) == 5
        assert await _decisions(engine, run.id) == []
        [segments] = await query(
            engine, "SELECT count(*) FROM perdure.segments WHERE run_id = %s", UUID(run.id)
        )
        assert segments == {"count": 1}


async def _decisions(engine: Engine, run_id: str) -> list[dict[str, Any]]:
    rows = await query(
        engine,
        "SELECT i.status, d.decision, d.by_type, d.by_id FROM perdure.decisions d"
        " JOIN perdure.interruptions i ON i.run_id = d.run_id AND i.id = d.interruption_id"
        " WHERE d.run_id = %s",
        UUID(run_id),
    )
    return [{**row, "by": {"type": row["by_type"], "id": row["by_id"]}} for row in rows]


async def test_what_cannot_wait_is_not_done(database_url: str) -> None:
    ran: list[Any] = []

    def execute(request: Any) -> str:
        ran.append(request.data.action.command)
        return "out"

    def local(call_id: str, *command: str) -> Any:
        action = {"type": "exec", "command": list(command), "env": {}}
        return _item(LocalShellCall, call_id, type="local_shell_call", action=action)

    model = turns([local("c1", "ls")], [local("c2", "rm")], [local("c3", "cat")], "done")
    agent = Agent(name="l", model=model, tools=[LocalShellTool(executor=execute)])
    made = [
        Policy("no rm", when={"/command/0": {"eq": "rm"}}, then="deny", message="Keep it."),
        Policy("cats", when={"/command/0": {"eq": "cat"}}),
    ]
    async with running(database_url, agent, policies=made) as engine:
        run = await rested(engine, "l")
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert ran == [["ls"]]
    outputs = {one["call_id"]: one["output"] for one in model.inputs[-1] if "output" in one}
    assert outputs["c2"] == "Keep it."
    assert "'cats'" in outputs["c3"]
    assert [calls[id]["status"] for id in ("c1", "c2", "c3")] == ["succeeded", "failed", "failed"]
    assert calls["c2"]["error"]["type"] == "PolicyDenied"


class Refunds:
    """A tool nothing stands before but policies, and what it did."""

    def __init__(self) -> None:
        self.refunded: list[int] = []

        @function_tool
        async def refund(cents: int) -> str:
            self.refunded.append(cents)
            return f"refunded {cents}"

        self.tool = refund

    def agent(self, *replies: Any) -> Agent[Any]:
        self.model = turns(*replies, "done")
        return Agent(name="r", model=self.model, tools=[self.tool])


async def test_two_people_one_of_whom_changes_the_amount(database_url: str) -> None:
    refunds = Refunds()
    finance = Deciders(groups=["finance"])
    made = [
        Policy("never", when={"/cents": {"gt": 9000}}, then="deny", message="Never so much."),
        Policy(
            "large",
            when={"/cents": {"gt": 1000}},
            deciders=finance,
            requester_may_decide=False,
            required=2,
        ),
        Policy("rest", when={"/cents": {"gt": 100}}),
    ]
    agent = refunds.agent(
        [call("refund", "c1", cents=2000), call("refund", "c2", cents=500)],
        [call("refund", "c3", cents="99999")],
        [call("refund", "c4", cents=100)],
    )
    async with running(database_url, agent, policies=made) as engine:
        run = await engine.start("r", "hi", by="ann")
        await run.wait(SECONDS)
        [large] = [one for one in run.interruptions if one.tool["call_id"] == "c1"]
        [small] = [one for one in run.interruptions if one.tool["call_id"] == "c2"]
        assert (large.required, large.policy["deciders"]["groups"]) == (2, ["finance"])

        async def decide(one: Any, who: str, decision: str = "approve", **fields: Any) -> Any:
            groups = ["finance"] if who != "eve" else []
            if decision == "approve":
                fields = {"digest": one["digest"], **fields}
            return await engine.decide(one["id"], decision, by=who, groups=groups, **fields)

        for who, needed in (("eve", "the group finance"), ("ann", "somebody else")):
            for decision in ("approve", "reject"):
                with pytest.raises(ForbiddenError, match=needed):
                    await decide(large, who, decision)
        one = await decide(large, "bob")
        assert (one["status"], one["decision"], len(one["decisions"])) == ("pending", None, 1)
        with pytest.raises(AlreadyDecidedError) as refused:
            await decide(large, "bob")
        assert refused.value.recorded is not None
        assert refused.value.recorded["by"]["subject"] == "bob"
        # Others arguments are another thing: bob has not approved them.
        with pytest.raises(InvalidRequestError, match=r"Never so much\."):
            await decide(large, "cleo", arguments={"cents": 9001})
        changed = await decide(large, "cleo", arguments={"cents": 1500})
        assert (changed["status"], changed["tool"]["arguments"]) == ("pending", {"cents": 1500})
        assert changed["digest"] != large.digest
        # One who edits past the limit of the small ones needs a second one, too.
        raised = await decide(small, "bob", arguments={"cents": 3000})
        assert (raised["status"], raised["required"]) == ("pending", 2)
        assert raised["policy"]["name"] == "large"
        with pytest.raises(ForbiddenError, match="the group finance"):
            await decide(raised, "eve")
        closed = await decide(raised, "cleo", "reject", message="Too much.")
        assert (closed["status"], closed["decision"]["decision"]) == ("rejected", "reject")
        await run.refresh()
        assert run.status == "interrupted"
        closed = await decide(changed, "bob")
        assert closed["status"] == "approved"
        assert [one["by"]["subject"] for one in closed["decisions"]] == ["bob", "cleo", "bob"]
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
    assert refunds.refunded == [1500, 100]
    outputs = outputs_in(refunds.model.inputs[-1])
    assert (outputs["c2"], outputs["c3"]) == ("Too much.", "Never so much.")


async def test_policies_of_the_api_count_from_one_call_to_the_next(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refunds, gate = Refunds(), Gate()
    standing, reads = policies.standing, Counter[str]()

    async def counted(*arguments: Any) -> Any:
        reads["read"] += 1
        return await standing(*arguments)

    monkeypatch.setattr(policies, "standing", counted)

    @function_tool
    async def pause() -> str:
        await gate.stop()
        return "went on"

    agent = refunds.agent([call("pause", "p")], [call("refund", "c1", cents=1)])
    agent.tools.append(pause)
    file = Policy("file", tool="refund", then="allow")
    async with running(database_url, agent, policies=[file]) as engine:
        source = _source(engine)

        async def make(then: Then, position: int | None = None) -> str:
            async with engine.pool.connection() as conn:
                made = await policies.create_policy(
                    conn,
                    tenant_id=DEFAULT_TENANT,
                    policy=Policy(then, tool="refund", then=then),
                    position=position,
                    created_by={},
                )
            return str(made["id"])

        run = await engine.start("r", "hi")
        await gate.reached()
        # Where the API made none, nobody reads any.
        assert (source.known(DEFAULT_TENANT), reads["read"]) == ((file,), 0)
        asking = await make("ask")

        async def heard() -> bool:
            known = source.known(DEFAULT_TENANT)
            return known is None or len(known) == 2

        await eventually(heard)
        gate.open()
        await run.wait(SECONDS)
        [one] = run.interruptions
        assert (one.policy["name"], one.policy["id"]) == ("ask", asking)
        # What waits goes on waiting by its own rules, whatever comes after.
        denying = await make("deny")
        run = await approve(engine, run)
        assert (run.status, refunds.refunded) == ("completed", [1])
        run = await rested(engine, "r")
        assert (run.status, refunds.refunded) == ("completed", [1])
        async with engine.pool.connection() as conn:
            await policies.delete_policy(conn, tenant_id=DEFAULT_TENANT, policy_id=UUID(denying))
        allowing = await make("allow", position=0)
        # Made before the segment begins: it is known to it without waiting for a notification.
        run = await rested(engine, "r")
        assert (run.status, refunds.refunded) == ("completed", [1, 1])
        assert allowing
        # Once for each change, however many calls and segments there were, and no more.
        assert reads["read"] <= 4
        # After the connection that hears of changes was lost all is looked at anew.
        source.heard("")
        assert source.known(DEFAULT_TENANT) is None
        assert [one.name for one in await source.of(DEFAULT_TENANT)] == ["allow", "ask", "file"]


def _source(engine: Engine) -> Any:
    worker: Any = engine._worker
    return worker._runner.policies


async def test_a_gate_that_was_recorded_stands_whatever_the_policies_are_by_then(
    database_url: str,
) -> None:
    """A shell call that waits is not run by a replay after its policy is gone."""
    ran: list[str] = []

    async def execute(request: Any) -> str:
        ran.append("ls")
        return "out"

    model = turns([_CALLS[3], call("other", "o")], "done")

    @function_tool(needs_approval=True)
    async def other() -> str:
        return "done"

    agent = Agent(name="s", model=model, tools=[ShellTool(executor=execute), other])
    async with running(database_url, agent, policies=[Policy("p", tool="shell")]) as engine:
        run = await rested(engine, "s")
        shell, another = sorted(run.interruptions, key=lambda one: str(one.tool["name"] != "shell"))
        await engine.decide(another.id, "approve", digest=another.digest)
        # It failed in the meantime, and is resumed by a build without the policy.
        await query(
            engine,
            "UPDATE perdure.interruptions SET status = 'cancelled', closed_at = now()"
            " WHERE id = %s",
            UUID(shell.id),
        )
        await query(
            engine,
            "UPDATE perdure.runs SET status = 'failed', error_type = 'abandoned',"
            " error_message = 'x', finished_at = now()",
        )
    async with running(database_url, agent) as engine:
        async with engine.pool.connection() as conn:
            await resume.retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))
        run = await engine.get(run.id)
        await run.wait(SECONDS)
        assert (run.status, ran) == ("interrupted", [])
        run = await approve(engine, run)
        assert (run.status, ran) == ("completed", ["ls"])


async def test_a_tools_own_answer_does_not_stand_for_the_people_a_policy_asks(
    database_url: str,
) -> None:
    ran: list[str] = []

    async def execute(request: Any) -> str:
        ran.append("ls")
        return "out"

    def approves(context: Any, item: Any) -> Any:
        return {"approve": True}

    def agent(name: str) -> Agent[Any]:
        tool = ShellTool(executor=execute, needs_approval=True, on_approval=approves)
        return Agent(name=name, model=turns([_CALLS[3]], "done"), tools=[tool])

    policy = Policy("p", agent="asked")
    async with running(database_url, agent("free"), agent("asked"), policies=[policy]) as engine:
        run = await rested(engine, "free")
        assert (run.status, ran) == ("completed", ["ls"])
        run = await rested(engine, "asked")
        assert (run.status, ran) == ("interrupted", ["ls"])


async def test_a_program_that_answers_a_hosted_server_is_not_heard_before_a_policy(
    database_url: str,
) -> None:
    answered: list[str] = []

    def answer(request: Any) -> Any:
        answered.append(request.data.id)
        return {"approve": True}

    def request(id: str, to: str) -> Any:
        return McpApprovalRequest(
            type="mcp_approval_request",
            id=id,
            name="send",
            server_label="mail",
            arguments=json.dumps({"to": to}),
        )

    def rule(items: list[Any]) -> Any:
        if any(item.get("type") == "mcp_approval_response" for item in items):
            return [assistant_message("done")]
        return [request("r1", "ada"), request("r2", "bob"), request("r3", "eve")]

    model = RuleModel(rule)
    config: Any = {
        "type": "mcp",
        "server_label": "mail",
        "server_url": "https://mail.example/mcp",
        "require_approval": "always",
    }
    tool = HostedMCPTool(tool_config=config, on_approval_request=answer)
    agent = Agent(name="a", model=model, tools=[tool])
    made = [
        Policy("not bob", tool="send", when={"/to": {"eq": "bob"}}, then="deny", message="No."),
        Policy("eve", tool="send", when={"/to": {"eq": "eve"}}),
    ]
    async with running(database_url, agent, policies=made) as engine:
        run = await rested(engine, "a")
        assert (run.status, run.error) == ("completed", None)
    assert answered == ["r1"]
    given = {
        one["approval_request_id"]: (one["approve"], one.get("reason"))
        for one in model.inputs[-1]
        if one.get("type") == "mcp_approval_response"
    }
    assert given["r1"][0] is True
    assert given["r2"] == (False, "No.")
    assert given["r3"][0] is False
    assert "'eve'" in str(given["r3"][1])


def test_policies_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"policies\[0\]"):
        Engine([Agent(name="a")], policies=[{"name": "p"}])  # type: ignore[list-item]
