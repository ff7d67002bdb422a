"""Questions people ask: the views of ``perdure_read``, over runs an engine made."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest
from agents import Agent, function_tool, handoff
from psycopg.rows import dict_row

from perdure import Price, effect
from perdure.db import Connection, open_pool
from tests.docs_support import DOCS, blocks
from tests.engine_support import approve, call, rested, running, turns, waiting_for
from tests.factories import insert_run, insert_state, insert_stop, insert_tenant

_SHOWN = "01a20131-4b51-7c38-a7e1-62bd7cf3a0d5"
"""The id of a run in examples."""

# The example queries of the schema this one answers for, as they were written.
ACTIVE_RUNS = """
SELECT r.*, a.name as agent_name
FROM runs r
JOIN agents a ON r.agent_id = a.id
WHERE r.agent_id = 'agent-uuid-here'
  AND r.status IN ('running', 'interrupted')
ORDER BY r.started_at DESC;
"""
STATE = """
SELECT state_data
FROM run_states
WHERE run_id = 'run-uuid-here'
  AND is_active = true;
"""
USAGE = """
SELECT 
  a.name as agent_name,
  SUM(um.input_tokens) as total_input_tokens,
  SUM(um.output_tokens) as total_output_tokens,
  SUM(um.estimated_cost) as total_cost
