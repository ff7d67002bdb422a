"""Forks: runs that go on from a checkpoint of another one, by an engine with a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from agents import Agent, RunContextWrapper, Tool, function_tool
from agents.testing import assistant_message

from perdure import PostgresSession, effect
from perdure.access.principals import Principal, local_principal
from perdure.db import uuid7
from perdure.engine import Engine, Run
from perdure.errors import InvalidRequestError, InvalidStateError
from perdure.web.answers import Run as RunAnswer
from perdure.web.fork_answers import CheckpointDiff, RunDiff, StoredCheckpoint
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
from tests.integration.api.reading import pointers, read, refused


@asynccontextmanager
async def asking(engine: Engine, who: Principal | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the engine's API, as somebody."""

    async def authenticate(_: Any) -> Principal:
        return who or local_principal()

    transport = httpx.ASGITransport(engine.api(authenticate=authenticate))
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        yield client


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

        self.tools: list[Tool] = [look, pay, send]

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
        [asked] = waits.interruptions
        assert asked.tool["call_id"] == "s"
        assert (
            asked.digest
            != (
                await query(
                    engine, "SELECT digest FROM perdure.interruptions WHERE run_id = %s", run.id
                )
            )[0]["digest"]
        )
        assert "nothing is executed" in asked.policy["message"]
        await approve(engine, waits)
        assert (waits.status, waits.output) == ("completed", run.output)
        assert till.made == before
        assert waits.data["usage"]["requests"] == 2

        # A fork of a fork, with another message: what it has no answers for is asked about.
        more = await forked(waits, 3, input="and again")
        assert {one.tool["call_id"] for one in more.interruptions} == {"p3", "s2"}
        assert "has no outcome" in waiting_for(more, call_id="p3").policy["message"]
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


class Notes(RuleModel):
    """A model that says what it was told, by whom, and how many messages of users it read."""

    def __init__(self, rule: Any) -> None:
        super().__init__(rule)
        self.told: list[Any] = []

    async def get_response(self, system_instructions: Any, input: Any, *a: Any, **o: Any) -> Any:
        self.told.append(system_instructions)
        return await super().get_response(system_instructions, input, *a, **o)

    async def stream_response(self, system_instructions: Any, input: Any, *a: Any, **o: Any) -> Any:
        self.told.append(system_instructions)
        async for event in super().stream_response(system_instructions, input, *a, **o):
            yield event


