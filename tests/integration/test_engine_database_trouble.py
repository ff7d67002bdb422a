"""Trouble of the database's own is waited out: no run fails by it, and no model is told of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from agents import Agent, function_tool
from psycopg import AsyncConnection

from perdure import effect, tool_call
from perdure.db import connect
from perdure.engine import Engine, Run
from perdure.ledger import writer
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    call,
    calls_of,
    eventually,
    query,
    rested,
    running,
    turns,
)

# The first two rows that come to a table fail as the server itself would fail them.
_FAIL_TWICE = """
CREATE SEQUENCE fails;
CREATE FUNCTION fail_twice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('fails') <= 2 THEN
        RAISE EXCEPTION 'injected' USING ERRCODE = TG_ARGV[0];
    END IF;
    RETURN NEW;
END $$;
CREATE TABLE bookings (run_id text)"""

_STATES = {
    "disk full": "53100",
    "serialization failure": "40001",
    "deadlock": "40P01",
    "read-only": "25006",
    "statement time-out": "57014",
    "lock time-out": "55P03",
}
_PLACES = {
    "claim": "UPDATE ON dbos.workflow_status FOR EACH ROW WHEN (NEW.status = 'PENDING')",
    "begin": "UPDATE ON perdure.segments FOR EACH ROW",
    "reply": "INSERT ON perdure.model_responses FOR EACH ROW",
    "outcome": "UPDATE ON perdure.tool_calls FOR EACH ROW",
    "state at a handoff or the end": "INSERT ON perdure.run_states FOR EACH ROW",
    "items at the end": "INSERT ON perdure.run_items FOR EACH ROW",
    "status": "UPDATE ON perdure.runs FOR EACH ROW",
    "success": "UPDATE ON dbos.workflow_status FOR EACH ROW WHEN (NEW.status = 'SUCCESS')",
}
_ALL_RECORDED = """
SELECT true AS so WHERE NOT EXISTS (SELECT FROM dbos.workflow_status WHERE status <> 'SUCCESS')"""
_SDK_SAYS = "An error occurred while running the tool"
# Each place with two kinds of trouble, each kind at two places.
_CASES = [
    (place, state)
    for n, place in enumerate(_PLACES)
    for state in (list(_STATES)[n % 6], list(_STATES)[(n + 3) % 6])
]


class _Desk:
    """Two agents with a tool of each kind, and what they did."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.booked: list[str] = []

        @function_tool
        async def pay() -> str:
            self.paid.append(tool_call().run_id)
            return "paid"

        @effect("transactional")
        @function_tool
        async def book() -> str:
            self.booked.append(tool_call().run_id)
            await tool_call().connection.execute(
                "INSERT INTO bookings VALUES (%s)", (tool_call().run_id,)
            )
            return "booked"

        self.front_model = turns([call("pay", "c1")], [call("transfer_to_back", "h1")])
        self.back_model = turns([], [], [call("book", "c2")], "done")
        back = Agent(name="back", model=self.back_model, tools=[book])
        self.agent = Agent(name="front", model=self.front_model, tools=[pay], handoffs=[back])

    def models_were_told_nothing(self) -> None:
        """Check that no request to a model spoke of an error."""
        for model in (self.front_model, self.back_model):
            assert _SDK_SAYS not in json.dumps(model.inputs, default=str)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[tuple[Engine, _Desk]]:
    made = _Desk()
    async with running(database_url, made.agent) as engine:
        async with await AsyncConnection.connect(database_url, autocommit=True) as conn:
            await conn.execute(_FAIL_TWICE.encode())
        yield engine, made


async def _completed_once(engine: Engine, desk: _Desk, run: Run) -> None:
    assert (run.status, run.output, run.error) == ("completed", "done", None)
    assert desk.paid.count(run.id) == 1
    assert [row["run_id"] for row in await query(engine, "TABLE bookings")].count(run.id) == 1
    calls = await calls_of(engine, run)
    assert [calls[one]["status"] for one in ("c1", "c2")] == ["succeeded"] * 2
    assert run.data["usage"]["requests"] == 4


