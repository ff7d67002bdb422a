"""Sessions of programs: many at once, deep ones, cancelled ones, and where they live."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from agents import Agent, Runner
from agents.extensions.memory.encrypt_session import EncryptedSession
from agents.testing import assistant_message

from perdure import Engine, PostgresSession
from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.db import Pool, connect, open_pool
from perdure.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    MigrationError,
    NotFoundError,
)
from perdure.paging import PageRequest
from perdure.sessions import branching, erasing, items, reading, removing, store
from perdure.sessions.rules import MAX_DEPTH, NewItem
from tests.engine_support import SECONDS, RuleModel, eventually
from tests.integration.test_session_contract import said

ANYBODY = program_principal("tests")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url, 2, 20) as pool:
        yield pool


async def test_fifty_appenders_leave_no_gap_and_no_double(pool: Pool) -> None:
    async def talk(number: int) -> None:
        # Each finds or makes the session by itself, at the same moment as the others.
        session = PostgresSession("talk", user_id="alice", pool=pool)
        for turn in range(4):
            await session.add_items(said(f"{number} {turn} a", f"{number} {turn} b"))

    async with asyncio.timeout(SECONDS * 2), asyncio.TaskGroup() as tasks:
        for number in range(50):
            tasks.create_task(talk(number))
    session = PostgresSession("talk", user_id="alice", pool=pool)
    async with pool.connection() as conn:
        read = await reading.newest(conn, tenant_id=DEFAULT_TENANT, session_id=await session.id())
        counted = await (await conn.execute("SELECT count(*) FROM perdure.sessions")).fetchone()
    assert counted == {"count": 1}
    assert [one.seq for one in read] == list(range(1, 401))
    words = [one.item["content"] for one in read]
    assert Counter(words).most_common(1)[0][1] == 1
    # What is appended together stands together, and each speaker's in their order.
    assert all(a[:-1] == b[:-1] for a, b in zip(words[::2], words[1::2], strict=True))
    for number in range(50):
        turns = [word.split()[1] for word in words[::2] if word.split()[0] == str(number)]
        assert turns == ["0", "1", "2", "3"]


async def test_a_user_has_keys_of_their_own(pool: Pool) -> None:
    alice, bob = (PostgresSession("k", user_id=user, pool=pool) for user in ("alice", "bob"))
    nobody = PostgresSession("k", pool=pool)
    for session, word in ((alice, "a"), (bob, "b"), (nobody, "n")):
        await session.add_items(said(word))
    assert len({await alice.id(), await bob.id(), await nobody.id()}) == 3
    assert await PostgresSession("k", pool=pool).get_items() == said("n")
    assert await PostgresSession("k", user_id="bob", pool=pool).get_items() == said("b")

    shown = PostgresSession.existing(str(await alice.id()), user_id="alice", pool=pool)
    assert await shown.get_items() == said("a")
    foreign = PostgresSession.existing(await alice.id(), user_id="bob", pool=pool)
    for use in (
        foreign.get_items(),
        foreign.add_items(said("x")),
        foreign.pop_item(),
        foreign.clear_session(),
        foreign.branch(),
    ):
        with pytest.raises(NotFoundError):
            await use
    assert await alice.get_items() == said("a")

    # Deleted, it is made anew by its key, and not by its id.
    async with pool.connection() as conn:
        await erasing.delete_session(
            conn, tenant_id=DEFAULT_TENANT, session_id=await alice.id(), by=ANYBODY
        )
    await alice.add_items(said("again"))
    assert await alice.get_items() == said("again")
    with pytest.raises(NotFoundError):
        await shown.get_items()
    for wrong in ("", "x" * 256, "\0", "\ud800"):
        with pytest.raises(InvalidRequestError):
            PostgresSession(wrong, pool=pool)
    for items_ in (
        [{"role": "critic", "content": "x"}],
        [{"role": "user", "content": float("nan")}],
    ):
        with pytest.raises(InvalidRequestError):
            await bob.add_items([*said("kept?"), *items_])
    with pytest.raises(InvalidRequestError):
        await bob.get_items(-1)
    assert await bob.get_items() == said("b")


async def test_an_append_that_began_is_finished_before_a_cancellation(
    pool: Pool, database_url: str
) -> None:
    session = PostgresSession("k", pool=pool)
    async with await connect(database_url) as other:
        async with other.transaction():
            await other.execute(
                "SELECT FROM perdure.sessions WHERE id = %s FOR UPDATE", (await session.id(),)
            )
            adding = asyncio.create_task(session.add_items(said("all", "of it")))

            async def waits() -> bool:
                # On another connection: within a transaction the view stands still.
                async with pool.connection() as looking:
                    cursor = await looking.execute(
                        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                        " AND datname = current_database()"
                    )
                    return await cursor.fetchone() is not None

            await eventually(waits)
            adding.cancel()
            assert not (await asyncio.wait({adding}, timeout=0))[0]
        with pytest.raises(asyncio.CancelledError):
            await adding
    assert await session.get_items() == said("all", "of it")


async def test_branches_as_deep_as_they_go(pool: Pool) -> None:
    async with pool.connection() as conn:
        where: dict[str, Any] = {"tenant_id": DEFAULT_TENANT, "by": ANYBODY}
        root, _ = await store.find_or_make(conn, **where, fields=store.SessionFields())
        chain = [UUID(root["id"])]
        for depth in range(MAX_DEPTH + 1):
            one = {**where, "session_id": chain[-1]}
            await items.append(conn, **one, items=[NewItem(said(str(depth))[0])])
            if depth < MAX_DEPTH:
                chain.append(UUID((await branching.branch_session(conn, **one))["id"]))
        with pytest.raises(ConflictError):
            await branching.branch_session(conn, **where, session_id=chain[-1])
        deepest: dict[str, Any] = {"tenant_id": DEFAULT_TENANT, "session_id": chain[-1]}
        read = await reading.newest(conn, **deepest)
        assert [one.item["content"] for one in read] == [str(n) for n in range(MAX_DEPTH + 1)]

        # A ring is refused by the table itself.
        for child, parent in ((chain[0], chain[1]), (chain[1], chain[2]), (chain[1], chain[1])):
            with pytest.raises(psycopg.errors.IntegrityError):
                await conn.execute(
                    "UPDATE perdure.sessions SET parent_session_id = %s WHERE id = %s",
                    (parent, child),
                )
        # All of the root's is gone from it, and from none of the others.
        first: dict[str, Any] = {"tenant_id": DEFAULT_TENANT, "session_id": chain[0]}
        before = await reading.moment(conn, **first)
        await removing.clear(conn, **first, by=ANYBODY)
        assert await reading.newest(conn, **first) == []
        assert await reading.newest(conn, **first, at=before) == read[:1]
        assert await reading.newest(conn, **deepest) == read


async def test_where_a_session_lives(
    database_url: str, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(ConfigurationError):
        await PostgresSession("k").get_items()
    with pytest.raises(ConfigurationError):
        PostgresSession("k", url=database_url, engine=Engine(agents=[Agent(name="a")]))
    async with PostgresSession("k", url=empty_database_url) as early:
        with pytest.raises(MigrationError, match="perdure migrate"):
            await early.get_items()

    async with PostgresSession("k", url=database_url) as session:
        await asyncio.gather(*(session.add_items(said(str(n))) for n in range(8)))
        assert len(await session.get_items()) == 8
    monkeypatch.setenv("DATABASE_URL", database_url)
    async with PostgresSession("k") as session:
        assert len(await session.get_items()) == 8
        branch = await session.branch(3, title="another way")
        await branch.add_items(said("and on"))
        assert (await branch.get_items())[3:] == said("and on")
    engine = Engine(agents=[Agent(name="a")], database_url=database_url)
    async with engine.running(worker=False):
        assert len(await PostgresSession("k", engine=engine).get_items()) == 8


async def test_the_sdks_sessions_around_it(pool: Pool) -> None:
    agent = Agent(name="a", model=RuleModel(lambda items: [assistant_message(str(len(items)))]))
    plain = PostgresSession("secret", pool=pool)
    secret = EncryptedSession("secret", plain, encryption_key="of a test")  # type: ignore[arg-type]
    for question in ("who?", "where?"):
        await Runner.run(agent, question, session=secret)
    assert [item["role"] for item in await secret.get_items()] == ["user", "assistant"] * 2  # type: ignore[typeddict-item]
    async with pool.connection() as conn:
        page = await reading.list_items(
            conn, tenant_id=DEFAULT_TENANT, session_id=await plain.id(), page=PageRequest()
        )
    assert [(row["role"], row["text"]) for row in page.data] == [(None, None)] * 4
    assert "who?" not in str(page.data)
    popped = await secret.pop_item()
    assert popped is not None
    assert popped["role"] == "assistant"  # type: ignore[typeddict-item]


def test_a_program_without_a_loop_of_its_own(database_url: str) -> None:
    session = PostgresSession("k", url=database_url)
    agent = Agent(name="a", model=RuleModel(lambda items: [assistant_message(str(len(items)))]))

    async def turn(question: str) -> str:
        result = await Runner.run(agent, question, session=session)
        await session.aclose()
        return str(result.final_output)

    # Each in a loop that ends with it.
    assert [asyncio.run(turn("one")), asyncio.run(turn("two"))] == ["1", "3"]
