"""A segment that keeps killing its process: apart from the others, then failed; they never are."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Pool, open_pool
from perdure.notify import RUNS, Listener, Waiters
from perdure.runs import resume, store
from perdure.runs.store import NewRun
from tests.crash import poison
from tests.crash.nursery import Nursery
from tests.crash.scenario import read_log
from tests.crash.test_zombies import LET_THE_LEASE_RUN_OUT

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECONDS = 150.0
"""How long anything may take before a test fails: far more than it needs."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a zygote for processes that run a segment alone."""
    path = str(tmp_path_factory.mktemp("zygote") / "socket")
    await nursery.order(zygote=path)
    return path


class Poisoned:
    """Runs of poison.py, and workers that are replaced when they die."""

    def __init__(self, url: str, log: Path, pool: Pool, waiters: Waiters, nursery: Nursery) -> None:
        self._url = url
        self._log = log
        self._pool = pool
        self._waiters = waiters
        self._nursery = nursery
        self.worker = 0
        self.deaths = 0
        """How many workers have died."""

    async def start(self, agent: str, text: str = "go", *, stalled: int = 0) -> UUID:
        """Start a run whose segment has died with so many processes already."""
        new = NewRun(tenant_id=DEFAULT_TENANT, agent=agent, input=text, max_turns=9)
        async with self._pool.connection() as conn, conn.transaction():
            run_id = await store.start_run(conn, new)
            await conn.execute(
                "UPDATE perdure.segments SET stalled = %s WHERE run_id = %s", (stalled, run_id)
            )
        return run_id

    async def work(self, zygote: str, **order: Any) -> None:
        """Start a worker."""
        self.worker = await self._nursery.order(
            url=self._url, log=str(self._log), poison=zygote, **order
        )

    @asynccontextmanager
    async def working(self, zygote: str, **order: Any) -> AsyncIterator[None]:
        """Have a worker, and another one whenever it dies, inside the block."""

        async def replace() -> None:
            while True:
                await self._nursery.death(self.worker)
                self.deaths += 1
                await self.work(zygote, **order)

        await self.work(zygote, **order)
        replacing = asyncio.create_task(replace())
        try:
            yield
        finally:
            replacing.cancel()
            await asyncio.wait({replacing})
            await self._nursery.kill(self.worker)

    async def rested(self, run_id: UUID) -> dict[str, Any]:
        """Wait for the run's rest."""

        async def look() -> dict[str, Any] | None:
            async with self._pool.connection() as conn:
                run = await store.get_run(conn, tenant_id=DEFAULT_TENANT, run_id=run_id)
            return run if run["status"] not in ("queued", "running") else None

        async with asyncio.timeout(SECONDS):
            run = await self._waiters.until(str(run_id), look)
        assert run is not None
        return run

    async def logged(self, kind: str, n: int = 1) -> list[dict[str, Any]]:
        """Wait for as many lines of a kind and return them."""
        async with asyncio.timeout(SECONDS):
            # What another process does is only seen by looking.
            while len(lines := self.lines(kind)) < n:  # noqa: ASYNC110
                await asyncio.sleep(poison.LOOK_SECONDS)
        return lines

    def lines(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in read_log(self._log) if line["kind"] == kind]

    def tell(self, name: str) -> None:
        """Make the file that agents look for."""
        self._log.with_name(name).touch()

    async def rows(self, query: str, *params: Any) -> list[dict[str, Any]]:
        async with self._pool.connection() as conn:
            return await (await conn.execute(query.encode(), params)).fetchall()

    async def counts(self, run_id: UUID, seq: int = 1) -> tuple[int, int]:
        """How often the segment has died with a shared process, and alone."""
        [row] = await self.rows(
            "SELECT stalled, alone_deaths FROM perdure.segments WHERE run_id = %s AND seq = %s",
            *(run_id, seq),
        )
        return row["stalled"], row["alone_deaths"]

    async def resume(self, run_id: UUID) -> None:
        async with self._pool.connection() as conn:
            await resume.retry(conn, tenant_id=DEFAULT_TENANT, run_id=run_id)

    async def cancel(self, run_id: UUID) -> None:
        async with self._pool.connection() as conn:
            await resume.cancel(conn, tenant_id=DEFAULT_TENANT, run_id=run_id)


