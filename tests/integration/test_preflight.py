"""Before a deploy: what preflight says of runs, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from agents import Agent, CustomTool, FunctionTool, Model, ModelProvider, UserError, function_tool
from agents.mcp import MCPServer
from mcp.types import Tool as MCPTool
from openai.types.responses import ResponseCustomToolCall
from pydantic import BaseModel

from perdure import Engine, Run, effect
from perdure.cli.preflight import show
from perdure.errors import MigrationError
from perdure.runs.preflight_findings import LookedAt, PreflightReport
from tests.cli_support import perdure
from tests.engine_support import SECONDS, Gate, call, query, rested, running, turns


def paying(name: str = "pay", more: dict[str, Any] | None = None) -> FunctionTool:
    """A gated tool; ``more`` are further parameters it takes."""

    async def pay(n: int) -> str:
        return f"paid {n}"

    tool = function_tool(pay, name_override=name, needs_approval=True)
    tool.params_json_schema["properties"].update(more or {})
    return tool


PAY = call("pay", "c1", n=1)


def agent(name: str, *replies: Any, **options: Any) -> Agent[Any]:
    return Agent(name=name, model=turns(*(replies or ([PAY], "done"))), **options)


@function_tool
async def look() -> str:
    return "saw"


def raw(name: str) -> CustomTool:
    async def answer(_: Any, given: str) -> str:
        return given

    return CustomTool(name=name, description="", on_invoke_tool=answer, needs_approval=True)


def asks(name: str, helper: Agent[Any], tool: str) -> Agent[Any]:
    """An agent that uses another one as a tool."""
    replies = [call(tool, "n1", input="go")], "done"
    return agent(name, *replies, tools=[helper.as_tool(tool, "asks")])


class Before(BaseModel):
    customer: str = ""


class After(BaseModel):
    customer: Literal["", "ada"] = ""


class Models(ModelProvider):
    """Knows some names of models."""

    def __init__(self, *known: str) -> None:
        self._known = known

    def get_model(self, model_name: str | None) -> Model:
        if model_name not in self._known:
            raise LookupError(f"no model {model_name}")
        return turns([PAY], "done")


def build(url: str, *, new: bool) -> Engine:
    """An application before and after the changes that each of its agents is named for."""
    back, over = ("rear", "across") if new else ("back", "over")
    given = ResponseCustomToolCall(call_id="c1", input="x", name="raw", type="custom_tool_call")
    passed_on = agent(back, [], [PAY], "done", tools=[paying()])
    there = agent(over, [], [call("transfer_to_history", "h2")])
    history = agent("history", [call(f"transfer_to_{over}", "h1")], [], [PAY], "done")
    history.tools, history.handoffs, there.handoffs = [paying()], [there], [history]
    lost = agent("lost helper", tools=[paying("other" if new else "pay")])
    return Engine(
        [
            agent("instructions", instructions="new" if new else "old", tools=[paying()]),
            agent("renamed now" if new else "renamed", tools=[paying()]),
            agent("handed off", [call(f"transfer_to_{back}", "h1")], handoffs=[passed_on]),
            history,
            agent("tool removed", tools=[] if new else [paying()]),
            agent(
                "finished call's tool removed",
                [call("look", "c0"), PAY],
                "done",
                tools=[paying()] if new else [look, paying()],
            ),
            agent("schema", tools=[paying(more={"to": {"type": "string"}} if new else {})]),
            agent("custom", [given], "done", tools=[raw("raw")]),
            agent("custom removed", [given], "done", tools=[] if new else [raw("raw")]),
            asks("nested", agent("same helper", tools=[paying()]), "ask"),
            asks("nested tool removed", lost, "ask"),
            asks("agent tool renamed", agent("h", tools=[paying()]), "query" if new else "ask"),
            agent("context", tools=[paying()]),
            Agent(name="model", tools=[paying()]),
            agent("spoiled", tools=[paying()]),
            agent("format", tools=[paying()]),
        ],
        context_type=After if new else Before,
        model_provider=Models("small") if new else Models("small", "big"),
        tasks=["kept"] if new else ["kept", "dropped"],
        database_url=url,
    )


FAILING = {
    "renamed": ("agent_removed", "renamed", None),
    "queued": ("agent_removed", "renamed", None),
    "handed off": ("agent_removed", "back", None),
    "history": ("agent_removed", "over", None),
    "custom removed": ("tool_removed", "custom removed", "raw"),
    "context": ("context_rejected", "context", None),
    "model": ("model_unknown", "model", None),
    "spoiled": ("tampered", "spoiled", None),
    "format": ("state_rejected", "format", None),
}
NOTICED = {
    "instructions": ("task_unknown", "instructions", None),
    "tool removed": ("tool_removed", "tool removed", "pay"),
    "schema": ("schema_changed", "schema", "pay"),
    "nested tool removed": ("tool_removed", "lost helper", "pay"),
    "agent tool renamed": ("effect_doubtful", "agent tool renamed", "ask"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "context": {"context": {"customer": "bob"}},
    "model": {"model": "big"},
    "instructions": {"context": {"customer": "ada"}, "task": "dropped"},
}
SPOIL = "UPDATE perdure.tool_calls SET arguments = '{\"n\": 9}' WHERE run_id = %s"
OF_ANOTHER_FORMAT = """
UPDATE perdure.run_states
   SET state = perdure.whole_state(run_id, seq) || '{"$schemaVersion": "9.9"}',
       body = NULL, parts = NULL, next_part = NULL
 WHERE run_id = %s"""
ALL_ROWS = """
SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM (
    SELECT to_jsonb(r) AS t FROM perdure.runs r
    UNION ALL SELECT to_jsonb(s) FROM perdure.segments s
    UNION ALL SELECT to_jsonb(s) FROM perdure.run_states s
    UNION ALL SELECT to_jsonb(c) FROM perdure.tool_calls c
    UNION ALL SELECT to_jsonb(i) FROM perdure.interruptions i) x"""


def said(found: list[LookedAt], runs: dict[str, Run]) -> dict[str, tuple[str, str, str | None]]:
    """What is said of each run, by its name."""
    names = {run.id: name for name, run in runs.items()}
    told: dict[str, tuple[str, str, str | None]] = {}
    for one in found:
        [finding] = one.notices if one.problem is None else [one.problem]
        assert finding.why
        assert finding.do
        told[names[str(one.run_id)]] = finding.kind, finding.agent, finding.tool
    return told


async def test_what_it_says_is_what_happens(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.runs.preflight._FETCH", 4)
    old = build(database_url, new=False)
    runs: dict[str, Run] = {}
    async with old.running():
        for name in (root.name for root in old.registry.roots):
            runs[name] = await rested(old, name, **OPTIONS.get(name, {}))
            assert runs[name].status == "interrupted", runs[name].data
        runs["queued"] = await old.start("renamed", "hi", delay_seconds=3600)
        # Nothing was changed yet.
        report = await old.preflight()
        assert (report.failing, report.noticed) == ([], [])
        await query(old, SPOIL, runs["spoiled"].id)
        await query(old, OF_ANOTHER_FORMAT, runs["format"].id)
        before = await query(old, ALL_ROWS)
    new = build(database_url, new=True)
    report = await new.preflight()
    assert said(report.failing, runs) == FAILING
    assert said(report.noticed, runs) == NOTICED
    assert report.looked_at == {"queued": 1, "running": 0, "interrupted": len(runs) - 1}
    assert (report.runs, report.ok) == (len(runs), False)
    assert json.loads(json.dumps(report.as_dict()))["failing"][0]["problem"]["do"]
    went: dict[str, str] = {}
    async with new.running():
        assert await query(new, ALL_ROWS) == before
        await query(new, "UPDATE perdure.segments SET due_at = now() WHERE status = 'scheduled'")
        for name in runs:
            run = await new.get(runs[name].id)
            for one in run.interruptions:
                await new.decide(one.id, "approve", digest=one.digest)
            await run.wait(SECONDS)
            went[name] = run.status
            assert run.status != "completed" or run.output == "done"
    asked_again = NOTICED.keys() - {"instructions"}
    assert {name for name, status in went.items() if status == "failed"} == FAILING.keys()
    assert {name for name, status in went.items() if status == "interrupted"} == asked_again
    assert set(went.values()) == {"failed", "interrupted", "completed"}


class Offers(MCPServer):
    """A server that is not connected until it is told to be."""

    def __init__(self) -> None:
        super().__init__()
        self.connected = True
        self.listed = 0

    @property
    def name(self) -> str:
        return "offers"

    async def connect(self) -> None:
        self.connected = True

    async def cleanup(self) -> None:
        self.connected = False

    async def list_tools(self, run_context: Any = None, agent: Any = None) -> list[MCPTool]:
        self.listed += 1
        if not self.connected:
            raise UserError("Server not initialized.")
        return [MCPTool(name="look", input_schema={"type": "object", "properties": {}})]

    async def call_tool(self, *args: Any, **rest: Any) -> Any:
        raise AssertionError("nothing is run")

    async def list_prompts(self) -> Any:
        raise NotImplementedError

    async def get_prompt(self, *args: Any, **rest: Any) -> Any:
        raise NotImplementedError


async def test_what_is_under_way_and_what_others_offer(database_url: str) -> None:
    server, gates = Offers(), [Gate(), Gate()]

    def sending(gate: Gate) -> FunctionTool:
        @effect("idempotent")
        @function_tool
        async def send() -> str:
            await gate.stop()
            return "sent"

        return send

    offered = agent("offered", tools=[paying()], mcp_servers=[server])
    sends = agent("sends", [call("send", "c1")], "done", tools=[sending(gates[0])])
    helper = agent("helper", [call("send", "c1")], "done", tools=[sending(gates[1])])
    async with running(database_url, offered, sends, asks("nested", helper, "ask")) as engine:
        for _ in range(2):
            await rested(engine, "offered")
        under_way = [await engine.start("sends", "hi"), await engine.start("nested", "hi")]
        for gate in gates:
            await gate.reached()
        again = Offers()
        newer = Engine(
            [
                agent("offered", tools=[paying()], mcp_servers=[again]),
                agent("sends"),
                asks("nested", agent("assistant"), "ask"),
            ],
            database_url=database_url,
        )
        report = await newer.preflight()
        assert (report.ok, again.listed) == (True, 2)
        again.connected = False
        report = await newer.preflight()
        problems = [one.problem for one in report.failing if one.problem is not None]
        assert {(one.kind, one.agent) for one in problems} == {("mcp_unavailable", "offered")}
        assert "Server not initialized." in problems[0].why
        # Whoever is away is asked once.
        assert (len(report.failing), again.listed) == (2, 3)
        kinds = {str(one.run_id): [n.kind for n in one.notices] for one in report.noticed}
        assert kinds[under_way[0].id] == ["effect_doubtful"]
        assert kinds[under_way[1].id] == ["effect_doubtful", "replies_unmatched"]
        for gate in gates:
            gate.open()
        for run in under_way:
            assert (await run.wait(SECONDS)).status == "completed"


APP = """
from agents import Agent
from perdure import Engine

