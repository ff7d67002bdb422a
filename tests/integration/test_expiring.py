"""What becomes of questions nobody answers: times are moved in the database, and nothing sleeps."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool

from perdure import Deciders, Engine, Policy, ask_human
from perdure.access.principals import DEFAULT_TENANT
from perdure.engine import Run
from perdure.errors import ExpiredError, ForbiddenError
from perdure.interruptions.queries import get_interruption
from perdure.runs import resume
from perdure.runs.overdue import expire_due, remind_due
from tests.engine_support import (
    SECONDS,
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

_HOUR = 3600.0


async def _move(engine: Engine, run: Run, *, column: str = "expires_at", wake: bool = True) -> None:
    """Let the time of all a run waits for be over."""
    await query(
        engine,
        f"UPDATE perdure.interruptions SET {column} = now() - interval '1 second'"
        " WHERE run_id = %s AND status = 'pending'",
        UUID(run.id),
    )
    if wake:
        await query(engine, "SELECT pg_notify('perdure_due', '')")


async def _shown(engine: Engine, id: str) -> dict[str, Any]:
    async with engine.pool.connection() as conn:
        return await get_interruption(conn, tenant_id=DEFAULT_TENANT, interruption_id=UUID(id))


async def _lasts(engine: Engine, run: Run) -> float:
    [row] = await query(
        engine,
        "SELECT extract(epoch FROM expires_at - now())::float8 AS s FROM perdure.interruptions"
        " WHERE run_id = %s AND status = 'pending'",
        UUID(run.id),
    )
    return float(row["s"])


async def _over(run: Run) -> str:
    """The run's status once it is over, whoever made it go on."""

    async def ended() -> bool:
        return (await run.refresh()).status in ("completed", "failed")

    await eventually(ended)
    return run.status


class Story:
    """An agent for each end a policy may have, and what was refunded."""

    def __init__(self) -> None:
        self.refunded: list[str] = []
        self.models: dict[str, RuleModel] = {}
        self.policies = [
            self._policy("reject"),
            self._policy("approve", message="Trusted."),
            self._policy("fail"),
            self._policy(
                "escalate",
                escalate_to=[Deciders(groups=["heads"]), Deciders(subjects=["boss"])],
                remind_every=_HOUR / 4,
            ),
        ]
        self.agents = [self._agent(policy.on_expire) for policy in self.policies]

    def _policy(self, end: Any, **options: Any) -> Policy:
        clerks = Deciders(groups=["clerks"])
        return Policy(
            f"{end}s", agent=end, deciders=clerks, expires_after=_HOUR, on_expire=end, **options
        )

    def _agent(self, name: str) -> Agent[Any]:
        @function_tool
        async def refund() -> str:
            self.refunded.append(name)
            return "refunded"

        self.models[name] = turns([call("refund", "c1")], "done")
        return Agent(name=name, model=self.models[name], tools=[refund])


