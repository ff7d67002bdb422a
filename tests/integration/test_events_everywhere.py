"""The events of all runs of a tenant: nothing is missed, whenever transactions end."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest

from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Connection, Pool, open_pool
from perdure.errors import InvalidRequestError
from perdure.events import KINDS, windows
from perdure.events.cursor import Cursor, Snapshot
from perdure.events.windows import Anywhere, Only, read_window, where_it_is
from perdure.runs.store import NewRun, start_run
from tests.factories import fetch

_SECONDS = 60.0


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url, 2, 16) as pool:
        yield pool


async def _a_run(pool: Pool, agent: str = "a") -> UUID:
    async with pool.connection() as conn:
        return await start_run(
            conn,
            NewRun(
                tenant_id=DEFAULT_TENANT, agent=agent, input="hi", max_turns=1, delay_seconds=3600
            ),
        )


async def _add(conn: Connection, run_id: UUID, kind: str = "tool.completed") -> None:
    await conn.execute("SELECT perdure.add_event(%s, %s, '{}')", (run_id, kind))


class Reader:
    """Reads all runs in pages, each from the text the one before gave."""

    def __init__(self, pool: Pool, *, page: int = 3) -> None:
        self._pool = pool
        self._page = page
        self.position = ""
        self.seen: list[Anywhere] = []

    async def begin(self) -> None:
        async with self._pool.connection() as conn:
            self.position = (await where_it_is(conn)).text

    async def read(self) -> list[tuple[str, int]]:
        """Read what is there, and return what was new."""
        new: list[Anywhere] = []
        more = True
        while more:
            async with self._pool.connection() as conn:
                cursor = await where_it_is(conn, Cursor.parse(self.position))
                found = await read_window(conn, DEFAULT_TENANT, cursor, limit=self._page)
            new += found.entries
            more, self.position = found.has_more or cursor.window is not None, found.cursor.text
            # Whoever breaks off at any event comes back with the position of that one.
            if found.entries and not found.has_more:
                assert found.entries[-1].id == found.cursor.text
        self.seen += new
        return [(one.event.run_id, one.event.id) for one in new]


def _in_order(seen: Sequence[Anywhere]) -> dict[str, list[int]]:
    """The numbers by run, each once and in order."""
    found: dict[str, list[int]] = {}
    for one in seen:
        found.setdefault(one.event.run_id, []).append(one.event.id)
    for numbers in found.values():
        assert numbers == sorted(set(numbers))
    return found


async def test_a_transaction_that_ends_late_is_given_once_and_waited_for_by_nobody(
    pool: Pool,
) -> None:
    late_run, other = await _a_run(pool), await _a_run(pool)
    reader = Reader(pool)
    await reader.begin()
    async with AsyncExitStack() as stack:
        held = await stack.enter_async_context(pool.connection())
        transaction = await stack.enter_async_context(AsyncExitStack())
        await transaction.enter_async_context(held.transaction())
        await _add(held, late_run)
        conn = await stack.enter_async_context(pool.connection())
        for n in range(2, 9):
            await _add(conn, other)
            # The one that is held open has the older id, and keeps nobody.
            assert await reader.read() == [(str(other), n)]
        before = Cursor.parse(reader.position)
        assert len(before.seen.under_way) == 1
        assert await reader.read() == []
        await transaction.aclose()
        await _add(conn, late_run)
        await _add(conn, late_run, "model.delta")
        assert await reader.read() == [(str(late_run), 2), (str(late_run), 3)]
        assert await reader.read() == []
        # As often as one comes back with an older position.
        for limit in (1, 100):
            again = Reader(pool, page=limit)
            again.position = before.text
            assert await again.read() == [(str(late_run), 2), (str(late_run), 3)]


async def test_whoever_writes_and_whenever_they_commit(pool: Pool) -> None:
    """Six sessions write for three runs, each ending when it pleases; two read all the while."""
    rng = random.Random(11)  # noqa: S311
    runs = sorted([await _a_run(pool) for _ in range(3)])
    readers = [Reader(pool, page=n) for n in (2, 50)]
    for reader in readers:
        await reader.begin()
    done = asyncio.Event()

    async def write() -> None:
        for _ in range(15):
            async with pool.connection() as conn, conn.transaction():
                if rng.random() < 0.3:
                    # It has its id now, and its turn at the run later.
                    await conn.execute("SELECT pg_current_xact_id(), pg_sleep(0.01)")
                for run_id in sorted(rng.sample(runs, rng.choice([1, 1, 2]))):
                    await _add(conn, run_id)
                await conn.execute("SELECT pg_sleep(%s)", (rng.random() / 100,))
                if rng.random() < 0.2:
                    await conn.execute("ROLLBACK AND CHAIN")

    async def watch(reader: Reader) -> None:
        while not done.is_set():
            await reader.read()
        await reader.read()

    async with asyncio.timeout(_SECONDS):
        watching = [asyncio.create_task(watch(reader)) for reader in readers]
        await asyncio.gather(*(write() for _ in range(6)))
        done.set()
        await asyncio.gather(*watching)
    async with pool.connection() as conn:
        rows = await fetch(
            conn, "SELECT jsonb_object_agg(run_id, seq) AS last FROM perdure.run_event_heads"
        )
    for reader in readers:
        numbers = _in_order(reader.seen)
        assert numbers == {run: list(range(2, last + 1)) for run, last in rows["last"].items()}
        assert sum(map(len, numbers.values())) > 60


async def test_only_what_is_wanted(pool: Pool) -> None:
    one, two = await _a_run(pool, "front"), await _a_run(pool, "back")
    async with pool.connection() as conn:
        start = await where_it_is(conn)
        for kind in ("run.failed", "run.started", "tool.failed"):
            for run_id in (one, two):
                await _add(conn, run_id, kind)

        async def wanted(only: Only, tenant_id: UUID = DEFAULT_TENANT) -> list[tuple[str, str]]:
            found = await read_window(conn, tenant_id, start, only=only)
            every = await read_window(conn, tenant_id, start)
            assert [e.id for e in every.entries if only.lets(e)][:-1] == [
                e.id for e in found.entries
            ][:-1]
            return [(e.agent, e.event.event) for e in found.entries]

        assert await wanted(Only(agent="back", kinds=frozenset({"run.failed"}))) == [
            ("back", "run.failed")
        ]
        assert len(await wanted(Only())) == 6
        assert await wanted(Only(user_id="nobody")) == []
        assert await wanted(Only(), uuid4()) == []
        assert windows.kinds_named(["run.failed", "tool"]) == frozenset(
            ("run.failed", "tool.started", "tool.completed", "tool.failed", "tool.uncertain")
        )
        for name in ("model.delta", "", "runs", "run.", "%"):
            with pytest.raises(ValueError, match="^" + name):
                windows.kinds_named([name])
        named = await fetch(
            conn,
            "SELECT array_agg(k::text) AS k FROM unnest(enum_range(NULL::perdure.event_kind)) k",
        )
        assert set(named["k"]) == set(KINDS)


async def test_a_position_is_taken_as_it_was_given_or_not_at_all(pool: Pool) -> None:
    run_id = await _a_run(pool)
    async with pool.connection() as conn:
        start = Cursor(Snapshot(700, (650, 651, 699)))
        for _ in range(3):
            await _add(conn, run_id)
        found = await read_window(conn, DEFAULT_TENANT, start, limit=2)
        for cursor in (start, found.cursor, await where_it_is(conn)):
            assert Cursor.parse(cursor.text) == cursor
            assert Snapshot.of(cursor.seen.as_postgres) == cursor.seen
        assert found.cursor.window is not None
        ahead = Cursor(Snapshot(found.cursor.window.above + 1000, ()))
        with pytest.raises(InvalidRequestError, match="ahead of this database"):
            await where_it_is(conn, ahead)
    good = found.cursor.text
    for text in (
        *("", "x", "1", "0.0", "-1.0", "1.1", "5.1.5", "5.2.1", "05.0", "5.1.0", "5.0_", "5.0_5.0"),
        *(f"{2**63}.0", "5.0_4.0_" + good.rpartition("_")[2], good + " ", good.upper(), good[:-2]),
        *(good + "0" * 12, "9" * 20_000, good.replace("_", "."), "5.0_5.0_1.zz.1", "\u0665.0"),
    ):
        with pytest.raises(ValueError, match="is no position"):
            Cursor.parse(text)


async def test_it_is_read_by_its_index(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, other = await _a_run(pool), await _a_run(pool)
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO perdure.run_events (run_id, seq, kind, tenant_id, data, written_by)"
            " SELECT %s, k + 1, 'tool.completed', %s, '{}', (k %% 500 + 1)::text::xid8"
            "   FROM generate_series(1, 20000) k",
            (run_id, DEFAULT_TENANT),
        )
        await conn.execute("ANALYZE perdure.run_events")
        start = Cursor(Snapshot((await where_it_is(conn)).seen.above, (600,)))
        await _add(conn, other)
        plans: list[str] = []
        execute = conn.execute

        async def explained(statement: str, params: Any) -> Any:
            rows = await (await execute(f"EXPLAIN {statement}", params)).fetchall()
            plans.append("\n".join(row["QUERY PLAN"] for row in rows))
            return await execute(statement, params)

        monkeypatch.setattr(conn, "execute", explained)
        found = await read_window(conn, DEFAULT_TENANT, start)
        assert [one.event.id for one in found.entries] == [2]
        # Of each partition by its own.
        by_index = re.findall(r"Index Scan using run_events_\w+_written_by_idx", plans[0])
        assert len(by_index) >= 2, plans[0]
        # Those of months to come are empty: nobody reads them.
        cursor = await execute(
            "SELECT DISTINCT tableoid::regclass::text AS name FROM perdure.run_events"
        )
        [filled] = [row["name"].removeprefix("perdure.") for row in await cursor.fetchall()]
        assert f"Seq Scan on {filled}" not in plans[0]