async def test_whatever_statement_it_meets(desk: tuple[Engine, _Desk]) -> None:
    engine, made = desk
    for place, state in _CASES:
        trigger = f"EXECUTE FUNCTION fail_twice('{_STATES[state]}')"
        await query(engine, f"CREATE TRIGGER trouble BEFORE {_PLACES[place]} {trigger}")
        run = await rested(engine, "front")
        # What DBOS records comes after the run's own end.
        await eventually(lambda: query(engine, _ALL_RECORDED))
        [failed] = await query(engine, "SELECT last_value FROM fails")
        await query(engine, f"DROP TRIGGER trouble ON {_PLACES[place].split()[2]}")
        assert failed["last_value"] > 2, f"{place} met no {state}"
        await query(engine, "ALTER SEQUENCE fails RESTART")
        await _completed_once(engine, made, run)
    assert await query(engine, "TABLE perdure.repairs") == []
    made.models_were_told_nothing()


@pytest.mark.parametrize("limit", ["statement_timeout", "lock_timeout"])
async def test_a_lock_that_outlasts_the_limit_of_the_session(
    database_url: str, caplog: pytest.LogCaptureFixture, limit: str
) -> None:
    made = _Desk()
    limited = f"{database_url}?options={quote(f'-c {limit}=100')}"
    async with running(limited, made.agent) as engine:
        await query(engine, "CREATE TABLE bookings (run_id text)")
        for table in ("model_responses", "tool_calls", "run_states"):
            caplog.clear()
            async with await AsyncConnection.connect(database_url) as conn:
                await conn.execute(f"LOCK TABLE perdure.{table} IN SHARE MODE".encode())
                run = await engine.start("front", "hi")
                what = f"due to {limit.replace('_', ' ')}"
                await eventually(partial(_said, caplog, what, times=2))
            await run.wait(SECONDS)
            await _completed_once(engine, made, run)
    made.models_were_told_nothing()


async def _said(caplog: pytest.LogCaptureFixture, words: str, *, times: int) -> bool:
    await asyncio.sleep(0)
    return sum(words in record.getMessage() for record in caplog.records) >= times


def _booking(engine_sql: list[str]) -> tuple[Agent[Any], RuleModel, list[int]]:
    """An agent whose tool runs these statements, the n-th of them in its n-th attempt."""
    attempts: list[int] = []

    @effect("transactional")
    @function_tool
    async def book() -> str:
        attempts.append(tool_call().attempt)
        conn = tool_call().connection
        await conn.execute("INSERT INTO bookings VALUES ('tried')")
        statement = engine_sql[min(len(attempts), len(engine_sql)) - 1]
        await conn.execute(statement.encode())
        return "booked"

    model = turns([call("book", "c1")], "done")
    return Agent(name="a", model=model, tools=[book]), model, attempts


def _raise(state: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '{state}'; END $$"


@pytest.mark.parametrize("state", ["40001", "40P01", "25006", "53200"])
async def test_a_transaction_of_a_tool_is_run_again(database_url: str, state: str) -> None:
    agent, model, attempts = _booking([_raise(state), "SELECT 1"])
    async with running(database_url, agent) as engine:
        await query(engine, "CREATE TABLE bookings (run_id text)")
        run = await rested(engine, "a")
        assert (run.status, run.output) == ("completed", "done")
        assert attempts == [1, 2]
        assert await query(engine, "TABLE bookings") == [{"run_id": "tried"}]
    assert _SDK_SAYS not in json.dumps(model.inputs, default=str)


async def test_what_a_process_knows_is_written_before_it_begins_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The ledger's connection comes back long after that of the segment that begins again.
    monkeypatch.setattr(writer, "_BACKOFF_SECONDS", (1.5,))
    gate, sent = Gate(), []

    @function_tool
    async def send() -> str:
        await gate.stop()
        sent.append(tool_call().attempt)
        return "sent"

    @effect("transactional")
    @function_tool
    async def book() -> str:
        if tool_call().attempt == 1:
            await gate.stop()
        await tool_call().connection.execute("SELECT 1")
        return "booked"

    model = turns([call("send", "s"), call("book", "b")], "done")
    agent: Agent[Any] = Agent(name="d", model=model, tools=[send, book])
    async with running(database_url, agent) as engine:
        run = await engine.start("d", "go")
        await gate.reached()
        async with await connect(database_url) as conn:
            await eventually(partial(_both_wait, engine))
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name ~ '^perdure(-ledger)? ' AND datname = current_database()"
            )
        gate.open()
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
    # Nobody was asked whether it had been sent.
    assert sent == [1]


