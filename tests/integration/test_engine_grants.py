"""Runs whose calls somebody approved beforehand: they go on by themselves."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from agents import Agent, function_tool
from agents.testing import assistant_message

from perdure.db import Connection
from perdure.engine import Engine, Run
from perdure.errors import ForbiddenError, InvalidRequestError
from perdure.interruptions.policies.deciders import Deciders
from perdure.interruptions.policies.policy import Policy
from perdure.runs.resume import go_on_if_decided
from tests.engine_support import (
    SECONDS,
    Rule,
    RuleModel,
    approve,
    call,
    calls_of,
    query,
    replies_in,
    rested,
    running,
    turns,
)

HOUR = 3600


class Till:
    """A gated tool and what it paid out."""

    def __init__(self) -> None:
        self.paid: list[int] = []

        @function_tool(needs_approval=True)
        async def refund(cents: int) -> str:
            self.paid.append(cents)
            return f"refunded {cents}"

        self.tool = refund

    def agent(self, model: RuleModel, name: str = "r") -> Agent[Any]:
        return Agent(name=name, model=model, tools=[self.tool])


async def decisions_of(engine: Engine, run: Run) -> list[tuple[str, str, str | None]]:
    """Who decided on the run's calls, in order: type, decision, id of a grant given with it."""
    rows = await query(
        engine,
        "SELECT by_type, decision, grant_id::text AS given FROM perdure.decisions"
        " WHERE run_id = %s ORDER BY id",
        run.id,
    )
    return [(row["by_type"], row["decision"], row["given"]) for row in rows]


async def uses_of(engine: Engine, grant_id: str) -> list[dict[str, Any]]:
    return await query(
        engine,
        "SELECT u.run_id::text, t.call_id, i.status, d.by_id, d.by_subject, d.digest = i.digest"
        " AS bound FROM perdure.grant_uses u"
        " JOIN perdure.interruptions i ON i.run_id = u.run_id AND i.id = u.interruption_id"
        " JOIN perdure.tool_calls t ON t.run_id = u.run_id AND t.id = u.tool_call_id"
        " JOIN perdure.decisions d ON d.run_id = u.run_id AND d.interruption_id = i.id"
        " WHERE u.grant_id = %s ORDER BY u.id",
        grant_id,
    )


async def test_the_same_call_again_goes_on_and_another_waits(database_url: str) -> None:
    till = Till()
    model = turns(
        [call("refund", "a", cents=5)],
        [call("refund", "b", cents=5)],
        [call("refund", "c", cents=5), call("refund", "d", cents=6)],
        [call("refund", "e", cents=5), call("refund", "f", cents=5)],
        "done",
    )
    async with running(database_url, till.agent(model)) as engine:
        run = await rested(engine, "r")
        [first] = run.interruptions
        decided = await engine.decide(
            first.id,
            "approve",
            digest=first.digest,
            remember={"scope": "run", "until": HOUR},
            by="alice",
        )
        given = decided["decision"]["remember"]
        await run.wait(SECONDS)
        # b went by itself; of c and d the one that waits is d, and the run with it.
        assert run.status == "interrupted"
        assert [one.tool["call_id"] for one in run.interruptions] == ["d"]
        assert till.paid == [5, 5]
        statuses = {key: one["status"] for key, one in (await calls_of(engine, run)).items()}
        assert statuses == {
            "a": "succeeded",
            "b": "succeeded",
            "c": "approved",
            "d": "awaiting_approval",
        }
        [waits] = run.interruptions
        await engine.decide(waits.id, "reject", message="no")
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
        assert sorted(till.paid) == [5, 5, 5, 5, 5]
        assert await decisions_of(engine, run) == [
            ("program", "approve", given),
            ("grant", "approve", None),
            ("grant", "approve", None),
            ("program", "reject", None),
            ("grant", "approve", None),
            ("grant", "approve", None),
        ]
        assert await uses_of(engine, given) == [
            {
                "run_id": run.id,
                "call_id": call_id,
                "status": "approved",
                "by_id": given,
                "by_subject": "alice",
                "bound": True,
            }
            for call_id in "bcef"
        ]
        segments = await query(
            engine, "SELECT outcome FROM perdure.segments WHERE run_id = %s ORDER BY seq", run.id
        )
        assert [one["outcome"] for one in segments] == ["interrupted"] * 4 + ["completed"]
        assert model.asked == 5
        # For that run alone.
        other = await rested(engine, "r")
        assert other.status == "interrupted"