async def test_each_end_a_question_may_have(database_url: str) -> None:
    story = Story()
    async with running(database_url, *story.agents, policies=story.policies) as engine:
        runs = {one.name: await rested(engine, one.name) for one in story.agents}
        asked = {name: run.interruptions[0] for name, run in runs.items()}
        assert {run.status for run in runs.values()} == {"interrupted"}
        for run in runs.values():
            assert 0.9 * _HOUR < await _lasts(engine, run) <= _HOUR

        # Too late is too late, also before anybody has looked.
        run = runs["reject"]
        await _move(engine, run, wake=False)
        one = asked["reject"]
        with pytest.raises(ExpiredError):
            await engine.decide(one.id, "approve", digest=one.digest, by="ann", groups=["clerks"])

        for name in ("reject", "approve", "fail"):
            await _move(engine, runs[name])
        # Any number of workers at once.
        await asyncio.gather(*(expire_due(engine.pool) for _ in range(8)))
        for name in ("reject", "approve", "fail"):
            await _over(runs[name])

        assert (runs["reject"].status, runs["approve"].status) == ("completed", "completed")
        assert story.refunded == ["approve"]
        assert outputs_in(story.models["reject"].inputs[-1]) == {"c1": "Nobody decided in time."}
        seen = await _shown(engine, asked["reject"].id)
        assert (seen["status"], seen["decision"]["by"]) == (
            "expired",
            {"type": "policy", "id": "rejects", "subject": None},
        )
        assert (await calls_of(engine, runs["reject"]))["c1"]["status"] == "rejected"
        seen = await _shown(engine, asked["approve"].id)
        assert (seen["status"], len(seen["decisions"])) == ("approved", 1)

        run = runs["fail"]
        assert run.status == "failed"
        assert run.error is not None
        assert run.error["type"] == "abandoned"
        assert "Nobody decided" in run.error["message"]
        assert "'fails'" in run.error["message"]
        seen = await _shown(engine, asked["fail"].id)
        assert (seen["status"], seen["decision"]) == ("expired", None)
        async with engine.pool.connection() as conn:
            await resume.retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))
        await run.wait(SECONDS)
        assert run.status == "interrupted"
        assert await _lasts(engine, run) > 0.9 * _HOUR
        [again] = run.interruptions
        await engine.decide(again.id, "approve", digest=again.digest, by="ann", groups=["clerks"])
        await run.wait(SECONDS)
        assert (run.status, story.refunded) == ("completed", ["approve", "fail"])

        await _escalates(engine, runs["escalate"], asked["escalate"])
        assert story.refunded == ["approve", "fail"]


async def _escalates(engine: Engine, run: Run, one: Any) -> None:
    for place, (who, groups) in enumerate((("ann", "heads"), ("boss", "-")), 1):
        await _move(engine, run, column="remind_at")

        async def reminded(place: int = place) -> bool:
            [row] = await query(
                engine,
                "SELECT reminded, remind_at > now() AS later, escalated FROM perdure.interruptions"
                " WHERE id = %s",
                UUID(one.id),
            )
            return row == {"reminded": place, "later": True, "escalated": place - 1}

        await eventually(reminded)
        await _move(engine, run)
        await asyncio.gather(*(expire_due(engine.pool) for _ in range(4)))

        async def escalated(place: int = place) -> bool:
            [row] = await query(
                engine,
                "SELECT escalated, expires_at > now() AS later FROM perdure.interruptions"
                " WHERE id = %s",
                UUID(one.id),
            )
            return row == {"escalated": place, "later": True}

        await eventually(escalated)
        assert await _lasts(engine, run) > 0.9 * _HOUR
        # It is the others' turn: those before them are too late.
        with pytest.raises(ForbiddenError):
            await engine.decide(one.id, "approve", digest=one.digest, by="carl", groups=["clerks"])
        shown = await _shown(engine, one.id)
        deciders = shown["policy"]["deciders"]
        assert groups in deciders["groups"] or who in deciders["subjects"]
        assert (shown["status"], shown["digest"]) == ("pending", one.digest)
    await _move(engine, run)
    assert await _over(run) == "completed"
    assert (await _shown(engine, one.id))["status"] == "expired"
    assert await remind_due(engine.pool) == 0


async def test_some_of_several_approvals_run_nothing_when_the_time_is_over(
    database_url: str,
) -> None:
    refunded: list[int] = []

    @function_tool
    async def refund(cents: int) -> str:
        refunded.append(cents)
        return "refunded"

    @function_tool(needs_approval=True)
    async def look() -> str:
        return "looked"

    asked = [call("refund", "c1", cents=1), call("look", "c2")]
    agent = Agent(name="r", model=turns(asked, "done"), tools=[refund, look])
    two = Policy("two", tool="refund", required=2, expires_after=_HOUR, on_expire="fail")
    async with running(database_url, agent, policies=[two]) as engine:
        run = await rested(engine, "r")
        for one in run.interruptions:
            await engine.decide(one.id, "approve", digest=one.digest, by="ann")
        await _move(engine, run)
        assert (await _over(run), refunded) == ("failed", [])
        async with engine.pool.connection() as conn:
            await resume.retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))
        await run.wait(SECONDS)
        assert (run.status, refunded) == ("interrupted", [])
        [again] = run.interruptions
        assert (again.tool["call_id"], again.decisions) == ("c1", [])
        await approve(engine, run, by="ann")
        run = await approve(engine, await run.refresh(), by="bob")
        assert (run.status, refunded) == ("completed", [1])


