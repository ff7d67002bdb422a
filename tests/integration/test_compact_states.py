"""What a run's states and items repeat is stored once, and read whole everywhere."""

from __future__ import annotations

import json
from random import Random
from string import ascii_lowercase
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, RunState, function_tool
from agents.testing import assistant_message

from perdure import jsonsafe
from perdure.engine import Engine, Run
from perdure.runs.states import read_state, write_state
from tests.engine_support import (
    RuleModel,
    approve,
    call,
    items_of,
    outputs_in,
    query,
    replies_in,
    rested,
    running,
    turns,
)

SAID = 'found "\ue000:0" \x00 and \ud83d!, é 😀 ' + "a rather long text of a tool " * 20


@pytest.fixture
def serialized(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the SDK made of each state that was stored, in order."""
    states: list[Any] = []
    to_json = RunState.to_json

    def seen(self: Any, *args: Any, **rest: Any) -> Any:
        data = to_json(self, *args, **rest)
        states.append(json.loads(json.dumps(data)))
        return data

    monkeypatch.setattr(RunState, "to_json", seen)
    return states


async def _wholes(engine: Engine, run: Run) -> list[Any]:
    """Every state as SQL reads it, which is as Python does."""
    rows = await query(
        engine,
        "SELECT seq, run_id, perdure.whole_state(run_id, seq)::text AS state"
        " FROM perdure.run_states ORDER BY seq",
    )
    wholes = [jsonsafe.loads(row["state"]) for row in rows]
    async with engine.pool.connection() as conn:
        for row, whole in zip(rows, wholes, strict=True):
            read = await read_state(conn, run_id=row["run_id"], seq=row["seq"])
            assert read.data == whole
    return wholes


async def test_states_of_every_kind_are_what_the_sdk_serialized(
    database_url: str, serialized: list[Any]
) -> None:
    @function_tool(needs_approval=True)
    async def pay(cents: int) -> str:
        return f"paid {cents}: {SAID}"

    @function_tool
    async def look_up(what: str) -> Any:
        return {"of": what, "said": [SAID, 1.5, None]} if what == "json" else f"{what}: {SAID}"

    inner = Agent(name="inner", model=turns([call("pay", "i1", cents=1)], SAID), tools=[pay])
    back_model = turns(
        [],
        [call("look_up", "c1", what="text"), call("look_up", "c2", what="json")],
        [call("pay", "c3", cents=3), call("ask", "c4", input="do")],
        [call("pay", "c5", cents=5)],
        "done",
    )
    ask = inner.as_tool("ask", "Ask.")
    back = Agent(name="back", model=back_model, tools=[pay, look_up, ask])
    front = Agent(name="front", model=turns([call("transfer_to_back", "h1")]), handoffs=[back])
    async with running(database_url, front) as engine:
        run = await rested(engine, "front", SAID)
        while run.status == "interrupted":
            run = await approve(engine, run)
        assert (run.error, run.output) == (None, "done")
        wholes = await _wholes(engine, run)
        items = await items_of(engine, run)
        stored = await query(
            engine,
            "SELECT coalesce(output_of IS NOT NULL, false) AS left_out, item ? 'output' AS has"
            " FROM perdure.run_items WHERE type = 'tool_call_output' ORDER BY seq",
        )
        [state] = await query(engine, "SELECT * FROM perdure.run_states WHERE is_active")
        async with engine.pool.connection() as conn:
            # In another run it stands by itself: nothing of it is in that one's calls.
            other = await engine.start("front", "hi", delay_seconds=3600)
            read = await read_state(conn, run_id=UUID(run.id), seq=state["seq"])
            read.data["max_turns"] = 77
            await write_state(
                conn, run_id=UUID(other.id), seq=1, kind="periodic", state=read.of_a_new_run()
            )
            again = await read_state(conn, run_id=UUID(other.id), seq=1)
    assert len(wholes) >= 4
    assert wholes == [one for one in serialized if one in wholes]
    assert wholes[-1] == serialized[-1]
    assert again.data == {**wholes[-1], "max_turns": 77}
    # What the API shows of items is what the model was given.
    outputs = {
        item["item"]["call_id"]: item for item in items if item["type"] == "tool_call_output"
    }
    given = outputs_in(back_model.inputs[-1])
    assert {id: item["item"]["output"] for id, item in outputs.items()} == {
        id: output for id, output in given.items() if id != "h1"
    }
    assert outputs["c1"]["text"] == outputs["c1"]["item"]["output"] == f"text: {SAID}"
    assert sum(row["left_out"] for row in stored) >= 3
    assert all(row["left_out"] != row["has"] for row in stored)


_BYTES = """
SELECT (SELECT sum(pg_column_size(body) + pg_column_size(parts))
          FROM perdure.run_states s WHERE s.run_id = r.id) AS states,
       (SELECT sum(pg_column_size(item) + coalesce(pg_column_size(text), 0))
          FROM perdure.run_items i WHERE i.run_id = r.id) AS items
  FROM perdure.runs r WHERE r.id = %s"""


@pytest.mark.parametrize("gated", [False, True])
async def test_a_turn_of_a_long_run_leaves_as_much_as_one_of_a_short_run(
    database_url: str, gated: bool
) -> None:
    @function_tool(needs_approval=gated)
    async def step(n: int) -> str:
        # Other letters in each turn, which do not compress.
        return "".join(Random(n).choices(ascii_lowercase, k=1000))  # noqa: S311

    def rule(items: list[Any]) -> Any:
        n = replies_in(items)
        if n == int(items[0]["content"]):
            return [assistant_message("done")]
        return [call("step", f"c{n}", n=n)]

    left = []
    agent = Agent(name="a", model=RuleModel(rule), tools=[step])
    async with running(database_url, agent) as engine:
        for last in (10, 30) if gated else (20, 100):
            run = await rested(engine, "a", str(last), max_turns=last + 1)
            while run.status == "interrupted":
                run = await approve(engine, run)
            assert run.output == "done"
            [sizes] = await query(engine, _BYTES, run.id)
            left.append(sum(sizes.values()) / last)
    short, long = left
    assert long <= 1.3 * short
    # Less than the text itself, where no state is written on the way.
    assert long < (3000 if gated else 1000)
