"""Messages to a run that is under way: each reaches the model once, at the next request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from agents.testing import assistant_message

from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.engine import Engine, Run
from perdure.errors import IdempotencyConflictError, InvalidRequestError, InvalidStateError
from perdure.runs import inputs, resume
from perdure.runs.workflow import SegmentRunner
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    approve,
    call,
    eventually,
    items_of,
    outputs_in,
    query,
    records,
    replies_in,
    rested,
    running,
    turns,
)
from tests.events_support import check_log, log_of


def said(items: Sequence[Any]) -> list[str]:
    """What users said in an input."""
    return [item["content"] for item in items if item.get("role") == "user"]


async def _check(engine: Engine, run: Run, *messages: str, ends: int = 1) -> list[dict[str, Any]]:
    """All of ``messages`` were given, in order, once; returns them as the API shows them."""
    added = await records(engine, run, "inputs")
    assert [one["input"][0]["content"] for one in added] == list(messages)
    assert {one["status"] for one in added} <= {"given"}
    log = await log_of(engine.pool, run.id)
    check_log(log, run.status, ends=ends)
    for kind in ("input.added", "input.given"):
        ids = [one.data["input_id"] for one in log if one.event == kind]
        assert ids == [one["id"] for one in added]
    told = [one.data["text"] for one in log if one.event == "input.added"]
    assert told == list(messages)
    items = await items_of(engine, run)
    assert [item["text"] for item in items if item["role"] == "user"] == ["hi", *messages]
    return added


async def _is_heard(engine: Engine, run: Run) -> bool:
    worker = engine._worker
    assert worker is not None
    assert worker._runner is not None
    return worker._runner._running[UUID(run.id)].inputs_waiting


async def test_a_message_during_a_tool_or_a_request_is_in_the_next_request(
    database_url: str,
) -> None:
    asking, working = Gate(), Gate()

    @function_tool
    async def work(n: int) -> str:
        if n == 1:
            await working.stop()
        return f"did {n}"

    async def rule(items: list[Any]) -> Any:
        n = replies_in(items)
        if n == 2:
            await asking.stop()
        return [assistant_message("done") if n == 4 else call("work", f"c{n}", n=n)]

    model = RuleModel(rule)
    async with running(database_url, Agent(name="a", model=model, tools=[work])) as engine:
        run = await engine.start("a", "hi")
        await working.reached()
        added = await run.add_input("one", by="alice")
        assert (added["status"], added["given_at"]) == ("pending", None)
        assert added["added_by"] == {"type": "program", "id": None, "subject": "alice"}
        again = [await run.add_input("two", idempotency_key="k") for _ in range(2)]
        assert again[0] == again[1]
        with pytest.raises(IdempotencyConflictError):
            await run.add_input("three", idempotency_key="k")
        working.open()
        await asking.reached()
        # While nobody listens: the worker looks for itself when it does again.
        assert await query(
            engine,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%%'",
        )
        await run.add_input([{"role": "user", "content": "four"}])
        await eventually(lambda: _is_heard(engine, run))
        asking.open()
        run = await run.wait(SECONDS)
        assert (run.status, run.output) == ("completed", "done")
        given = await _check(engine, run, "one", "two", "four")
        states = await records(engine, run, "checkpoints")
        items = await items_of(engine, run)
        with pytest.raises(InvalidStateError, match="is completed and cannot be given a message"):
            await run.add_input("late")
    assert [said(one) for one in model.inputs] == [
        *[["hi"]] * 2,
        ["hi", "one", "two"],
        *[["hi", "one", "two", "four"]] * 2,
    ]
    # Each stands where it came: behind what had been answered.
    assert [item.get("call_id") or item["content"] for item in model.inputs[-1]] == [
        *["hi", "c0", "c0", "c1", "c1", "one", "two", "c2", "c2", "four", "c3", "c3"],
    ]
    assert [one["kind"] for one in states] == ["periodic", "periodic", "final"]
    assert [one["checkpoint"] for one in given] == [1, 1, 2]
    assert run.data["turn"] == run.data["usage"]["requests"] == 5
    assert len(items) == len(model.inputs[-1]) + 1


@pytest.mark.parametrize("heard", [True, False])
async def test_a_run_that_was_to_end_takes_another_turn(
    database_url: str, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    asking = Gate()
    if not heard:
        # As if it came after the driver's last look: only the run's last transaction sees it.
        monkeypatch.setattr(SegmentRunner, "input_added", lambda *_: None)

    @function_tool
    async def ask(text: str) -> str:
        await asking.stop()
        return "asked"

    async def rule(items: list[Any]) -> Any:
        n = replies_in(items)
        if n == 0:
            await asking.stop()
        return [assistant_message(f"end {n}")]

    model = RuleModel(rule)
    stopping = turns([call("ask", "c1", text="?")], "went on")
    agents = [
        Agent(name="a", model=model),
        Agent(name="b", model=stopping, tools=[ask], tool_use_behavior="stop_on_first_tool"),
    ]
    async with running(database_url, *agents) as engine:
        for agent in ("a", "b"):
            run = await engine.start(agent, "hi")
            await asking.reached()
            await run.add_input("wait")
            asking.open()
            run = await run.wait(SECONDS)
            assert run.status == "completed", run.error
            [given] = await _check(engine, run, "wait")
            assert given["checkpoint"] == 1
            assert run.data["turn"] == run.data["usage"]["requests"] == 2
            states = await records(engine, run, "checkpoints")
            assert [one["kind"] for one in states] == ["periodic", "final"]
            asking.shut()
    assert run.output == "went on"
    assert outputs_in(stopping.inputs[1]) == {"c1": "asked"}
    assert [said(one) for one in (*model.inputs, *stopping.inputs)] == [["hi"], ["hi", "wait"]] * 2
    assert model.inputs[1][1]["content"][0]["text"] == "end 0"


async def test_who_was_told_that_it_is_added_is_heard(database_url: str) -> None:
    """Messages at whatever moment, many of them while the run is about to end."""

    @function_tool
    async def work() -> str:
        return "did"

    def rule(items: list[Any]) -> Any:
        n = replies_in(items)
        # Every message brings a call and an end, so that they come in the middle of both.
        return [call("work", f"c{n}")] if n % 2 == 0 else [assistant_message(str(said(items)))]

    async def talk(run: Run) -> list[str]:
        accepted: list[str] = []
        while len(accepted) < 6:
            word = f"word {len(accepted)}"
            try:
                await run.add_input(word)
            except InvalidStateError:
                break
            accepted.append(word)
        return accepted

    agent = Agent(name="a", model=RuleModel(rule), tools=[work])
    async with running(database_url, agent) as engine:
        runs = [await engine.start("a", "hi", max_turns=100) for _ in range(16)]
        accepted = await asyncio.gather(*(talk(run) for run in runs))
        for run, words in zip(runs, accepted, strict=True):
            await run.wait(SECONDS)
            assert (run.status, run.output) == ("completed", str(["hi", *words]))
            await _check(engine, run, *words)
            assert run.data["turn"] == run.data["usage"]["requests"]


async def test_a_message_to_a_run_that_waits(database_url: str) -> None:
    """Queued: it comes behind the run's input. Parked: it is there when the run goes on."""

    @function_tool(needs_approval=True)
    async def pay(cents: int) -> str:
        return f"paid {cents}"

    model = turns([call("pay", "c1", cents=1)], "done")
    ending = turns([call("pay", "c1", cents=1)], "went on")
    handing = turns([call("pay", "c1", cents=1), call("transfer_to_a", "h1")])
    agents: list[Agent[Any]] = [
        Agent(name="a", model=model, tools=[pay]),
        Agent(name="b", model=ending, tools=[pay], tool_use_behavior="stop_on_first_tool"),
    ]
    agents.append(Agent(name="c", model=handing, tools=[pay], handoffs=[agents[0]]))
    engine = Engine(agents)
    async with engine.running(url=database_url, worker=False):
        run = await engine.start("a", "hi")
        await run.add_input("one")
    async with engine.running(url=database_url):
        run = await run.wait(SECONDS)
        await run.add_input("two")
        run = await run.refresh()
        assert (run.status, said(model.inputs[0])) == ("interrupted", ["hi", "one"])
        added = await records(engine, run, "inputs")
        assert [one["status"] for one in added] == ["given", "pending"]
        run = await approve(engine, run)
        assert (run.status, run.output) == ("completed", "done")
        given = await _check(engine, run, "one", "two")
        assert [one["checkpoint"] for one in given] == [0, 2]
        assert model.asked == 2
        assert [item.get("call_id") or item["content"] for item in model.inputs[1]] == [
            *["hi", "one", "c1", "c1", "two"],
        ]
        states = await records(engine, run, "checkpoints")
        assert [one["kind"] for one in states] == ["interrupted", "periodic", "final"]

        # The SDK takes none into a state whose tools may end the run: it comes when they have.
        run = await rested(engine, "b")
        await run.add_input("more")
        run = await approve(engine, run)
        assert (run.status, run.output) == ("completed", "went on")
        await _check(engine, run, "more")
        assert (ending.asked, said(ending.inputs[1])) == (2, ["hi", "more"])

        run = await rested(engine, "c")
        await run.add_input("who?")
        run = await approve(engine, run)
        assert (run.status, run.output) == ("completed", "done")
        await _check(engine, run, "who?")
        assert (run.data["current_agent"], model.asked) == ("a", 3)
        assert said(model.inputs[2]) == ["hi", "who?"]
        log = await log_of(engine.pool, run.id)
        assert [one.event for one in log].count("handoff") == 1