async def test_a_question_in_words_has_its_people_and_its_time_too(database_url: str) -> None:
    asked = [
        call("ask_human", "q1", question="Which colour?"),
        call("ask_human", "q2", question="Which password?"),
    ]
    model = turns(asked, "done")
    agent = Agent(name="a", model=model, tools=[ask_human])
    made = [
        Policy(
            "secrets", when={"/question": {"glob": "*password*"}}, then="deny", message="Never."
        ),
        Policy(
            "questions",
            tool="ask_human",
            deciders=Deciders(subjects=["ann", "bob"]),
            required=2,
            expires_after=_HOUR,
        ),
    ]
    async with running(database_url, agent, policies=made) as engine:
        for answered in (True, False):
            run = await rested(engine, "a")
            [one] = run.interruptions
            assert (one.type, one.required, one.question) == ("question", 1, "Which colour?")
            with pytest.raises(ForbiddenError):
                await engine.decide(one.id, "answer", answer="red", by="eve")
            if answered:
                await engine.decide(one.id, "answer", answer="red", by="ann")
            else:
                await _move(engine, run)
            assert await _over(run) == "completed"
            said = "red" if answered else "Nobody decided in time."
            assert outputs_in(model.inputs[-1]) == {"q1": said, "q2": "Never."}


_WORKER = """
import asyncio, json, sys, time
from datetime import datetime

hours = float(sys.argv[2])
for name in ("time", "time_ns"):
    real = getattr(time, name)
    off = hours * 3600 * (1 if name == "time" else 10**9)
    setattr(time, name, lambda real=real, off=off: type(real())(real() + off))

from agents import Agent, function_tool
from perdure import Engine, Policy
from tests.engine_support import call, turns


@function_tool
async def refund() -> str:
    return "refunded"


def agent(name):
    return Agent(name=name, model=turns([call("refund", "c1")], "done"), tools=[refund])


policies = [Policy("p", expires_after=3600, on_expire="approve", remind_every=1800)]


async def main():
    engine = Engine([agent("a")], policies=policies)
    async with engine.running(url=sys.argv[1]):
        print(json.dumps({"clock": time.time()}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
"""


@pytest.mark.parametrize("hours", [2, -2])
async def test_a_worker_whose_clock_is_off_changes_nothing(database_url: str, hours: int) -> None:
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _WORKER, database_url, str(hours)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        line = await asyncio.wait_for(worker.stdout.readline(), SECONDS * 2)
        engine = Engine([Agent(name="a")])
        async with engine.running(url=database_url, worker=False):
            [row] = await query(engine, "SELECT extract(epoch FROM now())::float8 AS now")
            assert abs(json.loads(line)["clock"] - row["now"] - hours * _HOUR) < 60
            run = await rested(engine, "a")
            assert run.status == "interrupted"
            assert 0.9 * _HOUR < await _lasts(engine, run) <= _HOUR
            other = await rested(engine, "a")
            await _move(engine, other)
            # By then that worker has looked at what is due; the first is not.
            assert await _over(other) == "completed"
            await run.refresh()
            assert (run.status, run.interruptions[0].status) == ("interrupted", "pending")
            [row] = await query(
                engine,
                "SELECT reminded, escalated FROM perdure.interruptions WHERE run_id = %s",
                UUID(run.id),
            )
            assert row == {"reminded": 0, "escalated": 0}
            await approve(engine, run, by="ann")
            assert run.status == "completed"
    finally:
        worker.stdin.close()
        await asyncio.wait_for(worker.wait(), SECONDS)