engine = Engine(agents=[Agent(name="{name}")])
"""


async def test_the_command(
    database_url: str,
    empty_database_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP.format(name="second"))
    env = {"DATABASE_URL": database_url}
    async with running(database_url, agent("first", tools=[paying()])) as engine:
        runs = [await engine.start("first", "hi", delay_seconds=3600) for _ in range(12)]
    document = json.loads(perdure("preflight", str(app), "--json", env=env, code=1).stdout)
    assert (document["object"], document["ok"], document["runs"]) == ("preflight", False, 12)
    assert [one["run_id"] for one in document["failing"]] == [run.id for run in runs]
    show(await Engine([agent("second")], database_url=database_url).preflight())
    told = capsys.readouterr().out
    assert "Cannot be resumed: agent_removed (agent first)" in told
    assert "This build has no agent 'first'; it has second." in told
    assert f"{runs[0].id}  queued" in told
    assert "and 2 more (--json names them)" in told
    assert told.endswith("12 runs (12 queued). 12 of them cannot be resumed.\n")
    show(PreflightReport())
    assert "nothing to go on with" in capsys.readouterr().err
    show(await Engine([agent("first")], database_url=database_url).preflight())
    told = "Looked at 12 runs (12 queued). All of them can be resumed.\n"
    assert capsys.readouterr().out == told
    bare = Engine([agent("first")], database_url=empty_database_url)
    with pytest.raises(MigrationError, match="perdure migrate"):
        await bare.preflight()
