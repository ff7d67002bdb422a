"""What tools say they changed: written with their calls' outcomes, once, and not without them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool

from perdure import Engine, effect, record_operation, tool_call
from perdure.access.principals import DEFAULT_TENANT
from perdure.paging import PageRequest
from perdure.runs.operations import OperationFilter, list_operations
from tests.engine_support import call, calls_of, error_of, query, rested, running, turns

KINDS = ["CREATE", "UPDATE", "DELETE"]


async def operations_of(engine: Engine, run_id: str) -> list[dict[str, Any]]:
    """What tools of a run recorded, in order."""
    async with engine.pool.connection() as conn:
        page = await list_operations(
            conn,
            tenant_id=DEFAULT_TENANT,
            only=OperationFilter(run_id=UUID(run_id)),
            page=PageRequest(100, order="asc"),
        )
    return [dict(one) for one in page.data]


async def test_operations_are_there_as_their_outcomes_are(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.runs.attempts.AGAIN_AFTER_SECONDS", (0.0, 0.0))
    late: list[asyncio.Task[None]] = []
    over = asyncio.Event()

    @function_tool
    async def create() -> str:
        todo = {"title": "a \0 \ue000", "done": False}
        record_operation("CREATE", "todo/1", None, todo)
        # What is recorded is how it was then.
        todo["done"] = True
        record_operation("UPDATE", "todo/1", {"done": False}, todo)
        return "created"

    @effect("idempotent")
    @function_tool
    def update() -> str:
        record_operation("UPDATE", "todo/2", {"n": tool_call().attempt}, {"n": None})
        if tool_call().attempt == 1:
            raise TimeoutError("who knows")
        return "updated"

    @function_tool
    async def fails() -> str:
        record_operation("DELETE", "todo/3", [1])
        raise ValueError("half done")

    @effect("transactional")
    @function_tool
    async def book(good: bool) -> str:
        await tool_call().connection.execute("INSERT INTO done VALUES (%s)", (good,))
        record_operation("CREATE", f"booking/{good}", None, {"good": good})
        if not good:
            raise ValueError("not this one")
        return "booked"

    @effect("transactional")
    @function_tool
    async def breaks() -> str:
        record_operation("CREATE", "booking/broken")
        await tool_call().connection.execute("INSERT INTO deferred VALUES (1), (1)")
        return "cannot commit"

    @function_tool
    async def leaves() -> str:
        async def later() -> None:
            await over.wait()
            record_operation("CREATE", "todo/late")

        late.append(asyncio.create_task(later()))
        return "left"

    @effect("read")
    @function_tool
    async def undeclared() -> str:
        record_operation("CREATE", "todo/4")
        record_operation("ARCHIVE", "todo/4")
        return "never"

    model = turns(
        [
            *(call("create", "c1"), call("update", "c2"), call("fails", "c3")),
            *(call("book", "c4", good=True), call("book", "c5", good=False)),
            *(call("leaves", "c7"), call("undeclared", "c8")),
        ],
        "done",
    )
    tools = [create, update, fails, book, leaves, undeclared]
    agent = Agent(name="a", tools=list(tools), model=model)
    breaking = Agent(name="b", tools=[breaks], model=turns([call("breaks", "c6")], "never"))
    async with running(database_url, agent, breaking, operations=KINDS) as engine:
        await query(engine, "CREATE TABLE done (good boolean)")
        await query(engine, "CREATE TABLE deferred (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        run = await rested(engine, "a", user_id="bob", session_key="todos")
        assert run.output == "done", run.error
        over.set()
        [raised] = await asyncio.gather(*late, return_exceptions=True)
        assert "after its call was over" in str(raised)

        rows = await operations_of(engine, run.id)
        calls = await calls_of(engine, run)
        found = {
            (one["call_id"], one["kind"], one["target"]): (one["previous"], one["new"])
            for one in rows
        }
        first = {"title": "a \0 \ue000", "done": False}
        assert found == {
            ("c1", "CREATE", "todo/1"): (None, first),
            ("c1", "UPDATE", "todo/1"): ({"done": False}, {**first, "done": True}),
            # Of the attempt whose outcome it is.
            ("c2", "UPDATE", "todo/2"): ({"n": 2}, {"n": None}),
            # A failure may have happened, unless it was rolled back.
            ("c3", "DELETE", "todo/3"): ([1], None),
            ("c4", "CREATE", "booking/True"): (None, {"good": True}),
            ("c8", "CREATE", "todo/4"): (None, None),
        }
        assert len(rows) == len(found)
        by_target = {one["target"]: one for one in rows}
        shown = by_target["todo/3"]
        assert (shown["tool"], shown["agent"], shown["user_id"]) == ("fails", "a", "bob")
        assert (shown["run_id"], shown["session_id"]) == (run.id, run.data["session_id"])
        assert shown["tool_call_id"] == calls["c3"]["id"]
        failed = {call_id for call_id, one in calls.items() if one["status"] == "failed"}
        assert failed == {"c3", "c5", "c8"}
        assert await query(engine, "SELECT good FROM done") == [{"good": True}]
        # As whatever else a tool raises.
        said = calls["c8"]["error"]["message"]
        assert f"Tool undeclared of run {run.id}" in said
        assert "CREATE, DELETE, UPDATE" in said

        broken = await rested(engine, "b")
        assert "deferred" in error_of(broken)["message"]
        assert await operations_of(engine, broken.id) == []

        await query(engine, "DELETE FROM perdure.runs")
        assert await query(engine, "SELECT FROM perdure.operations") == []
