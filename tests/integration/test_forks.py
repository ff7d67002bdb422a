"""Forks: runs that go on from a checkpoint of another one, by an engine with a worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, RunContextWrapper, function_tool
from agents.testing import assistant_message

from perdure import PostgresSession, effect
from perdure.engine import Engine, Run
from perdure.errors import InvalidRequestError, InvalidStateError
from tests.engine_support import (
    SECONDS,
    Gate,
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


async def forked(run: Run, *args: Any, **options: Any) -> Run:
    """A fork of a run at its first rest."""
    return await (await run.fork(*args, **options)).wait(SECONDS)


def users(items: list[Any]) -> list[str]:
    """What the user said in an input."""
    return [str(one["content"]) for one in items if one.get("role") == "user"]


def roots(calls: dict[str, dict[str, Any]]) -> dict[str, str | None]:
    """Which call of another run answered each call."""
    return {
        name: one["answered_from"] and one["answered_from"]["tool_call_id"]
        for name, one in calls.items()
    }


class Till:
    """Tools of every kind, and what they did."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []

        @effect("read")
        @function_tool
        async def look(what: str) -> str:
            return self._do("look", what)

        @function_tool
        async def pay(cents: int) -> str:
            return self._do("pay", cents)

        @function_tool(needs_approval=True)
        async def send(to: str) -> str:
            return self._do("send", to)

        self.tools = [look, pay, send]

    def _do(self, what: str, about: Any) -> str:
        self.made.append((what, about))
        return f"{what} {about} {len(self.made)}"


async def test_calls_are_answered_with_what_came_of_them_and_others_ask(database_url: str) -> None:
    till = Till()

    def rule(items: list[Any]) -> Any:
        done = outputs_in(items)
        if not done:
            return [call("look", "a", what="x"), call("send", "s", to="ada")]
        if "p1" not in done:
            return [call("pay", "p1", cents=5), call("pay", "p2", cents=5)]
        if len(users(items)) > 1 and "p3" not in done:
            return [
                call("pay", "p3", cents=5),
                call("look", "b", what="y"),
                call("send", "s2", to="ada"),
            ]
        return [assistant_message(" | ".join(str(one) for one in done.values()))]

    model = RuleModel(rule)
    agent = Agent(name="clerk", model=model, tools=till.tools)
    async with running(database_url, agent) as engine:
        run = await approve(engine, await rested(engine, "clerk", "go", metadata={"n": 1}))
        assert run.status == "completed", run.data
        before, theirs = list(till.made), await calls_of(engine, run)
        stored = await query(engine, "SELECT * FROM perdure.run_states ORDER BY seq")

        # From its beginning: the same, and nothing happens, not even what a person let happen.
        again = await forked(run, 0)
        assert (again.status, again.output) == ("completed", run.output)
        mine = await calls_of(engine, again)
        assert roots(mine) == {name: one["id"] for name, one in theirs.items()}
        assert {(one["status"], one["attempt"]) for one in mine.values()} == {("succeeded", 0)}
        assert again.data["forked_from"] == {"run_id": run.id, "checkpoint": 0}
        assert (again.data["metadata"], again.data["usage"]["requests"]) == ({"n": 1}, 3)
        assert till.made == before

        # From where it waited: it waits again, and the answer to that is the other run's.
        waits = await forked(run)
        assert waits.data["forked_from"]["checkpoint"] == 1
        [asked], [old] = waits.interruptions, await records(engine, run, "checkpoints")
        assert asked.tool["call_id"] == "s"
        assert (
            asked.digest
            != (
                await query(
                    engine, "SELECT digest FROM perdure.interruptions WHERE run_id = %s", run.id
                )
            )[0]["digest"]
        )
        assert "nothing is executed" in asked.data["policy"]["message"]
        await approve(engine, waits)
        assert (waits.status, waits.output) == ("completed", run.output)
        assert till.made == before
        assert waits.data["usage"]["requests"] == 2

        # A fork of a fork, with another message: what it has no answers for is asked about.
        more = await forked(waits, 3, input="and again")
        assert {one.tool["call_id"] for one in more.interruptions} == {"p3", "s2"}
        assert "has no outcome" in waiting_for(more, call_id="p3").data["policy"]["message"]
        assert till.made == [*before, ("look", "y")]
        await approve(engine, more)
        assert till.made[-2:] in ([("pay", 5), ("send", "ada")], [("send", "ada"), ("pay", 5)])
        assert [one["text"] for one in await items_of(engine, more) if one["role"] == "user"] == [
            "go",
            "and again",
        ]
        # As any run makes them.
        done = len(till.made)
        plain = await forked(run, 0, tools="run")
        await approve(engine, plain)
        assert plain.status == "completed"
        assert len(till.made) == done + 4
        assert stored == await query(
            engine, "SELECT * FROM perdure.run_states WHERE run_id = %s ORDER BY seq", run.id
        )