FROM usage_metrics um
JOIN runs r ON um.run_id = r.id
JOIN agents a ON r.agent_id = a.id
WHERE r.started_at >= NOW() - INTERVAL '7 days'
GROUP BY a.id, a.name;
"""  # noqa: W291
OF_THE_DEPLOYMENT = {
    *("agents", "model_settings", "tools", "agent_tools", "handoff_configs", "agent_handoffs"),
    *("guardrails", "agent_guardrails", "tool_guardrails", "mcp_servers", "agent_mcp_servers"),
}
VIEWS = {
    *OF_THE_DEPLOYMENT,
    *("runs", "run_items", "run_states", "model_responses", "tool_calls", "interruptions"),
    *("guardrail_results", "tool_guardrail_results", "usage_metrics", "request_usage_entries"),
    *("sessions", "session_items"),
}


@effect("idempotent")
@function_tool(needs_approval=True)
def refund(cents: int) -> str:
    """Pay back."""
    return f"paid {cents}"


@effect("read")
@function_tool
def look(what: str) -> str:
    """Look, and fail at what is broken."""
    if what == "broken":
        raise RuntimeError("no")
    return "seen"


def _named(model: Any, name: str) -> Any:
    model.model = name
    return model


class Asker:
    """Asks the database, as somebody with a ``psql``."""

    def __init__(self, url: str) -> None:
        self._conn: psycopg.Connection[dict[str, Any]] = psycopg.connect(
            url, autocommit=True, row_factory=dict_row
        )
        self._conn.execute("SET search_path = perdure_read")

    def __call__(self, statement: str, *params: Any) -> list[dict[str, Any]]:
        cursor = self._conn.execute(statement.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._conn.close()


@pytest.fixture
async def conn(database_url: str) -> AsyncIterator[Connection]:
    async with await open_pool(database_url, 1, 2) as pool, pool.connection() as conn:
        yield conn


async def test_what_people_ask_of_real_runs(database_url: str, conn: Connection) -> None:
    expert = Agent(name="expert", model=_named(turns("Paid."), "nobody-s-model"))
    desk = Agent(
        name="desk",
        instructions="Be kind.",
        model=_named(
            turns(
                [call("look", "c1", what="x"), call("look", "c2", what="broken")],
                [call("refund", "c3", cents=7)],
                [call("transfer_to_expert", "c4")],
            ),
            "house-model",
        ),
        tools=[refund, look],
        handoffs=[handoff(expert)],
    )
    failing = Agent(name="failing", model=_named(turns([call("look", "c", what="x")]), "m"))
    async with running(database_url, desk, failing, prices={"house-*": Price("1", "4")}) as engine:
        waiting = await rested(engine, "desk", "go", user_id="alice")
        done = await approve(engine, await rested(engine, "desk", "go", user_id="bob"))
        assert done.status == "completed"
        failed = await rested(engine, "failing", "go", max_turns=1)
        assert failed.status == "failed"
        stop = waiting_for(waiting, name="refund")
    other_tenant = await insert_tenant(conn, "acme")
    theirs = await insert_run(conn, tenant_id=other_tenant, agent="desk", user_id="eve")
    uncertain = await insert_stop(conn, theirs, type="uncertain_effect")

    ask = Asker(database_url)
    [agent] = ask("SELECT * FROM agents WHERE name = 'desk'")
    assert agent["instructions"] == "Be kind."

    # Word for word, with ids in the places for ids.
    [active] = ask(ACTIVE_RUNS.replace("agent-uuid-here", str(agent["id"])))
    assert (str(active["id"]), active["agent_name"]) == (waiting.id, "desk")
    [state] = ask(STATE.replace("run-uuid-here", waiting.id))
    assert state["state_data"]["$schemaVersion"]
    assert state["state_data"]["current_agent"]["name"] == "desk"
    usage = {row["agent_name"]: row for row in ask(USAGE)}
    # Two requests of the one, four of the other, of which the expert's has no price.
    assert usage["desk"] == {
        "agent_name": "desk",
        "total_input_tokens": 60,
        "total_output_tokens": 30,
        "total_cost": Decimal("0.00015"),
    }
    assert usage["failing"]["total_cost"] is None

    # Every view has a tenant, but what is of the deployment; all of them can be read whole.
    columns = ask(
        "SELECT table_name AS name, array_agg(column_name::text) AS columns"
        " FROM information_schema.columns WHERE table_schema = 'perdure_read' GROUP BY 1"
    )
    assert {row["name"] for row in columns} >= VIEWS
    without = {row["name"] for row in columns if "tenant_id" not in row["columns"]}
    assert without == OF_THE_DEPLOYMENT
    for row in columns:
        ask(f"SELECT * FROM {row['name']}")
    tools = ask(
        "SELECT t.name FROM agent_tools x JOIN tools t ON t.id = x.tool_id"
        " WHERE x.agent_id = %s ORDER BY x.position",
        agent["id"],
    )
    assert [row["name"] for row in tools] == ["refund", "look"]
    [to] = ask(
        "SELECT a.name FROM agent_handoffs h JOIN agents a ON a.id = h.target_agent_id"
        " WHERE h.agent_id = %s",
        agent["id"],
    )
    assert to["name"] == "expert"
    states = ask(
        "SELECT state_type, kind, is_active FROM run_states WHERE run_id = %s ORDER BY seq",
        UUID(done.id),
    )
    assert [row["state_type"] for row in states] == ["interrupted", "checkpoint", "final"]
    assert [row["is_active"] for row in states] == [False, False, True]
    [item] = ask(
        "SELECT item_data FROM run_items WHERE run_id = %s ORDER BY seq DESC LIMIT 1",
        UUID(done.id),
    )
    assert item["item_data"]["role"] == "assistant"

    of_us = "tenant_id <> '" + str(other_tenant) + "'"
    [waits] = ask(f"SELECT * FROM waiting_for_people WHERE {of_us}")
    assert (str(waits["id"]), waits["user_id"]) == (stop.id, "alice")
    assert (waits["tool"], waits["waiting_seconds"] > 0) == ("refund", True)
    runs = {row["agent"]: row for row in ask(f"SELECT * FROM agent_runs WHERE {of_us}")}
    assert {name: runs["desk"][name] for name in ("runs", "active", "completed", "failed")} == {
        "runs": 2,
        "active": 1,
        "completed": 1,
        "failed": 0,
    }
    assert runs["desk"]["p50_seconds"] >= runs["desk"]["p50_working_seconds"] > 0
    assert (runs["failing"]["failure_rate"], runs["failing"]["failed"]) == (1, 1)
    assert ask("SELECT * FROM agent_runs_between('2020-01-01Z', '2021-01-01Z')") == []
    [people] = ask(f"SELECT * FROM people_waits WHERE {of_us}")
    counts = {name: people[name] for name in ("asked", "decided", "expired", "waiting")}
    assert counts == {"asked": 2, "decided": 1, "expired": 0, "waiting": 1}
    assert people["p95_seconds"] > 0
    assert people["longest_waiting_seconds"] >= waits["waiting_seconds"]
    times = {row["tool"]: row for row in ask(f"SELECT * FROM tool_times WHERE {of_us}")}
    assert (times["look"]["calls"], times["look"]["failed"]) == (4, 2)
    assert times["look"]["failure_rate"] == Decimal("0.5")
    assert times["refund"]["calls"] == 1
    assert times["refund"]["p95_seconds"] >= 0
    [doubt] = ask("SELECT * FROM uncertain_effects")
    assert doubt["tool_call_id"] == uncertain.call_id
    assert (doubt["tenant_id"], doubt["interruption_status"]) == (other_tenant, "pending")
    [spent] = ask(
        "SELECT user_id, sum(requests) AS n, sum(estimated_cost) AS usd FROM usage_by_day"
        " WHERE agent = 'desk' AND day >= current_date - 1 AND user_id = 'bob' GROUP BY user_id"
    )
    assert spent == {"user_id": "bob", "n": 3, "usd": Decimal("0.00009")}
    [old] = ask("SELECT count(*) AS n FROM runs WHERE id < id_at(now() - interval '1 hour')")
    assert old["n"] == 0

    # The page's own examples, in a session as it says; each finds something.
    examples = blocks("sql", pages=[DOCS / "questions.md"])
    assert examples[0].text == "SET search_path = perdure_read;\n"
    nothing = {"FROM agent_runs_between"}
    for block in examples[1:]:
        rows = ask(block.text.replace(_SHOWN, done.id).replace("'support'", "'desk'"))
        assert rows or any(one in block.text for one in nothing), str(block)
    ask.close()


async def test_an_analyst_reads_and_does_nothing_else(database_url: str, conn: Connection) -> None:
    run_id = await insert_run(conn)
    await insert_stop(conn, run_id)
    await insert_state(conn, run_id)
    role = f"analyst_{uuid.uuid4().hex[:8]}"
    [granting] = [
        block
        for block in blocks("sql", pages=[DOCS / "operations.md"])
        if "CREATE ROLE analyst" in block.text
    ]
    owner = Asker(database_url)
    owner(granting.text.replace("analyst", role))
    parts = urlsplit(database_url)
    there = f"{role}:secret@{parts.hostname}:{parts.port}"
    try:
        ask = Asker(parts._replace(netloc=there).geturl())
        for view in VIEWS:
            ask(f"SELECT * FROM {view}")
        assert len(ask("SELECT * FROM active_runs")) == 1
        [state] = ask("SELECT state_data FROM run_states")
        assert state["state_data"]
        assert len(ask("SELECT * FROM agent_runs")) == 1
        assert len(ask("SELECT * FROM people_waits_between(now() - interval '1 day', now())")) == 1
        ask("SET default_transaction_read_only = off")
        for refused in (
            "SELECT * FROM perdure.runs",
            "UPDATE perdure_read.sessions SET title = 'x'",
            "DELETE FROM perdure_read.tool_calls",
            "CREATE VIEW perdure_read.mine AS SELECT 1",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ask(refused)
        ask.close()
    finally:
        owner(f"DROP OWNED BY {role}; DROP ROLE {role}")
        owner.close()
