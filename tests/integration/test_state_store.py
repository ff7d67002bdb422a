"""States of a program's own ``Runner.run``: one active by key, whoever saves and dies."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from agents import Agent, RunContextWrapper, Runner, RunState, function_tool
from pydantic import BaseModel

from perdure import RunStateStore
from perdure.db import Connection, connect, open_pool
from perdure.errors import ConfigurationError, InvalidRequestError, MigrationError
from perdure.pool import Pool
from tests.engine_support import call, turns


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url, 1, 6) as pool:
        yield pool


class Refunds:
    """An agent that refunds when it may, and what it refunded for whom."""

    def __init__(self, name: str = "refunds", *, text: str = "hi \0 \ud800") -> None:
        self.paid: list[Any] = []

        @function_tool(needs_approval=True)
        async def pay(context: RunContextWrapper[Any], n: int) -> str:
            self.paid.append(context.context)
            return text

        self.agent = Agent(name=name, model=turns([call("pay", "c1", n=1)], "done"), tools=[pay])

    async def parked(self, context: Any = None) -> RunState[Any, Any]:
        """The state of a run that waits for its approval."""
        return (await Runner.run(self.agent, "Refund order 42", context=context)).to_state()


async def resumed(store: RunStateStore, agent: Agent[Any], **given: Any) -> Any:
    """Load, approve and run on; returns the final output."""
    state = await store.load(**given)
    assert state is not None
    for one in state.get_interruptions():
        state.approve(one)
    result = await Runner.run(agent, state)
    await store.save(result.to_state())
    return result.final_output


async def test_the_example(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    doc = inspect.getdoc(RunStateStore) or ""
    example = doc.partition("::\n")[2].partition("\nOne state")[0]
    refunds = Refunds()
    source = f"async def program():\n{textwrap.indent(textwrap.dedent(example), '    ')}"
    source += "    await store.aclose()\n    return store, result"
    names: dict[str, Any] = {
        "agent": refunds.agent,
        "Runner": Runner,
        "RunStateStore": RunStateStore,
    }
    exec(source, names)  # noqa: S102 - our own documentation
    store, result = await names["program"]()
    assert (result.final_output, refunds.paid) == ("done", [None])
    async with store:
        last = await store.latest()
        assert (last.state_type, last.agent, last.turn) == ("final", "refunds", 2)
        assert await store.load() is None
        assert (await store.load(final=True)).to_json()["current_step"] is None
        assert (await store.clear(), await store.latest()) == (2, None)


async def test_another_process_goes_on_with_it_once(pool: Pool) -> None:
    before, after = Refunds(), Refunds()
    mine = RunStateStore(before.agent, "k", user_id="alice", pool=pool)
    kept = await mine.save(await before.parked({"who": "ada"}))
    assert (kept.state_type, kept.current_agent, kept.turn) == ("interrupted", "refunds", 1)
    assert kept.resumed_at is None
    # Another one's, and nobody's, are other keys.
    for other in ("bob", None):
        theirs = RunStateStore(after.agent, "k", user_id=other, pool=pool)
        assert (await theirs.load(), await theirs.mark_resumed()) == (None, False)
    stores = [RunStateStore(after.agent, "k", user_id="alice", pool=pool) for _ in range(5)]
    await asyncio.gather(*(store.load() for store in stores))
    assert sorted(await asyncio.gather(*(one.mark_resumed() for one in stores))) == [False] * 4 + [
        True
    ]
    assert await resumed(stores[0], after.agent) == "done"
    assert (before.paid, after.paid) == ([], [{"who": "ada"}])
    # What was loaded before is not the active one any more.
    assert not await stores[1].mark_resumed()
    known = await mine.latest()
    assert known is not None
    assert (known.state_type, known.resumed_at) == ("final", None)
    over = await mine.load(final=True)
    assert over is not None
    outputs = [item["raw_item"].get("output") for item in over.to_json()["generated_items"]]
    assert "hi \0 \ud800" in outputs


class Customer(BaseModel):
    name: str


class Plain:
    """A context no store can know how to write."""


async def test_contexts_and_programs_that_changed(pool: Pool) -> None:
    typed = RunStateStore(Refunds().agent, "typed", pool=pool, context_type=Customer)
    await typed.save(await Refunds().parked(Customer(name="ada")))
    state = await typed.load()
    assert state is not None
    assert state._context is not None
    assert state._context.context == Customer(name="ada")

    class Other(BaseModel):
        since: int

    changed = RunStateStore(Refunds().agent, "typed", pool=pool, context_type=Other)
    with pytest.raises(ConfigurationError, match="does not fit Other"):
        await changed.load()
    plain = RunStateStore(Refunds().agent, "plain", pool=pool)
    await plain.save(await Refunds().parked(Plain()))
    with pytest.raises(ConfigurationError, match=r"load\(context=…\)"):
        await plain.load()
    given = Plain()
    state = await plain.load(context=given)
    assert state is not None
    assert state._context is not None
    assert state._context.context is given
    renamed = RunStateStore(Refunds("returns").agent, "plain", pool=pool)
    with pytest.raises(ConfigurationError, match="names 'refunds'"):
        await renamed.load(context=given)
    toolless = RunStateStore(Agent(name="refunds"), "plain", pool=pool)
    with pytest.raises(ConfigurationError, match="waits for calls of 'pay'"):
        await toolless.load(context=given)


async def test_of_many_at_once_one_is_active_and_few_are_kept(
    pool: Pool, database_url: str
) -> None:
    refunds = Refunds()
    state = await refunds.parked()
    stores = [RunStateStore(refunds.agent, "k", keep=3, pool=pool) for _ in range(8)]
    saved = await asyncio.gather(*(store.save(state) for store in stores))
    async with await connect(database_url) as conn:
        rows = await _rows(conn)
        assert [row["is_active"] for row in rows] == [True, False, False, False]
        assert rows[0]["id"] in {one.id for one in saved}
        # Whoever dies before the commit leaves what was there.
        dying = await connect(database_url, application_name="dies")
        transaction = dying.transaction()
        await transaction.__aenter__()
        await dying.execute("UPDATE perdure.kept_states SET is_active = false WHERE is_active")
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dies'"
        )
        with pytest.raises(psycopg.OperationalError):
            await dying.execute("SELECT 1")
        assert await _rows(conn) == rows
    known = await stores[0].latest()
    assert known is not None
    assert known.id == rows[0]["id"]
    last = await stores[0].save(state)
    known = await stores[1].latest()
    assert known == last


async def _rows(conn: Connection) -> list[dict[str, Any]]:
    cursor = await conn.execute(
        "SELECT id, is_active FROM perdure.kept_states ORDER BY is_active DESC, id DESC"
    )
    return await cursor.fetchall()


async def test_what_is_refused(empty_database_url: str) -> None:
    agent = Refunds().agent
    for key, user_id in (("", None), ("k", "x" * 256)):
        with pytest.raises(InvalidRequestError):
            RunStateStore(agent, key, user_id=user_id)
    with pytest.raises(InvalidRequestError, match="/keep"):
        RunStateStore(agent, "k", keep=-1)
    with pytest.raises(ConfigurationError):
        RunStateStore(agent, "k", url=empty_database_url, pool=object())  # type: ignore[arg-type]
    async with RunStateStore(agent, "k", url=empty_database_url, tenant_id=UUID(int=0)) as store:
        with pytest.raises(MigrationError, match="perdure migrate"):
            await store.load()