def one_call_each(**arguments: int) -> Rule:
    """A model that calls refund once with what the input names, and is done."""

    def rule(items: list[Any]) -> Any:
        if replies_in(items):
            return [assistant_message("done")]
        return [call("refund", "x", cents=arguments[items[0]["content"]])]

    return rule


async def test_a_condition_for_a_user_until_it_is_revoked(database_url: str) -> None:
    till = Till()
    model = RuleModel(one_call_each(small=500, large=5001))
    async with running(database_url, till.agent(model), till.agent(model, "other")) as engine:
        run = await rested(engine, "r", "large", user_id="bob")
        remember = {"scope": "user", "until": HOUR, "when": {"/cents": {"lte": 5000}}}
        await approve(engine, run, remember=remember)
        assert run.status == "completed"
        [grant] = await query(engine, "SELECT id::text FROM perdure.grants")
        for agent, text, user_id, status in (
            ("r", "small", "bob", "completed"),
            ("r", "large", "bob", "interrupted"),
            ("r", "small", "eve", "interrupted"),
            ("r", "small", None, "interrupted"),
            ("other", "small", "bob", "interrupted"),
        ):
            run = await rested(engine, agent, text, user_id=user_id)
            assert run.status == status, (agent, text, user_id)
        await query(
            engine,
            "UPDATE perdure.grants SET revoked_at = now(), revoked_by = '{}' WHERE id = %s",
            grant["id"],
        )
        run = await rested(engine, "r", "small", user_id="bob")
        assert run.status == "interrupted"
        assert len(await uses_of(engine, grant["id"])) == 1
    assert till.paid == [5001, 500]


async def test_what_was_rejected_stays_so_whatever_is_remembered_beside_it(
    database_url: str,
) -> None:
    till = Till()
    asked = [call("refund", name, cents=5) for name in ("a", "b", "c")]
    model = turns(asked, [call("refund", "d", cents=5)], "done")
    async with running(database_url, till.agent(model)) as engine:
        run = await rested(engine, "r")
        a, b, c = run.interruptions
        await engine.decide(a.id, "reject", message="no")
        remember = {"scope": "run", "until": HOUR}
        await engine.decide(b.id, "approve", digest=b.digest, remember=remember)
        # Nor is one approved that waited already.
        assert [one.id for one in (await run.refresh()).interruptions] == [c.id]
        await engine.decide(c.id, "reject", message="no")
        await run.wait(SECONDS)
        assert run.status == "completed"
        statuses = {key: one["status"] for key, one in (await calls_of(engine, run)).items()}
    assert statuses == {"a": "rejected", "b": "succeeded", "c": "rejected", "d": "succeeded"}
    assert till.paid == [5, 5]


async def test_with_edited_arguments_it_is_about_those(database_url: str) -> None:
    till = Till()
    model = RuleModel(one_call_each(written=5, edited=7))
    async with running(database_url, till.agent(model)) as engine:
        run = await rested(engine, "r", "written")
        remember = {"scope": "agent", "until": HOUR}
        await approve(engine, run, arguments={"cents": 7}, remember=remember)
        assert run.status == "completed"
        assert (await rested(engine, "r", "edited")).status == "completed"
        assert (await rested(engine, "r", "written")).status == "interrupted"
    assert till.paid == [7, 7]


