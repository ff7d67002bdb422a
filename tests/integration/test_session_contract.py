"""The SDK's session protocol, kept alike by the SDK's sessions and by ours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, Runner, Session, SessionSettings, SQLiteSession
from agents.extensions.memory.sqlalchemy_session import SQLAlchemySession
from agents.testing import assistant_message
from sqlalchemy.ext.asyncio import create_async_engine

from perdure import PostgresSession
from perdure.db import open_pool
from tests.engine_support import RuleModel

Make = Callable[..., Any]

AWKWARD: list[Any] = [
    {"z": 1, "role": "user", "a": {"y": [1.0, 1e300, 10**30, -0.0], "b": None}, "content": "x"},
    {"role": "user", "content": "NUL \0, \ud83d alone, 😀 two, \ue000 marked, \\u0000 said"},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1, "a": 2}'},
    {
        "type": "function_call_output",
        "call_id": "c1",
        "output": [{"type": "input_text", "text": ""}],
    },
    {"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": "é" * 3000},
    {"role": "assistant", "type": "message", "content": [{"type": "output_text", "text": '\t"\\'}]},
]


def said(*words: str) -> list[Any]:
    return [{"role": "user", "content": word} for word in words]


@pytest.fixture(params=["sqlite", "sqlalchemy", "postgres"])
async def make(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> AsyncIterator[Make]:
    """Makes sessions of one kind, by key."""
    if request.param == "sqlite":
        opened: list[SQLiteSession] = []

        def sqlite(key: str, **rest: Any) -> SQLiteSession:
            opened.append(SQLiteSession(key, tmp_path / "sessions.db", **rest))
            return opened[-1]

        yield sqlite
        for session in opened:
            session.close()
    elif request.param == "sqlalchemy":
        engine = create_async_engine(database_url.replace("://", "+psycopg://", 1))
        yield lambda key, **rest: SQLAlchemySession(key, engine=engine, create_tables=True, **rest)
        await engine.dispose()
    else:
        async with await open_pool(database_url, 1, 4) as pool:
            yield lambda key, **rest: PostgresSession(key, pool=pool, **rest)


async def test_what_a_session_keeps(make: Make) -> None:
    session, other, again = make("a"), make("b"), make("a")
    assert isinstance(session, Session)
    assert session.session_id == "a"
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.clear_session()

    await session.add_items(said("1", "2"))
    await session.add_items([])
    await again.add_items(said("3", "4", "5"))
    await other.add_items(said("elsewhere"))
    assert await session.get_items() == await again.get_items() == said("1", "2", "3", "4", "5")
    assert await session.get_items(2) == said("4", "5")
    assert await session.get_items(99) == said("1", "2", "3", "4", "5")
    assert await session.get_items(0) == []

    assert await session.pop_item() == said("5")[0]
    assert await again.pop_item() == said("4")[0]
    await session.add_items(said("6"))
    assert await again.get_items() == said("1", "2", "3", "6")

    await again.clear_session()
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.add_items(said("anew"))
    assert await again.get_items() == said("anew")
    assert await other.get_items() == said("elsewhere")


async def test_settings_and_items_as_they_were_given(make: Make) -> None:
    await make("a").add_items(AWKWARD)
    read = await make("a").get_items()
    assert [json.dumps(item) for item in read] == [json.dumps(item) for item in AWKWARD]
    assert json.dumps(await make("a").pop_item()) == json.dumps(AWKWARD[-1])

    limited = make("a", session_settings=SessionSettings(limit=2))
    assert limited.session_settings.limit == 2
    assert len(await limited.get_items()) == 2
    assert len(await limited.get_items(3)) == 3


async def test_a_model_reads_what_was_said_before(make: Make) -> None:
    model = RuleModel(lambda items: [assistant_message(f"that was {len(items)}")])
    agent = Agent(name="a", model=model)
    for question in ("one", "two"):
        await Runner.run(agent, question, session=make("talk"))
    streamed = Runner.run_streamed(agent, "three", session=make("talk"))
    async for _ in streamed.stream_events():
        pass
    assert [len(asked) for asked in model.inputs] == [1, 3, 5]
    kept = await make("talk").get_items()
    assert [item["role"] for item in kept] == ["user", "assistant"] * 3
    assert [item["content"] for item in kept if item["role"] == "user"] == ["one", "two", "three"]
    assert model.inputs[-1] == kept[:-1]


async def test_compaction_replaces_what_it_has_read_and_nothing_else(make: Make) -> None:
    session = make("a")
    await session.add_items(said("1", "2", "3", "4"))
    part = await session._get_compaction_snapshot(3)
    assert (part.items, part.complete) == (said("2", "3", "4"), False)
    whole = await session._get_compaction_snapshot(4)
    assert (whole.items, whole.complete) == (said("1", "2", "3", "4"), True)

    assert await part.replace_suffix(1, said("3 and 4"))
    assert await session.get_items() == said("1", "2", "3 and 4")
    # What the first was about is there no more.
    assert not await whole.replace_suffix(0, said("all"))

    late = await session._get_compaction_snapshot(3)
    await make("a").add_items(said("5"))
    assert not await late.replace_suffix(0, said("all"))
    assert not await late.replace_suffix(3, said("nothing"))
    assert await session.get_items() == said("1", "2", "3 and 4", "5")
