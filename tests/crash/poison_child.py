"""A worker for the agents of poison.py."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from perdure.runs import quarantine
from perdure.worker import alone
from tests.crash import poison as agents
from tests.crash import zygote
from tests.crash.scenario import LOG


def main(
    url: str,
    log: str,
    poison: str,
    limits: tuple[int, int] | None = None,
    silent: float | None = None,
) -> None:
    """Be a worker until killed, or told to stop.

    ``poison`` is the path of the zygote that forks the processes that run alone, or ``lost``: then
    no other process finds the engine. ``limits`` stand for how many deaths there may be,
    ``silent`` for how many seconds without an answer.
    """
    os.environ[LOG] = log
    # How long anything waits is not the point of any test here.
    quarantine.PAUSES_SECONDS = (0.01,) * 4
    alone.STOP_SHARE = 0.1
    if silent is not None:
        alone.SILENT_SECONDS = silent
    if limits is not None:
        quarantine.MOST_STALLED, quarantine.MOST_DEATHS = limits
    alone.COMMAND = zygote.command(poison)
    asyncio.run(_work(url, lost=poison == "lost"))


async def _work(url: str, *, lost: bool) -> None:
    engine: Any = agents.make_engine() if lost else agents.engine
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with engine.running(url=url, migrate_first=False):
        await told.wait()