@pytest_asyncio.fixture(loop_scope="module")
async def poisoned(database_url: str, tmp_path: Path, nursery: Nursery) -> AsyncIterator[Poisoned]:
    waiters = Waiters()
    async with (
        await open_pool(database_url, 1, 4) as pool,
        Listener(database_url, {RUNS: waiters.notify}),
    ):
        yield Poisoned(database_url, tmp_path / "log", pool, waiters, nursery)


async def test_it_is_quarantined_and_its_neighbour_is_not(poisoned: Poisoned, zygote: str) -> None:
    culprit = await poisoned.start("poisoned", "99b3")
    neighbour = await poisoned.start("slow")
    async with poisoned.working(zygote):
        failed = await poisoned.rested(culprit)

        assert failed["status"] == "failed"
        assert failed["error"] == {
            "type": "quarantined",
            "message": "5 processes that ran nothing else died in a row; the last was killed by "
            "signal 9 (SIGKILL). Before them 3 died that it shared with other runs. Under way: "
            "tool boom (call c1 of agent poisoned, attempt 8). Mend what ends the process, then "
            "resume the run.",
        }
        # Three workers died; the fourth one lives.
        assert poisoned.deaths == 3
        booms = poisoned.lines("boom")
        assert [line["attempt"] for line in booms] == list(range(1, 9))
        assert len({line["pid"] for line in booms}) == 8
        assert poisoned.worker not in {line["pid"] for line in booms}
        assert await poisoned.counts(culprit) == (3, 5)
        [call] = await poisoned.rows("SELECT status, error FROM perdure.tool_calls")
        assert (call["status"], call["error"]["raised"]) == ("failed", True)

        # The neighbour was asking its model each time; it goes on alone, and comes to its end.
        waits = await poisoned.logged("waits", 4)
        assert waits[3]["pid"] not in {poisoned.worker, *(line["pid"] for line in booms)}
        poisoned.tell("go")
        done = await poisoned.rested(neighbour)
        assert (done["status"], done["output"]) == ("completed", "shipped")
        assert len(poisoned.lines("shipped")) == 1
        assert await poisoned.counts(neighbour) == (3, 0)

        # Mended and resumed, it starts anew: in the worker, as any other.
        poisoned.tell("mended")
        await poisoned.resume(culprit)
        run = await poisoned.rested(culprit)
        assert (run["status"], run["output"]) == ("completed", "mended")
        assert poisoned.lines("boom")[-1]["pid"] == poisoned.worker
        assert await poisoned.counts(culprit, 2) == (0, 0)
        assert poisoned.deaths == 3


async def test_what_is_recorded_between_deaths_starts_the_count_anew(
    poisoned: Poisoned, zygote: str
) -> None:
    """Two deaths in a row, here or alone, would be too many."""
    async with poisoned.working(zygote, limits=(2, 2)):
        shared = await poisoned.start("poisoned", "1 1")
        run = await poisoned.rested(shared)
        assert run["output"] == "lived at attempt 2; lived at attempt 2"
        assert await poisoned.counts(shared) == (1, 0)
        assert poisoned.deaths == 2
        alone = await poisoned.start("poisoned", "1 1", stalled=3)
        run = await poisoned.rested(alone)
        assert run["output"] == "lived at attempt 2; lived at attempt 2"
        assert await poisoned.counts(alone) == (3, 1)
        assert poisoned.deaths == 2


