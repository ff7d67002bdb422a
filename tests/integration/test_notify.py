"""Listening and waiting against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure import notify
from perdure.db import Connection, Pool, open_pool
from perdure.notify import Listener, Waiters

DEADLINE = 10.0


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url) as pool:
        yield pool


@pytest.fixture
async def conn(pool: Pool) -> AsyncIterator[Connection]:
    async with pool.connection() as conn:
        yield conn


async def say(conn: Connection, channel: str, payload: str) -> None:
    await conn.execute("SELECT pg_notify(%s, %s)", (channel, payload))


async def test_each_channel_reaches_its_callback(database_url: str, conn: Connection) -> None:
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    callbacks = {
        "one": lambda payload: heard.put_nowait(("one", payload)),
        "two": lambda payload: heard.put_nowait(("two", payload)),
    }
    async with asyncio.timeout(DEADLINE), Listener(database_url, callbacks):
        assert [await heard.get(), await heard.get()] == [("one", ""), ("two", "")]
        await say(conn, "two", "b")
        await say(conn, "three", "nobody listens")
        await say(conn, "one", "a")
        assert [await heard.get(), await heard.get()] == [("two", "b"), ("one", "a")]


async def test_what_a_callback_raises_stops_nothing(
    database_url: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    heard = asyncio.Event()

    def callback(payload: str) -> None:
        if payload == "bad":
            raise RuntimeError("broken callback")
        if payload == "good":
            heard.set()

    async with asyncio.timeout(DEADLINE), Listener(database_url, {"one": callback}):
        await say(conn, "one", "bad")
        await say(conn, "one", "good")
        await heard.wait()
    assert "broken callback" in caplog.text


async def test_a_lost_connection_comes_back_and_says_look_again(
    database_url: str, conn: Connection
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.timeout(DEADLINE), Listener(database_url, {"one": heard.put_nowait}):
        assert await heard.get() == ""
        cursor = await conn.execute(
            "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity"
            " WHERE application_name = 'perdure-listener' AND datname = current_database()"
        )
        assert (await cursor.fetchone()) == {"n": 1}
        assert await heard.get() == ""
        await say(conn, "one", "after")
        assert await heard.get() == "after"


async def test_leaving_closes_the_connection(database_url: str, conn: Connection) -> None:
    async with Listener(database_url, {"one": lambda payload: None}):
        pass
    gone = (
        "SELECT count(*) AS n FROM pg_stat_activity"
        " WHERE application_name = 'perdure-listener' AND datname = current_database()"
    )
    async with asyncio.timeout(DEADLINE):
        while (await (await conn.execute(gone)).fetchone()) != {"n": 0}:
            await conn.execute("SELECT pg_sleep(0.01)")


async def test_a_database_that_is_away_does_not_keep_one_from_entering() -> None:
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    async with asyncio.timeout(DEADLINE), Listener(url, {"one": lambda payload: None}):
        pass


async def test_waiters_are_woken_by_their_own_payload_only() -> None:
    waiters = Waiters()
    async with waiters.expect("a") as a, waiters.expect("b") as b:
        waiters.notify("a")
        assert a.is_set()
        assert not b.is_set()
        waiters.notify("")
        assert b.is_set()
    waiters.notify("a")


async def test_until_is_woken_and_not_by_looking_again(
    database_url: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "FALLBACK_SECONDS", 3600.0)
    waiters = Waiters()
    looked = asyncio.Event()
    there: list[str] = []

    async def look() -> str | None:
        looked.set()
        return there[0] if there else None

    async with asyncio.timeout(DEADLINE), Listener(database_url, {"runs": waiters.notify}):
        waiting = asyncio.create_task(waiters.until("r1", look))
        await looked.wait()
        there.append("found")
        await say(conn, "runs", "r1")
        assert await waiting == "found"


async def test_until_looks_for_itself_when_notifications_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notify, "FALLBACK_SECONDS", 0.01)
    looks = 0

    async def look() -> int | None:
        nonlocal looks
        looks += 1
        return looks if looks == 3 else None

    async with asyncio.timeout(DEADLINE):
        assert await Waiters().until("r1", look) == 3


async def test_until_ends_with_a_last_look() -> None:
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1

    async with asyncio.timeout(DEADLINE):
        await Waiters().until("r1", look, seconds=0.05)
    assert looks == 2


async def test_at_the_end_who_waits_for_a_time_is_answered_with_what_there_is() -> None:
    waiters = Waiters()
    looks: list[int] = []

    async def look() -> str | None:
        looks.append(1)
        return None

    timed = asyncio.create_task(waiters.until("run", look, seconds=3600))
    forever = asyncio.create_task(waiters.until("run", look))
    while len(looks) < 2:  # noqa: ASYNC110 - each has looked once
        await asyncio.sleep(0)
    waiters.end()
    assert await timed is None
    # Who waits without a time goes on, and so does whoever comes after a new beginning.
    assert not forever.done()
    waiters.begin()
    again = asyncio.create_task(waiters.until("run", look, seconds=3600))
    await asyncio.sleep(0)
    assert not again.done()
    for task in (forever, again):
        task.cancel()
    await asyncio.wait({forever, again})