async def test_another_agent_other_instructions_another_message(database_url: str) -> None:
    """From states of every kind, in a session, with the context as it was then."""

    @function_tool
    async def count(context: RunContextWrapper[Any]) -> str:
        context.context["n"] += 1
        return f"n is {context.context['n']}"

    def first(items: list[Any]) -> Any:
        if "c1" not in outputs_in(items):
            return [call("count", "c1")]
        if "h1" not in outputs_in(items):
            return [call("transfer_to_second", "h1")]
        return [assistant_message(f"first has read {len(users(items))}")]

    def other(name: str) -> Any:
        def rule(items: list[Any]) -> Any:
            if f"n{name}" not in outputs_in(items):
                return [call("count", f"n{name}")]
            return [assistant_message(f"{name} has read {len(users(items))}")]

        return rule

    heard = {name: Notes(other(name)) for name in ("second", "third")} | {"first": Notes(first)}
    agents = {
        name: Agent(name=name, instructions=f"You are {name}.", model=model, tools=[count])
        for name, model in heard.items()
    }
    agents["first"].handoffs.append(agents["second"])
    async with running(database_url, *agents.values()) as engine:
        session = PostgresSession("talk", engine=engine, user_id="bob")
        await session.add_items([{"role": "user", "content": "before"}])
        run = await rested(
            engine,
            "first",
            "go",
            context={"n": 0},
            session_id=await session.id(),
            user_id="bob",
            task="test",
            budget={"total_tokens": 1000},
        )
        assert run.output == "second has read 2", run.data
        kinds = [one["kind"] for one in await records(engine, run, "checkpoints")]
        assert kinds == ["handoff", "final"]
        said = await session.get_items()

        # The agent that goes on is told so, and no other.
        told = await forked(run, instructions="Be brief.")
        assert (told.status, told.output) == ("completed", "second has read 2"), told.data
        assert heard["second"].told[-1] == "Be brief."
        assert told.data["instructions"] == "Be brief."
        assert (told.data["task"], told.data["user_id"]) == ("test", "bob")
        assert told.data["budget"]["total_tokens"] == 1000
        assert told.data["usage"]["total_tokens"] == 30
        assert agents["second"].instructions == "You are second."
        answered = await calls_of(engine, told)
        assert answered["nsecond"]["answered_from"], answered
        # The branch has what was said up to there, and what the fork said: as the session has.
        assert told.data["session_id"] not in (None, run.data["session_id"])
        branch = PostgresSession.existing(told.data["session_id"], engine=engine, user_id="bob")
        assert [one.get("type") for one in await branch.get_items()] == [
            one.get("type") for one in said
        ]
        assert [one["seq"] for one in await items_of(engine, told)] == [
            one["seq"] for one in await items_of(engine, run)
        ]

        # From the beginning with other words: the context is what it was, told to the first.
        anew = await forked(
            run, 0, input="again", instructions="Short.", tools="run", agent="third"
        )
        assert (anew.output, anew.data["agent"]) == ("third has read 2", "third")
        assert heard["third"].told == ["Short.", "Short."]
        assert (await calls_of(engine, anew))["nthird"]["output"] == "n is 1"
        assert anew.data["input"] == "again"
        both = await forked(run, 0, instructions="Short.", tools="run")
        assert heard["first"].told[-2:] == ["Short.", "Short."]
        assert heard["second"].told[-1] == "You are second."
        assert (await calls_of(engine, both))["nsecond"]["output"] == "n is 2"

        # Another agent, one the first does not lead to, where a turn was over.
        third = await forked(run, 1, agent="third", tools="run", input="you do it")
        assert (third.output, third.data["agent"]) == ("third has read 3", "third"), third.data
        assert third.data["current_agent"] == "third"
        assert (await calls_of(engine, third))["nthird"]["output"] == "n is 2"

        # From its end, with a message.
        with pytest.raises(InvalidStateError, match="input"):
            await run.fork(2)
        more = await forked(run, 2, input="and?")
        assert more.output == "second has read 3", more.data
        texts = [one["text"] for one in await items_of(engine, more)]
        assert [one for one in texts if one] == [
            *("go", "n is 1", "n is 2", "second has read 2", "and?", "second has read 3")
        ] or texts, texts
        # And from there on again: the agent goes on being told what the fork was.
        last = await forked(told, 2, input="and?")
        assert heard["second"].told[-1] == "Be brief."
        assert last.data["forked_from"] == {"run_id": told.id, "checkpoint": 2}
        assert said == await session.get_items()
        with pytest.raises(InvalidRequestError, match="from 0"):
            await run.fork(7)


async def test_nested_questions_are_asked_anew_and_nothing_is_let_run_unasked(
    database_url: str,
) -> None:
    till = Till()
    inner = Agent(
        name="inner",
        instructions="You are inner.",
        model=turns([call("send", "x", to="x")], [call("send", "y", to="y")], "inner is done"),
        tools=till.tools,
    )

    def rule(items: list[Any]) -> Any:
        done = outputs_in(items)
        if not done:
            return [call("send", "q", to="q"), call("ask_inner", "p", input="go")]
        return [assistant_message(" | ".join(str(one) for one in done.values()))]

    outer = Agent(
        name="outer",
        model=RuleModel(rule),
        tools=[*till.tools, inner.as_tool("ask_inner", "Ask.", needs_approval=True)],
    )
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer", "go")
        asked = {one.tool["call_id"] for one in run.interruptions}
        assert asked == {"q", "p"}
        await approve(engine, run)
        assert [one.tool["call_id"] for one in run.interruptions] == ["x"]
        await approve(engine, run)
        assert [one.tool["call_id"] for one in run.interruptions] == ["y"]
        # It waits, and is forked meanwhile: what is done is done, what waits is asked anew.
        assert till.made == [("send", "q"), ("send", "x")]
        fork = await forked(run)
        assert fork.data["forked_from"]["checkpoint"] == 3
        [one] = fork.interruptions
        assert one.tool["call_id"] == "y"
        assert one.digest != run.interruptions[0].digest
        assert {n: c["status"] for n, c in (await calls_of(engine, fork)).items()} == {
            "p": "proposed",
            "p/y": "awaiting_approval",
        }
        # Of what people let run its state has only the agent whose run is in the middle.
        [state] = await query(
            engine,
            "SELECT perdure.whole_state(run_id, seq) -> 'context' AS given FROM perdure.run_states"
            " WHERE run_id = %s AND seq = 1",
            fork.id,
        )
        let = [one["decision"] for one in state["given"]["function_tool_approvals"]]
        assert let == [{"approved": ["p"], "rejected": []}]
        assert state["given"]["approvals"] == {}
        with pytest.raises(InvalidStateError, match="in the middle"):
            await run.fork(agent="inner")
        same = await forked(run, agent="outer")
        assert [one.tool["call_id"] for one in same.interruptions] == ["y"]
        await approve(engine, fork)
        assert fork.status == "completed", fork.data
        assert till.made == [("send", "q"), ("send", "x"), ("send", "y")]
        assert {one["status"] for one in (await calls_of(engine, fork)).values()} == {"succeeded"}
        # Both of the first two wait in a fork from there, though both were approved.
        first = await forked(run, 1)
        assert {one.tool["call_id"] for one in first.interruptions} == {"q", "p"}
        await approve(engine, first)
        [again] = first.interruptions
        assert again.tool["call_id"] == "y"
        assert till.made == [("send", "q"), ("send", "x"), ("send", "y")]
        await approve(engine, run)
        assert run.status == "completed"
        assert fork.output == run.output.replace("send y 4", "send y 3")


