"""What befalls the workers and their database, at the times the plan says."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from chaos.herd import Blows, Herd
from chaos.plan import Blow

_LOOK_SECONDS = 0.01
_BACK_SECONDS = 60


class Database:
    """The embedded server of a trial, as something that can be killed."""

    def __init__(self, home: Path, blows: Blows) -> None:
        self._pid_file = home / "pgdata" / "postmaster.pid"
        self._blows = blows
        self._one_at_a_time = asyncio.Lock()

    async def restart(self) -> None:
        """End the server at once (``pg_ctl stop -m immediate``) and wait until it is back.

        Its watcher starts it again.
        """
        async with self._one_at_a_time:
            before = await self._ready(None)
            at = time.time()
            os.kill(before, signal.SIGQUIT)
            await self._ready(before)
            self._blows.restarts.append((at, time.time()))

    async def _ready(self, other_than: int | None) -> int:
        async with asyncio.timeout(_BACK_SECONDS):
            while True:
                lines = self._lines()
                if len(lines) >= 8 and lines[7].strip() == "ready" and int(lines[0]) != other_than:
                    return int(lines[0])
                await asyncio.sleep(_LOOK_SECONDS)

    def _lines(self) -> list[str]:
        try:
            return self._pid_file.read_text().splitlines()
        except FileNotFoundError:
            return []


async def befall(blows: Sequence[Blow], herd: Herd, database: Database) -> None:
    """Do everything in ``blows`` at its time, and wait until pauses and restarts are over."""
    beginning = time.monotonic()
    async with asyncio.TaskGroup() as restarts:
        for blow in blows:
            await asyncio.sleep(max(0.0, beginning + blow.at - time.monotonic()))
            if blow.kind == "kill":
                await herd.kill(blow.aim)
            elif blow.kind == "stop":
                await herd.pause(blow.aim, blow.seconds)
            else:
                restarts.create_task(database.restart())
    await herd.all_awake()