async def test_a_rest_that_fails_uses_nothing_and_the_next_uses_it_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = Till()
    model = RuleModel(one_call_each(small=5))
    async with running(database_url, till.agent(model)) as engine:
        run = await rested(engine, "r", "small")
        await approve(engine, run, remember={"scope": "agent", "until": HOUR})
        failed: list[Any] = []

        async def fail_once(conn: Connection, **where: Any) -> bool:
            if not failed:
                failed.append(where)
                # What a lost connection is to the rest: none of its transaction is there.
                raise psycopg.OperationalError("the connection is lost")
            return await go_on_if_decided(conn, **where)

        monkeypatch.setattr("perdure.runs.segment_rows.go_on_if_decided", fail_once)
        run = await rested(engine, "r", "small")
        assert (run.status, len(failed)) == ("completed", 1)
        assert [one[:2] for one in await decisions_of(engine, run)] == [("grant", "approve")]
        [use] = await query(engine, "SELECT run_id::text FROM perdure.grant_uses")
        assert use["run_id"] == run.id
    assert till.paid == [5, 5]
    assert model.asked == 4


async def test_policies_ask_and_a_grant_answers_what_one_person_may(database_url: str) -> None:
    till = Till()
    words = {"small": 5, "large": 500, "pair": 5000, "never": 50_000}
    model = RuleModel(one_call_each(**words))
    finance = Deciders(groups=["finance"])
    policies = [
        Policy("never", tool="refund", when={"/cents": {"gte": 50_000}}, then="deny"),
        Policy("two", tool="refund", when={"/cents": {"gte": 5000}}, required=2),
        Policy("finance", tool="refund", when={"/cents": {"gte": 500}}, deciders=finance),
    ]
    remember = {"scope": "agent", "until": HOUR, "when": {"/cents": {"gt": 0}}}

    async def ended(engine: Engine) -> dict[str, str]:
        return {word: (await rested(engine, "r", word)).status for word in words}

    async with running(database_url, till.agent(model), policies=policies) as engine:
        run = await rested(engine, "r", "pair")
        with pytest.raises(InvalidRequestError, match="needs 2 people"):
            await approve(engine, run, remember=remember, by="alice", groups=["finance"])
        run = await rested(engine, "r", "small")
        await approve(engine, run, remember=remember, by="bob")
        waits = {"large": "interrupted", "pair": "interrupted"}
        assert await ended(engine) == {"small": "completed", **waits, "never": "completed"}
        run = await rested(engine, "r", "large")
        with pytest.raises(ForbiddenError):
            await approve(engine, run, remember=remember, by="bob")
        await approve(engine, run, remember=remember, by="alice", groups=["finance"])
        waits = {"pair": "interrupted"}
        assert await ended(engine) == {
            "small": "completed",
            "large": "completed",
            **waits,
            "never": "completed",
        }
    assert till.paid == [5, 5, 500, 5, 500]


async def test_a_call_deep_within_agents_as_tools(database_url: str) -> None:
    till = Till()
    inner = till.agent(turns([call("refund", "x", cents=5)], "inner done"), "inner")
    outer = Agent(
        name="outer",
        model=turns([call("ask", "one", input="a")], [call("ask", "two", input="b")], "outer done"),
        tools=[inner.as_tool("ask", "Asks the inner agent.")],
    )
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        [first] = run.interruptions
        assert (first.agent, first.tool["call_id"]) == ("inner", "x")
        await approve(engine, run, remember={"scope": "agent", "until": HOUR})
        assert (run.status, run.output) == ("completed", "outer done")
        assert [one[0] for one in await decisions_of(engine, run)] == ["program", "grant"]
    assert till.paid == [5, 5]


@pytest.mark.parametrize("change", ["schema", "name"])
async def test_another_build_of_the_tool_is_not_covered(database_url: str, change: str) -> None:
    till = Till()
    model = turns([call("refund", "x", cents=5)], "done")
    async with running(database_url, till.agent(model)) as engine:
        run = await rested(engine, "r")
        await approve(engine, run, remember={"scope": "agent", "until": HOUR})
        assert (await rested(engine, "r")).status == "completed"

    @function_tool(needs_approval=True, name_override="refund" if change == "schema" else "pay")
    async def refund(cents: int, note: str = "") -> str:
        till.paid.append(-cents)
        return "refunded"

    model = turns([call(refund.name, "x", cents=5)], "done")
    async with running(database_url, Agent(name="r", model=model, tools=[refund])) as engine:
        assert (await rested(engine, "r")).status == "interrupted"
    assert till.paid == [5, 5]