async def test_the_death_of_its_worker_is_not_counted_and_ends_the_process(
    poisoned: Poisoned, zygote: str, nursery: Nursery
) -> None:
    hanging = await poisoned.start("poisoned", "hang", stalled=3)
    await poisoned.work(zygote)
    [boom] = await poisoned.logged("boom")
    await nursery.kill(poisoned.worker)
    await _gone(boom["pid"])
    poisoned.tell("mended")
    await poisoned.work(zygote)
    run = await poisoned.rested(hanging)
    assert (run["status"], run["output"]) == ("completed", "mended")

    # One that is told to stop has it stop as well, and hands the run over.
    slow = await poisoned.start("slow", stalled=3)
    [waits] = await poisoned.logged("waits")
    assert waits["pid"] != poisoned.worker
    os.kill(poisoned.worker, signal.SIGTERM)
    async with asyncio.timeout(SECONDS):
        await nursery.death(poisoned.worker)
    await _gone(waits["pid"])
    poisoned.tell("go")
    async with poisoned.working(zygote):
        run = await poisoned.rested(slow)
    assert (run["status"], run["output"]) == ("completed", "shipped")
    # The first had got somewhere alone, so it was a suspect no more.
    assert await poisoned.counts(hanging) == (0, 0)
    assert await poisoned.counts(slow) == (3, 0)


async def test_a_worker_that_is_paused_begins_nothing_by_its_process_either(
    poisoned: Poisoned, zygote: str, nursery: Nursery
) -> None:
    run_id = await poisoned.start("slow", stalled=3)
    await poisoned.work(zygote)
    zombie = poisoned.worker
    [waits] = await poisoned.logged("waits")
    os.kill(zombie, signal.SIGSTOP)
    await nursery.stopped(zombie)
    await poisoned.rows(LET_THE_LEASE_RUN_OUT)
    async with poisoned.working(zygote):
        await poisoned.logged("waits", 2)
        poisoned.tell("go")
        run = await poisoned.rested(run_id)
        os.kill(zombie, signal.SIGCONT)
        await _gone(waits["pid"])
        await nursery.kill(zombie)
    assert (run["status"], run["output"]) == ("completed", "shipped")
    assert len(poisoned.lines("shipped")) == 1
    assert await poisoned.counts(run_id) == (3, 0)


async def test_one_that_answers_nothing_is_killed(poisoned: Poisoned, zygote: str) -> None:
    """Three seconds without a word stand for a minute, and one death for five."""
    run_id = await poisoned.start("poisoned", "freeze", stalled=3)
    async with poisoned.working(zygote, limits=(3, 1), silent=3.0):
        run = await poisoned.rested(run_id)
    assert run["error"]["type"] == "quarantined"
    assert "; the last answered nothing for 3 s and was killed. " in run["error"]["message"]
    assert poisoned.deaths == 0


async def test_cancelling_reaches_it(poisoned: Poisoned, zygote: str) -> None:
    run_id = await poisoned.start("poisoned", "hang", stalled=3)
    async with poisoned.working(zygote):
        [boom] = await poisoned.logged("boom")
        assert boom["pid"] != poisoned.worker
        await poisoned.cancel(run_id)
        run = await poisoned.rested(run_id)
        await _gone(boom["pid"])
    assert run["status"] == "cancelled"
    assert await poisoned.counts(run_id) == (3, 0)
    assert poisoned.deaths == 0


async def test_without_a_way_to_run_it_alone(poisoned: Poisoned) -> None:
    """Two deaths here and one alone stand for three and five."""
    culprit = await poisoned.start("poisoned", "99b2")
    # The third death may come while it ships, which is no question where that may happen twice.
    neighbour = await poisoned.start("steady")
    async with poisoned.working("lost", limits=(2, 1)):
        await poisoned.logged("boom", 2)
        poisoned.tell("go")
        done = await poisoned.rested(neighbour)
        failed = await poisoned.rested(culprit)
    assert (done["status"], done["output"]) == ("completed", "shipped")
    assert failed["error"] == {
        "type": "quarantined",
        "message": "3 processes died in a row that ran it, beside other runs: there was no way to "
        "run it alone. Under way: tool boom (call c1 of agent poisoned, attempt 3). Mend what ends "
        "the process, then resume the run.",
    }
    assert poisoned.deaths == 3


async def _gone(pid: int) -> None:
    """Wait until there is no such process."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended = await asyncio.to_thread(lambda: select.select([fd], [], [], SECONDS)[0])
        assert ended, f"process {pid} goes on"
    finally:
        os.close(fd)
