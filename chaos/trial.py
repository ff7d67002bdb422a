"""One trial from its beginning to its verdict."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg_pool import PoolTimeout

from chaos.herd import Blows, Herd
from chaos.nursery import Nursery
from chaos.plan import Plan, schedule
from chaos.side import RunRecord, Side
from chaos.verdict import Verdict, judge
from chaos.weather import Database, befall
from chaos.world import Log
from perdure import embedded
from perdure.errors import UnavailableError

_PERSON_SECONDS = 0.15
"""How often the person looks for questions."""
_AGAIN_SECONDS = 0.1
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, UnavailableError)
"""What a program meets while its database is away."""

T = TypeVar("T")
Say = Callable[[str], None]


async def trial(
    side: type[Side],
    plan: Plan,
    *,
    directory: Path | None = None,
    keep: bool = False,
    durable: bool = True,
    say: Say = lambda _: None,
) -> Verdict:
    """Carry ``plan`` out against one side, on a server of its own, and judge what came of it.

    The server's data, the outside log and the workers' warnings lie in a new directory below
    ``directory``, which is removed unless ``keep``.
    """
    async with (
        _scratch(directory, keep=keep, say=say) as home,
        # First, as it has much to load.
        Nursery(side.worker, home / "workers.log") as nursery,
        embedded.running(home, durable=durable) as server,
        side.at(server.url) as opened,
    ):
        return await _Trial(opened, nursery, plan, home, server.url, say).carried_out()


class _Trial:
    def __init__(
        self, side: Side, nursery: Nursery, plan: Plan, home: Path, url: str, say: Say
    ) -> None:
        self._side = side
        self._nursery = nursery
        self._plan = plan
        self._home = home
        self._url = url
        self._say = say
        self._log = Log(home / "world.log")
        self._blows = Blows()
        self._started = 0

    async def carried_out(self) -> Verdict:
        planned = schedule(self._plan)
        async with Herd(self._nursery, self._plan.workers, self._order, self._blows) as herd:
            # Not before the workers work: the blows are meant for runs.
            await self._warmed_up(herd)
            beginning = time.time()
            person = asyncio.create_task(self._decide(herd))
            telling = asyncio.create_task(self._tell())
            try:
                async with asyncio.TaskGroup() as both:
                    database = Database(self._home, self._blows)
                    both.create_task(befall(planned.blows, herd, database))
                    both.create_task(self._start(planned.starts))
                self._say("The weather is over; waiting for the runs to end.")
                await self._ended()
            finally:
                for task in (person, telling):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
            seconds = time.time() - beginning
        self._log.read_on()
        runs: list[RunRecord] = await _until_back(lambda: self._side.records(self._log))
        return judge(self._side.name, self._plan.seed, seconds, runs, self._log, self._blows)

    def _order(self, slot: int) -> dict[str, object]:
        return {
            "slot": slot,
            "url": self._url,
            "log": str(self._home / "world.log"),
            "seed": self._plan.seed,
        }

    async def _warmed_up(self, herd: Herd) -> None:
        await herd.complete()
        await self._begin("0")
        async with asyncio.timeout(60):
            while await _until_back(self._side.unfinished):
                await self._side.decide(self._log, herd)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _begin(self, order: str) -> None:
        await _until_back(lambda: self._side.start(order))
        self._started += 1

    async def _start(self, starts: Sequence[float]) -> None:
        beginning = time.monotonic()
        async with asyncio.TaskGroup() as starting:
            for number, at in enumerate(starts, 1):
                await asyncio.sleep(max(0.0, beginning + at - time.monotonic()))
                starting.create_task(self._begin(str(number)))

    async def _decide(self, herd: Herd) -> None:
        while True:
            await asyncio.sleep(_PERSON_SECONDS)
            await _until_back(lambda: self._side.decide(self._log, herd))

    async def _ended(self) -> None:
        """Wait until every run has ended, or nothing has moved for as long as patience lasts."""
        moved, before = time.monotonic(), (-1, -1)
        while time.monotonic() - moved < self._plan.patience:
            left = await _until_back(self._side.unfinished)
            if not left:
                return
            self._log.read_on()
            now = (left, len(self._log.lines))
            if now != before:
                moved, before = time.monotonic(), now
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(10)
            left = await _until_back(self._side.unfinished)
            self._say(
                f"{len(self._blows.kills)} kills, {len(self._blows.pauses)} stops, "
                f"{len(self._blows.restarts)} restarts; {self._started} runs begun, {left} open"
            )


async def _until_back(do: Callable[[], Awaitable[T]]) -> T:
    """Do something with the database, again and again while it is away."""
    while True:
        try:
            return await do()
        except _AWAY:
            await asyncio.sleep(_AGAIN_SECONDS)


@asynccontextmanager
async def _scratch(parent: Path | None, *, keep: bool, say: Say) -> AsyncIterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="perdure-chaos-", dir=parent))
    try:
        yield home
    finally:
        if keep:
            say(f"Kept: {home}")
        else:
            await asyncio.to_thread(_remove, home)


def _remove(home: Path) -> None:
    # The watcher writes a last time when its server has stopped.
    deadline = time.monotonic() + 60
    while (home / "pgdata" / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    shutil.rmtree(home, ignore_errors=True)


def to_stderr(text: str) -> None:
    """Say something on the way."""
    print(text, file=sys.stderr, flush=True)
