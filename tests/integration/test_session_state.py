"""How a conversation stands while its runs go on, and what runs are for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from agents import Agent, RunContextWrapper, function_tool
from agents.testing import assistant_message
from fastapi import Request

from perdure import Engine, effect
from perdure.access.principals import DEFAULT_ROLES, DEFAULT_TENANT, Principal
from perdure.errors import ConfigurationError, InvalidRequestError
from perdure.web import answers, session_state
from tests.engine_support import SECONDS, Gate, RuleModel, call, eventually, outputs_in, running
from tests.integration.api.reading import pointers, read, refused


@effect("idempotent")
@function_tool
async def note(context: RunContextWrapper[Any], words: str) -> str:
    """Remember something."""
    context.context["notes"] = [*context.context.get("notes", []), words]
    return f"noted {words}"


@function_tool(needs_approval=True)
async def pay() -> str:
    """Pay."""
    return "paid"


def _keeper(gate: Gate) -> Agent[Any]:
    """Notes, stops at the gate before its second reply, asks to pay, says that it is done."""

    async def rule(items: list[Any]) -> list[Any]:
        told = outputs_in(items)
        if "n1" not in told:
            return [call("note", "n1", words="blue")]
        if "p1" not in told:
            await gate.stop()
            return [call("pay", "p1")]
        return [assistant_message("done")]

    return Agent(name="keeper", model=RuleModel(rule), tools=[note, pay])


async def _anybody(request: Request) -> Principal:
    del request
    return Principal("user", "alice", "alice", DEFAULT_TENANT, frozenset(DEFAULT_ROLES))


@asynccontextmanager
async def _asking(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(engine.api(_anybody))
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        yield client


async def test_a_conversation_says_how_it_stands(database_url: str) -> None:
    gate = Gate()
    tasks = ("REFUND", "QUESTION")
    async with (
        running(database_url, _keeper(gate), tasks=tasks) as engine,
        _asking(engine) as client,
    ):
        made = (await client.post("/v1/sessions", json={"user_id": "alice"})).json()
        path = f"/v1/sessions/{made['id']}/state"

        async def state() -> Any:
            found = read(session_state.SessionState, await client.get(path, params=ALICE))
            assert found["id"] == made["id"]
            return found

        before = await state()
        assert (before["status"], before["agent"], before["current_step"]) == (None, None, None)
        assert (before["memory"], before["tool_outputs"]) == (None, [])
        assert before["last_activity"] == made["updated_at"]

        in_session = {"session_id": made["id"], "user_id": "alice", "context": {"color": "red"}}
        run = await engine.start("keeper", "hi", task="REFUND", **in_session)
        waiting = await engine.start("keeper", "and then?", **in_session)
        await gate.reached()

        async def asking() -> Any:
            # The tool's outcome is on its way while the model is asked already.
            found = await state()
            return found if found["current_step"] == "asks the model (turn 2)" else None

        now = await eventually(asking)
        assert now["status"] == "active"
        assert (now["agent"], now["run_id"], now["waiting_runs"]) == ("keeper", run.id, 1)
        assert now["task"] == "REFUND"
        assert now["memory"] == {"color": "red", "notes": ["blue"]}
        [output] = now["tool_outputs"]
        assert (output["tool"], output["output"]) == ("note", "noted blue")
        assert now["last_activity"] >= output["finished_at"] > before["last_activity"]

        gate.open()
        await run.wait(SECONDS)
        paused = await state()
        assert (paused["status"], paused["current_step"]) == ("paused", "waits for approval of pay")
        assert paused["memory"] == now["memory"]
        [one] = run.interruptions
        await engine.decide(one.id, "approve", digest=one.digest)
        await run.wait(SECONDS)
        await waiting.wait(SECONDS)
        after = await state()
        assert (after["status"], after["run_id"]) == ("completed", waiting.id)
        # The second was given what the first did, and had nothing more to do.
        assert [each["tool"] for each in after["tool_outputs"]] == ["pay", "note"]
        assert (after["current_step"], after["waiting_runs"]) == (None, 0)

        for other in ({"user_id": "bob"}, {}):
            missing = made["id"] if other else str(uuid4())
            answer = await client.get(f"/v1/sessions/{missing}/state", params=other)
            refused(answer, 404, "not_found")


ALICE = {"user_id": "alice"}


async def test_a_run_says_what_it_is_for(database_url: str) -> None:
    tasks = ("REFUND", "QUESTION")
    async with (
        running(database_url, _keeper(Gate()), tasks=tasks) as engine,
        _asking(engine) as client,
    ):
        await engine.start("keeper", "hi", task="QUESTION", delay_seconds=60)
        start = {"agent": "keeper", "input": "hi", "delay_seconds": 60}
        for wrong in ("PARTY", "", "x" * 256):
            answer = await client.post("/v1/runs", json={**start, "task": wrong})
            assert pointers(refused(answer, 422, "validation_error")) == ["/task"]
        with pytest.raises(InvalidRequestError, match="Tasks: REFUND, QUESTION"):
            await engine.start("keeper", "hi", task="PARTY")
        made = await client.post("/v1/runs", json={**start, "task": "REFUND"})
        assert read(answers.Run, made, 202)["task"] == "REFUND"
        listed = await client.get("/v1/runs", params={"task": "REFUND"})
        assert [run["id"] for run in listed.json()["data"]] == [made.json()["id"]]
        assert len((await client.get("/v1/runs")).json()["data"]) == 2
    # Without a list of its own it is anything.
    async with running(database_url, _keeper(Gate())) as engine:
        run = await engine.start("keeper", "hi", task="PARTY", delay_seconds=60)
        assert (await run.refresh()).data["task"] == "PARTY"
    for bad in ("REFUND", [""], ["x" * 256]):
        with pytest.raises(ConfigurationError, match="tasks"):
            Engine([_keeper(Gate())], tasks=bad)
