"""Runs in sessions: in order, each given what was said before it, each adding to it once."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from agents.testing import assistant_message

from perdure import PostgresSession, effect
from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.engine import Engine, Run
from perdure.errors import ConflictError, InvalidStateError, NotFoundError
from perdure.runs.resume import retry
from perdure.runs.session_erasing import erase_conversation
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    call,
    eventually,
    items_of,
    other_worker,
    query,
    running,
)


def _said(items: list[Any]) -> list[Any]:
    """Who said what, in an input."""
    found = []
    for item in items:
        content = item.get("content")
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content)
        found.append((item.get("role") or item.get("type"), content))
    return found


class Chat:
    """An agent that says how many messages of users it has read; it can be held up."""

    def __init__(self) -> None:
        self.gates: dict[str, Gate] = {}
        self.at_once = self.most = 0
        self.model = RuleModel(self._answer)
        self.agent = Agent(name="chat", model=self.model, tools=[look])

    async def _reply(self, items: list[Any]) -> list[Any]:
        asked = [content for role, content in _said(items) if role == "user"]
        last = asked[-1]
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if last in self.gates:
                await self.gates[last].stop()
        finally:
            self.at_once -= 1
        if last == "look" and items[-1].get("type") != "function_call_output":
            return [call("look", f"c{len(items)}")]
        if last == "fail":
            raise ValueError("no")
        return [assistant_message(f"read {len(asked)}")]

    def _answer(self, items: list[Any]) -> Any:
        return self._reply(items)


@effect("idempotent")
@function_tool
async def look() -> str:
    return "seen"


async def _items(engine: Engine, run: Run) -> list[Any]:
    session = PostgresSession("c", user_id="alice", engine=engine)
    del run
    return _said(await session.get_items())


async def _start(engine: Engine, text: str, **options: Any) -> Run:
    return await engine.start("chat", text, session_key="c", user_id="alice", **options)


async def _resume(engine: Engine, run: Run) -> None:
    async with engine.pool.connection() as conn:
        await retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))


async def test_each_run_is_given_what_was_said_and_adds_to_it(database_url: str) -> None:
    chat = Chat()
    async with running(database_url, chat.agent) as engine:
        first = await (await _start(engine, "hello")).wait(SECONDS)
        second = await (await _start(engine, "look")).wait(SECONDS)
        assert (first.output, second.output) == ("read 1", "read 2")
        assert first.data["session_id"] == second.data["session_id"]
        assert _said(chat.model.inputs[1]) == [
            ("user", "hello"),
            ("assistant", "read 1"),
            ("user", "look"),
        ]
        assert await _items(engine, second) == [
            ("user", "hello"),
            ("assistant", "read 1"),
            ("user", "look"),
            ("function_call", None),
            ("function_call_output", None),
            ("assistant", "read 2"),
        ]
        rows = await query(
            engine,
            "SELECT run_id::text, agent, token_count FROM perdure.session_items ORDER BY seq",
        )
        # What the model wrote costs tokens; what others said costs them with every reply.
        assert [row["token_count"] for row in rows] == [None, 5, None, 5, None, 5]
        assert [item["token_count"] for item in await items_of(engine, second)] == [
            None,
            5,
            None,
            5,
        ]
        assert [row["run_id"] for row in rows] == [first.id] * 2 + [second.id] * 4
        # Another user's conversation of the same key is another one.
        other = await engine.start("chat", "hello", session_key="c", user_id="bob")
        assert (await other.wait(SECONDS)).output == "read 1"
        with pytest.raises(NotFoundError):
            await engine.start("chat", "hi", session_id=first.data["session_id"], user_id="bob")


async def test_runs_of_a_session_are_in_order_and_never_two_at_once(database_url: str) -> None:
    chat = Chat()
    gate = chat.gates["0"] = Gate()
    async with running(database_url, chat.agent) as engine:
        runs = [await _start(engine, str(n)) for n in range(5)]
        await gate.reached()
        # One that waits may be cancelled; who comes after it is not held up.
        await engine.cancel(runs[3].id)
        gate.open()
        outputs = [(await run.wait(SECONDS)).output for run in runs]
        assert outputs == ["read 1", "read 2", "read 3", None, "read 4"]
        assert chat.most == 1
        rows = await query(engine, "SELECT active_run_id, waiting_runs FROM perdure.sessions")
        assert rows == [{"active_run_id": None, "waiting_runs": 0}]


async def test_who_comes_while_a_run_is_under_way_waits_is_refused_or_steers(
    database_url: str,
) -> None:
    chat = Chat()
    for text in ("slow", "slower"):
        chat.gates[text] = Gate()
    async with running(database_url, chat.agent) as engine:
        slow = await _start(engine, "slow")
        await chat.gates["slow"].reached()
        with pytest.raises(InvalidStateError, match=slow.id):
            await _start(engine, "refused", when_busy="reject")
        steered = await _start(engine, "and this", when_busy="steer")
        assert steered.id == slow.id
        chat.gates["slow"].open()
        assert (await slow.wait(SECONDS)).output == "read 2"
        slower = await _start(engine, "slower")
        await chat.gates["slower"].reached()
        waiting = await _start(engine, "waiting")
        instead = await _start(engine, "instead", when_busy="cancel_previous")
        # What was asked of a run that had begun stays in the conversation, what it was about to
        # say does not; one that had not begun leaves nothing.
        assert (await instead.wait(SECONDS)).output == "read 4"
        asked = [said for role, said in await _items(engine, instead) if role == "user"]
        assert asked == ["slow", "and this", "slower", "instead"]
        assert (await slower.refresh()).status == "cancelled"
        assert (await waiting.refresh()).status == "cancelled"
        # With nobody under way all ways are alike.
        for way in ("reject", "steer", "cancel_previous"):
            run = await _start(engine, "hi", when_busy=way)
            assert (await run.wait(SECONDS)).status == "completed"


async def test_a_failed_run_takes_its_turn_again_when_it_is_free(database_url: str) -> None:
    chat = Chat()
    gate = chat.gates["slow"] = Gate()
    async with running(database_url, chat.agent) as engine:
        failed = await (await _start(engine, "fail")).wait(SECONDS)
        assert failed.status == "failed"
        slow = await _start(engine, "slow")
        await gate.reached()
        with pytest.raises(InvalidStateError, match=slow.id):
            await _resume(engine, failed)
        gate.open()
        await slow.wait(SECONDS)
        await _resume(engine, failed)
        assert (await failed.wait(SECONDS)).status == "failed"
        assert (await (await _start(engine, "hi")).wait(SECONDS)).status == "completed"


async def test_an_execution_that_begins_again_is_given_the_same_and_adds_once(
    database_url: str,
) -> None:
    chat = Chat()
    gate = chat.gates["look"] = Gate()
    async with running(database_url, chat.agent) as engine:
        first = await (await _start(engine, "hello")).wait(SECONDS)
        run = await _start(engine, "look")
        await gate.reached()
        # Meanwhile somebody takes back what was said, and says something else.
        session = PostgresSession("c", user_id="alice", engine=engine)
        await session.clear_session()
        await session.add_items([{"role": "user", "content": "later"}])
        assert first.status == "completed"
        async with other_worker(engine, database_url) as other:
            taking = asyncio.create_task(other.run(UUID(run.id), 1))
            await eventually(lambda: _asked(chat, 3))
            gate.open()
            assert await taking == "completed"
        # What was taken back goes when nobody reads it any more.
        hidden = "SELECT id FROM perdure.session_items WHERE removed_version IS NOT NULL"
        assert await query(engine, hidden) == []
        assert _said(chat.model.inputs[1]) == _said(chat.model.inputs[2])
        assert _said(chat.model.inputs[2])[0] == ("user", "hello")
        assert await _items(engine, run) == [
            ("user", "later"),
            ("user", "look"),
            ("function_call", None),
            ("function_call_output", None),
            ("assistant", "read 2"),
        ]


async def _asked(chat: Chat, times: int) -> bool:
    return chat.model.asked >= times


async def test_what_is_erased_is_gone_with_its_runs_and_not_under_them(database_url: str) -> None:
    chat = Chat()
    gate = chat.gates["slow"] = Gate()
    async with running(database_url, chat.agent) as engine, engine.pool.connection() as conn:
        await (await _start(engine, "hello")).wait(SECONDS)
        run = await _start(engine, "slow")
        await gate.reached()
        session_id = (await run.refresh()).data["session_id"]
        branch = await PostgresSession.existing(session_id, engine=engine).branch()
        whose: Any = {"tenant_id": DEFAULT_TENANT, "session_id": UUID(session_id)}
        by = program_principal("alice")
        erase = partial(erase_conversation, conn, **whose, by=by, cascade=True)
        counted = (
            "SELECT (SELECT count(*) FROM perdure.runs)::int AS runs,"
            " (SELECT count(*) FROM perdure.sessions)::int AS sessions,"
            " (SELECT count(*) FROM perdure.run_events)::int AS events"
        )
        with pytest.raises(ConflictError, match=f"Run {run.id} .* is running"):
            await erase()
        with pytest.raises(NotFoundError):
            await erase(user_id="bob")
        # So it is while one of a branch is, but not after their end; another's stays.
        gate.open()
        await run.wait(SECONDS)
        del chat.gates["slow"]
        below = await engine.start("chat", "hi", session_id=await branch.id(), user_id="alice")
        # Branched in the middle of a run, it reads what had been stored.
        assert (await below.wait(SECONDS)).output == "read 2"
        other = await engine.start("chat", "hi", session_key="d", user_id="alice")
        await other.wait(SECONDS)
        with pytest.raises(ConflictError, match="1 branch"):
            await erase(cascade=False)
        [before] = await query(engine, counted)
        assert (before["runs"], before["sessions"]) == (4, 3)
        await erase()
        [after] = await query(engine, counted)
        assert (after["runs"], after["sessions"]) == (1, 1)
        assert {row["run_id"] for row in await query(engine, _OF_RUNS)} == {UUID(other.id)}
        [audit] = await query(
            engine,
            "SELECT p.payload -> 'details' AS details FROM perdure.audit_log l"
            " JOIN perdure.audit_payloads p USING (id)"
            " WHERE l.kind = 'session.erased' AND p.part = 'details'",
        )
        assert {**audit["details"], "items": 0} == {"sessions": 2, "items": 0, "runs": 3}
        with pytest.raises(NotFoundError):
            await engine.start("chat", "hi", session_id=session_id)


_OF_RUNS = (
    "SELECT run_id FROM perdure.run_events UNION SELECT run_id FROM perdure.run_items"
    " UNION SELECT run_id FROM perdure.session_items"
)


async def test_a_run_that_starts_while_its_session_is_erased_finds_none(
    database_url: str,
) -> None:
    chat = Chat()
    async with running(database_url, chat.agent) as engine:
        session = PostgresSession("c", user_id="alice", engine=engine)
        await session.add_items([{"role": "user", "content": "hello"}])
        [row] = await query(engine, "SELECT id FROM perdure.sessions")
        async with engine.pool.connection() as conn:
            async with conn.transaction():
                await erase_conversation(
                    conn,
                    tenant_id=DEFAULT_TENANT,
                    session_id=row["id"],
                    by=program_principal("alice"),
                )
                starting = asyncio.create_task(engine.start("chat", "hi", session_id=row["id"]))
                await eventually(partial(_waits_for_a_lock, engine))
            with pytest.raises(NotFoundError, match=str(row["id"])):
                await starting
        assert await query(engine, "SELECT id FROM perdure.runs") == []


async def test_a_session_is_not_erased_under_a_run_that_starts_just_then(
    database_url: str,
) -> None:
    chat = Chat()
    async with running(database_url, chat.agent) as engine, engine.pool.connection() as conn:
        await PostgresSession("c", user_id="alice", engine=engine).clear_session()
        [row] = await query(engine, "SELECT id FROM perdure.sessions")
        async with engine.pool.connection() as starting:
            async with starting.transaction():
                run = await engine.start("chat", "hi", session_id=row["id"], connection=starting)
                erase = erase_conversation(
                    conn,
                    tenant_id=DEFAULT_TENANT,
                    session_id=row["id"],
                    by=program_principal("alice"),
                )
                erasing = asyncio.create_task(erase)
                await eventually(partial(_waits_for_a_lock, engine))
            with pytest.raises(ConflictError, match="was started in session"):
                await erasing
        assert (await run.wait(SECONDS)).output == "read 1"


async def _waits_for_a_lock(engine: Engine) -> bool:
    waiting = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return bool(await query(engine, waiting))


async def test_a_sessions_system_prompt_is_given_as_it_was(database_url: str) -> None:
    chat = Chat()
    async with running(database_url, chat.agent) as engine:
        run = await (await _start(engine, "hello")).wait(SECONDS)
        await query(engine, "UPDATE perdure.sessions SET system_prompt = 'Be brief.'")
        await (await _start(engine, "again")).wait(SECONDS)
        assert _said(chat.model.inputs[-1])[0] == ("system", "Be brief.")
        # It is no item of the conversation.
        assert [role for role, _ in await _items(engine, run)] == ["user", "assistant"] * 2