async def test_forks_and_checkpoints_over_http_and_beside_each_other(database_url: str) -> None:
    class Chatty(Notes):
        async def stream_response(
            self, system_instructions: Any, input: Any, *a: Any, **o: Any
        ) -> Any:
            self.polite = "polite" in str(system_instructions)
            async for event in super().stream_response(system_instructions, input, *a, **o):
                yield event

    def rule(items: list[Any]) -> Any:
        if not outputs_in(items):
            return [call("send", "s", to="ada")]
        please = " if you please" if model.polite else ""
        return [assistant_message(f"It was sent{please} to ada")]

    model = Chatty(rule)
    till = Till()
    agent = Agent(name="clerk", instructions="Be plain.", model=model, tools=till.tools)
    async with running(database_url, agent) as engine, asking(engine) as client:
        run = await approve(engine, await rested(engine, "clerk", "go", context={"n": 1}))
        url = f"/v1/runs/{run.id}"
        body = {"instructions": "Be polite.", "tools": "run"}
        once = {"Idempotency-Key": "k"}
        answers = [await client.post(f"{url}/fork", json=body, headers=once) for _ in range(2)]
        made = [read(RunAnswer, one, 202) for one in answers]
        assert made[0] == made[1]
        assert answers[1].headers["idempotent-replayed"] == "true"
        assert answers[0].headers["location"] == f"/v1/runs/{made[0]['id']}"
        assert made[0]["forked_from"] == {"run_id": run.id, "checkpoint": 1}
        fork = await (await engine.get(made[0]["id"])).wait(SECONDS)
        await approve(engine, fork)
        assert fork.output == "It was sent if you please to ada"

        listed = (await client.get(f"/v1/runs?forked_from={run.id}")).json()["data"]
        assert [one["id"] for one in listed] == [fork.id]
        assert (await client.get(f"/v1/runs?forked_from={fork.id}")).json()["data"] == []

        # Beside each other: what both have, what each said, what each used from there.
        found = read(RunDiff, await client.get(f"/v1/runs/{fork.id}/diff"))
        assert (found["shared_items"], found["same_output"]) == (2, False)
        [turn] = found["turns"]
        changed = [(one["op"], one["base"], one["run"]) for one in turn["changes"]]
        assert ("insert", "", " if you please") in changed
        assert found["usage"]["base"] == found["usage"]["run"] == fork.data["usage"]
        assert run.data["usage"]["requests"] == 2
        other = read(RunDiff, await client.get(f"{url}/diff?with={fork.id}"))
        assert other["usage"]["base"]["requests"] == other["usage"]["run"]["requests"] == 1

        # A checkpoint whole, and two of a run.
        second = read(StoredCheckpoint, await client.get(f"{url}/checkpoints/2"))
        assert second["kind"] == "final"
        assert second["state"]["current_turn"] == 2
        latest = read(CheckpointDiff, await client.get(f"{url}/checkpoints/diff"))
        assert [one["type"] for one in latest["items"]] == ["tool_call_output", "message_output"]
        assert (latest["turns"], latest["usage"]["requests"]) == (1, 1)
        assert (latest["context"], latest["has_more"]) == ([], False)
        first = read(
            CheckpointDiff, await client.get(f"{url}/checkpoints/diff?from=0&to=1&limit=1")
        )
        assert (first["base"], first["has_more"], len(first["items"])) == (None, True, 1)
        rest = await client.get(f"{url}/checkpoints/diff?from=0&to=1&after=1")
        assert [one["type"] for one in read(CheckpointDiff, rest)["items"]] == ["tool_call"]

        for path, status, named in (
            (f"{url}/checkpoints/3", 404, None),
            (f"{url}/checkpoints/x", 404, None),
            (f"{url}/checkpoints/0", 404, None),
            (f"{url}/checkpoints/diff?from=2&to=1", 422, ["/query/from"]),
            (f"{url}/checkpoints/diff?to=3", 422, ["/query/to"]),
            (f"{url}/diff", 422, ["/query/with"]),
            (f"{url}/diff?with={run.id}", 422, ["/query/with"]),
            (f"{url}/diff?with={uuid7()}", 404, None),
        ):
            code = "validation_error" if status == 422 else "not_found"
            problem = refused(await client.get(path), status, code)
            assert named is None or pointers(problem) == named, path
        for given, status, named in (
            ({"checkpoint": 9}, 422, ["/checkpoint"]),
            ({"checkpoint": -1}, 422, ["/checkpoint"]),
            ({"agent": "nobody"}, 422, ["/agent"]),
            ({"model": ""}, 422, ["/model"]),
            ({"tools": "ask"}, 422, ["/tools"]),
            ({"instructions": ""}, 422, ["/instructions"]),
            ({"input": [{"role": "assistant", "content": "x"}]}, 422, ["/input/0/role"]),
            ({"other": 1}, 422, ["/other"]),
            ({"checkpoint": 2}, 409, None),
        ):
            code = "validation_error" if status == 422 else "invalid_state"
            problem = refused(await client.post(f"{url}/fork", json=given), status, code)
            assert named is None or pointers(problem) == named, given
        refused(await client.post(f"/v1/runs/{uuid7()}/fork", json={}), 404, "not_found")
        rows = await query(engine, "SELECT count(*) AS n FROM perdure.runs")
        assert rows == [{"n": 2}]

        # Another tenant has none of it.
        elsewhere = replace(local_principal(), tenant_id=uuid7())
        async with asking(engine, elsewhere) as stranger:
            for method, path in (
                ("POST", f"{url}/fork"),
                ("GET", f"{url}/checkpoints/1"),
                ("GET", f"{url}/checkpoints/diff"),
                ("GET", f"/v1/runs/{fork.id}/diff"),
            ):
                refused(await stranger.request(method, path), 404, "not_found")

        # What it came from may go; the fork stays.
        assert (await client.delete(url)).status_code == 204
        left = read(RunAnswer, await client.get(f"/v1/runs/{fork.id}"))
        assert left["forked_from"] == {"run_id": None, "checkpoint": 1}
        last = await (await fork.fork(3, input="more")).wait(SECONDS)
        assert last.status == "completed", last.data


async def test_a_run_is_forked_while_it_is_under_way(database_url: str) -> None:
    gate = Gate()
    made: list[int] = []

    @function_tool
    async def pay(cents: int) -> str:
        await gate.stop()
        made.append(cents)
        return f"paid {cents}"

    second = Agent(name="second", model=turns("-", [call("pay", "p", cents=5)], "done"))
    second.tools.append(pay)
    first = Agent(name="first", model=turns([call("transfer_to_second", "h")]), handoffs=[second])
    async with running(database_url, first, second) as engine:
        run = await engine.start("first", "go")
        await gate.reached()
        fork = await forked(run)
        assert fork.data["forked_from"]["checkpoint"] == 1
        assert "has no outcome" in fork.interruptions[0].policy["message"]
        gate.open()
        await run.wait(SECONDS)
        assert (run.status, made) == ("completed", [5])
        # By now there is one: what was asked for is not done a second time.
        await approve(engine, fork)
        assert (fork.output, made) == ("done", [5])
