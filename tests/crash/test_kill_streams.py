"""Workers killed while models talk: readers see each event once, in order, and no text twice.

``PERDURE_STREAM_KILLS`` says how often (24), ``PERDURE_STREAM_SEED`` when.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import aclosing
from pathlib import Path

import pytest

from perdure import Engine, Run
from perdure.events import Event
from tests.crash.nursery import Nursery
from tests.crash.talker import REPLIES, talker
from tests.engine_support import query
from tests.events_support import check_log, log_of
from tests.streaming_support import replies_told

pytestmark = pytest.mark.asyncio(loop_scope="module")
KILLS = int(os.environ.get("PERDURE_STREAM_KILLS", "24"))
SEED = int(os.environ.get("PERDURE_STREAM_SEED", "2026"))
RUNS = 4
PATIENCE_SECONDS = 60


async def test_who_reads_while_workers_die_reads_each_event_once_and_the_text_that_counts(
    database_url: str, tmp_path: Path, nursery: Nursery
) -> None:
    chance = random.Random(SEED)  # noqa: S311 - the same deaths again
    killed = voided = 0
    async with Engine([talker()]).running(url=database_url, worker=False) as engine:
        while killed < KILLS:
            runs = [await engine.start("talker", "talk") for _ in range(RUNS)]
            audience = Audience(engine, runs, chance)
            async with asyncio.TaskGroup() as group:
                for run in runs:
                    group.create_task(audience.stay(run))
                    group.create_task(audience.come_and_go(run))
                while not audience.over and killed < KILLS:
                    worker = await nursery.worker(database_url, tmp_path / "log", scene="talker")
                    await audience.hear(chance.randint(1, 12))
                    await nursery.kill(worker)
                    killed += 1
                worker = await nursery.worker(database_url, tmp_path / "log", scene="talker")
            await nursery.kill(worker)
            for run in runs:
                voided += await _check(engine, run, audience)
    print(f"{killed} workers killed, {voided} replies cut short, seed {SEED}")
    # They died in mid-stream: most deaths cut several replies short.
    assert voided > killed


class Audience:
    """Who reads: of each run one that stays, and one that leaves and comes back."""

    def __init__(self, engine: Engine, runs: list[Run], chance: random.Random) -> None:
        self.stayed: dict[str, list[Event]] = {run.id: [] for run in runs}
        self.returned: dict[str, list[Event]] = {run.id: [] for run in runs}
        self._engine = engine
        self._chance = chance
        self._heard = 0
        self._more = asyncio.Event()
        self._reading = len(runs)

    @property
    def over(self) -> bool:
        """Whether each run has ended, as those who stayed saw."""
        return not self._reading

    async def hear(self, deltas: int) -> None:
        """Wait until those who stay have heard so much more text, or have heard all."""
        upto = self._heard + deltas
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self._heard < upto and not self.over:
                self._more.clear()
                await self._more.wait()

    async def stay(self, run: Run) -> None:
        """Read a run from its start to its end."""
        async with asyncio.timeout(PATIENCE_SECONDS * 5):
            async for event in run.events():
                self.stayed[run.id].append(event)
                self._heard += event.event == "model.delta"
                self._more.set()
        self._reading -= 1
        self._more.set()

    async def come_and_go(self, run: Run) -> None:
        """Read it a few events at a time, each time from where one left."""
        seen = self.returned[run.id]
        while not (seen and seen[-1].ends):
            stays = self._chance.randint(1, 7)
            async with (
                asyncio.timeout(PATIENCE_SECONDS * 5),
                aclosing(run.events(after=seen[-1].id if seen else 0)) as events,
            ):
                async for event in events:
                    seen.append(event)
                    stays -= 1
                    if not stays:
                        break


async def _check(engine: Engine, run: Run, audience: Audience) -> int:
    log = await log_of(engine.pool, run.id)
    assert audience.stayed[run.id] == audience.returned[run.id] == log
    check_log(log, "completed")
    replies = await query(
        engine,
        "SELECT o ->> 'type' AS type, o -> 'content' -> 0 ->> 'text' AS text, m.position"
        " FROM perdure.model_responses m, jsonb_array_elements(m.output) o"
        " WHERE m.run_id = %s AND o ->> 'type' = 'message' ORDER BY m.position",
        run.id,
    )
    told = [reply["text"] for reply in replies_told(log)]
    assert told == [reply["text"] for reply in replies]
    assert len(told) == REPLIES
    return sum(one.event == "model.superseded" for one in log)
