"""Run states: which are written when, and that nothing is lost or doubled across them."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import assistant_message
from agents.version import __version__ as sdk_version

from perdure.engine import Engine, Run
from perdure.runs.state import worth_writing
from tests.engine_support import (
    RuleModel,
    approve,
    call,
    error_of,
    items_of,
    outputs_in,
    query,
    records,
    replies_in,
    rested,
    running,
    turns,
)


async def _states(engine: Engine, run: Run) -> list[dict[str, Any]]:
    states = await records(engine, run, "checkpoints")
    assert [state["seq"] for state in states] == list(range(1, len(states) + 1))
    # The last one and no other is what the run would go on from.
    assert [state["is_active"] for state in states] == [False] * (len(states) - 1) + [True]
    stored = await query(
        engine,
        "SELECT whole ->> '$schemaVersion' AS v, length(whole::text) AS size"
        " FROM (SELECT perdure.whole_state(run_id, seq) AS whole"
        " FROM perdure.run_states ORDER BY seq) _",
    )
    for state, row in zip(states, stored, strict=True):
        assert (state["sdk_version"], state["schema_version"]) == (sdk_version, row["v"])
        # As PostgreSQL writes it, with a blank behind each comma and colon.
        assert 100 < state["size_bytes"] < row["size"] < state["size_bytes"] * 1.3
    return states


async def test_a_state_at_each_handoff_each_interruption_and_the_end(database_url: str) -> None:
    @function_tool(needs_approval=True)
    async def pay(cents: int) -> str:
        return f"paid {cents}"

    front_model = turns([call("transfer_to_back", "h1")], [], [], [], "done")
    back_model = turns(
        [],
        [call("pay", "c1", cents=1)],
        [call("pay", "c2", cents=2)],
        [call("transfer_to_front", "h2")],
    )
    front: Agent[Any] = Agent(name="front", model=front_model)
    back = Agent(name="back", model=back_model, tools=[pay], handoffs=[front])
    front.handoffs = [back]
    async with running(database_url, front) as engine:
        run = await rested(engine, "front")
        states = await _states(engine, run)
        assert [state["kind"] for state in states] == ["handoff", "interrupted"]
        assert (run.data["current_agent"], run.data["turn"]) == ("back", 2)
        run = await approve(engine, run)
        run = await approve(engine, run)
        assert (run.status, run.output) == ("completed", "done")
        states = await _states(engine, run)
        items = await items_of(engine, run)
    assert [(s["kind"], s["current_agent"], s["turn"]) for s in states] == [
        ("handoff", "back", 1),
        ("interrupted", "back", 2),
        ("interrupted", "back", 3),
        ("handoff", "front", 4),
        ("final", "front", 5),
    ]
    assert [item["type"] for item in items] == [
        "message",
        *["handoff_call", "handoff_output"],
        *["tool_call", "tool_call_output"] * 2,
        *["handoff_call", "handoff_output"],
        "message_output",
    ]
    assert [item["agent"] for item in items] == [None, *["front"] * 2, *["back"] * 6, "front"]
    assert outputs_in(front_model.inputs[-1])["c2"] == "paid 2"
    assert run.data["usage"]["requests"] == 5


async def test_a_long_run_writes_states_in_between(database_url: str) -> None:
    last = 120
    ran: list[int] = []

    @function_tool
    async def step(n: int) -> str:
        ran.append(n)
        return f"did {n}"

    def rule(items: list[Any]) -> Any:
        n = replies_in(items)
        return [assistant_message("done") if n == last else call("step", f"c{n}", n=n)]

    model = RuleModel(rule)
    async with running(database_url, Agent(name="a", model=model, tools=[step])) as engine:
        run = await rested(engine, "a", max_turns=200)
        assert (run.data["error"], run.output) == (None, "done")
        states = await _states(engine, run)
        items = await items_of(engine, run)
        calls = await records(engine, run, "tool_calls")
        usage = await records(engine, run, "usage")
    expected, since = [], 0
    for turn in range(1, last + 1):
        since += 1
        if worth_writing(since, turn):
            expected.append(turn)
            since = 0
    assert len(expected) > 2
    assert [s["turn"] for s in states] == [*expected, last + 1]
    assert [s["kind"] for s in states] == ["periodic"] * len(expected) + ["final"]
    assert ran == list(range(last))
    # Every request held the whole conversation, across states too.
    assert [len(given) for given in model.inputs] == [1 + 2 * n for n in range(last + 1)]
    assert [item["item"].get("call_id") for item in items[1:-1]] == [
        f"c{n}" for n in range(last) for _ in range(2)
    ]
    assert [item["type"] for item in items] == [
        "message",
        *["tool_call", "tool_call_output"] * last,
        "message_output",
    ]
    assert [one["call_id"] for one in calls] == [f"c{n}" for n in range(last)]
    assert {one["status"] for one in calls} == {"succeeded"}
    assert run.data["turn"] == last + 1
    assert len(usage) == run.data["usage"]["requests"] == last + 1
    assert run.data["usage"]["total_tokens"] == 15 * (last + 1)
    assert run.data["usage"]["input_tokens"] == 10 * (last + 1)


@pytest.mark.parametrize("handled", [False, True])
async def test_the_limit_of_turns_holds_across_states(database_url: str, handled: bool) -> None:
    @function_tool
    async def step() -> str:
        return "did"

    model = RuleModel(lambda items: [call("step", f"c{replies_in(items)}")])
    handlers: Any = {"max_turns": lambda _: "enough"} if handled else None
    agent = Agent(name="a", model=model, tools=[step])
    async with running(database_url, agent, error_handlers=handlers) as engine:
        run = await rested(engine, "a", max_turns=60)
        if handled:
            assert (run.status, run.output) == ("completed", "enough")
        else:
            assert error_of(run)["type"] == "max_turns"
            assert run.data["turn"] == 60
        states = await _states(engine, run)
        items = await items_of(engine, run)
    assert model.asked == 60
    assert [s["kind"] for s in states] == ["periodic", "final"][: 1 + handled]
    kinds = [item["type"] for item in items]
    assert kinds[:121] == ["message", *["tool_call", "tool_call_output"] * 60]


def test_when_a_state_is_worth_its_price() -> None:
    written, since = [], 0
    for turn in range(1, 101):
        since += 1
        if worth_writing(since, turn):
            written.append(turn)
            since = 0
    # None for a short run; the further on, the more often: turns cost more to replay.
    assert written == [43, 70, 91]
    # A state for another reason, a handoff say, counts as well.
    assert not worth_writing(20, 90)
    assert worth_writing(21, 90)
    # Never more often than a state is worth.
    assert not worth_writing(7, 5000)
    assert worth_writing(8, 5000)