async def _both_wait(engine: Engine) -> bool:
    begun = "SELECT count(*) AS n FROM perdure.tool_calls WHERE status = 'executing'"
    return await query(engine, begun) == [{"n": 2}]


async def test_a_limit_a_tool_may_have_set_itself_is_its_own(database_url: str) -> None:
    agent, model, attempts = _booking(["SET LOCAL statement_timeout = 20; SELECT pg_sleep(10)"])
    async with running(database_url, agent) as engine:
        await query(engine, "CREATE TABLE bookings (run_id text)")
        run = await rested(engine, "a")
        assert (run.status, attempts) == ("completed", [1])
        assert await query(engine, "TABLE bookings") == []
    assert _SDK_SAYS in json.dumps(model.inputs, default=str)


async def test_a_transaction_of_a_tool_that_was_idle_too_long(database_url: str) -> None:
    attempts: list[int] = []
    sessions: list[int] = []

    @effect("transactional")
    @function_tool
    async def book() -> str:
        attempts.append(tool_call().attempt)
        conn = tool_call().connection
        await conn.execute("INSERT INTO bookings VALUES ('tried')")
        if len(attempts) == 1:
            # It thinks for longer than the server lets it.
            sessions.append(conn.info.backend_pid)
            await eventually(gone)
        await conn.execute("SELECT 1")
        return "booked"

    async def gone() -> bool:
        return not await query(
            engine, "SELECT 1 AS x FROM pg_stat_activity WHERE pid = %s", sessions[0]
        )

    model = turns([call("book", "c1")], "done")
    options = quote("-c idle_in_transaction_session_timeout=100")
    agent = Agent(name="a", model=model, tools=[book])
    async with running(f"{database_url}?options={options}", agent) as engine:
        await query(engine, "CREATE TABLE bookings (run_id text)")
        run = await rested(engine, "a")
        assert (run.status, run.output) == ("completed", "done")
        assert attempts == [1, 2]
        assert await query(engine, "TABLE bookings") == [{"run_id": "tried"}]
    assert _SDK_SAYS not in json.dumps(model.inputs, default=str)


@asynccontextmanager
async def _read_only(database_url: str) -> AsyncIterator[None]:
    """Make every session of the database end, and each new one read-only, inside the block."""
    name = database_url.rpartition("/")[2]
    async with await AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        yield
        await conn.execute("SET default_transaction_read_only = off")
        await conn.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())


async def test_a_primary_that_became_read_only(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a failover: the sessions end, and who connects anew meets a standby at first."""
    made = _Desk()
    seen = asyncio.Event()
    go_on = asyncio.Event()

    @function_tool
    async def pay() -> str:
        made.paid.append(tool_call().run_id)
        seen.set()
        await go_on.wait()
        return "paid"

    made.agent.tools = [pay]
    async with running(database_url, made.agent) as engine:
        await query(engine, "CREATE TABLE bookings (run_id text)")
        run = await engine.start("front", "hi")
        await seen.wait()
        async with _read_only(database_url):
            # What it came to becomes known while nobody can write it down.
            go_on.set()
            waiting = asyncio.create_task(run.wait(SECONDS))
            await eventually(lambda: _said(caplog, "session is read-only", times=4))
        await waiting
        await _completed_once(engine, made, run)