async def test_a_message_that_comes_too_late_says_so(database_url: str) -> None:
    asking = Gate()
    broken = True

    async def rule(items: list[Any]) -> Any:
        await asking.stop()
        if broken:
            raise RuntimeError("no model today")
        return [assistant_message(f"heard {said(items)}")]

    @function_tool
    async def work() -> str:
        return "did"

    async def endless(items: list[Any]) -> Any:
        await asking.stop()
        return [call("work", f"c{replies_in(items)}")]

    agents = [
        Agent(name="a", model=RuleModel(rule)),
        Agent(name="b", model=RuleModel(endless), tools=[work]),
    ]
    async with running(database_url, *agents) as engine:
        # A failed run keeps it, and gives it when it is resumed.
        run = await engine.start("a", "hi")
        await asking.reached()
        await run.add_input("one")
        asking.open()
        run = await run.wait(SECONDS)
        assert run.status == "failed"
        [added] = await records(engine, run, "inputs")
        assert (added["status"], added["reason"]) == ("pending", None)
        with pytest.raises(InvalidStateError, match="Resume it first"):
            await run.add_input("two")
        broken = False
        async with engine.pool.connection() as conn:
            await resume.retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))
        run = await run.wait(SECONDS)
        assert run.output == "heard ['hi', 'one']"
        await _check(engine, run, "one", ends=2)

        # There is no turn left to give it in.
        for agent, status in (("a", "completed"), ("b", "failed")):
            asking.shut()
            run = await engine.start(agent, "hi", max_turns=1)
            await asking.reached()
            await run.add_input("late")
            asking.open()
            run = await run.wait(SECONDS)
            assert run.status == status, run.data
            [added] = await records(engine, run, "inputs")
            assert (added["status"], added["reason"]) == ("not_given", "max_turns")

        # A run that is cancelled takes none, and what waited is not given.
        asking.shut()
        run = await engine.start("a", "hi")
        await asking.reached()
        await run.add_input("one")
        async with engine.pool.connection() as conn, conn.transaction():
            await resume.cancel(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))
            with pytest.raises(InvalidStateError, match="is being cancelled"):
                await inputs.add_input(
                    conn,
                    tenant_id=DEFAULT_TENANT,
                    run_id=UUID(run.id),
                    input="two",
                    by=program_principal(None),
                )
        run = await run.wait(SECONDS)
        [added] = await records(engine, run, "inputs")
        assert (run.status, added["reason"]) == ("cancelled", "run_cancelled")
        for nothing in ("", [], [{"role": "assistant", "content": "no"}], object()):
            with pytest.raises(InvalidRequestError, match="/input"):
                await run.add_input(nothing)  # type: ignore[arg-type]
