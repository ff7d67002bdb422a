"""Runs one segment and nothing else: the side of the process that was started for it.

No DBOS and no lease of its own: the segment's workflow and the lease are those of the worker that
started this process (alone.py). That begins the segment again when this process dies, and when it
is itself taken for dead, this one begins nothing more either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure.config import Settings
from perdure.db import open_pool
from perdure.ledger.writer import LedgerWriter
from perdure.notify import POLICIES, Listener
from perdure.runs.quarantine import Only
from perdure.runs.registry import Registry
from perdure.runs.workflow import SegmentRunner
from perdure.worker.asked import Asked
from perdure.worker.lease import CLOCK, session_name
from perdure.worker.watch import LoopWatch

STOPPED = "stopped"
in_this_process = False
"""Whether this process is one: then no engine is to be entered in it."""

Report = Callable[[str, Any], None]
"""Tells the worker one thing: ``began`` and the epoch, ``ended`` and how, ``failed`` and why."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the worker has given with: the fields of a line of JSON."""

    target: str
    path: list[str]
    url: str
    executor_id: str
    run_id: str
    seq: int
    after: int


class WorkersLease:
    """The lease of the worker, as far as it has told; for the event loop it was made in."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        """Set when this process is to stop, in good order."""
        self._until = 0.0
        self._told = asyncio.Event()

    def told(self, until: float) -> None:
        """The worker holds it until then, by the clock of this machine."""
        self._until = until
        self._told.set()

    def told_to_stop(self) -> None:
        """Nothing is to be begun any more, so nobody need wait to."""
        self.stop.set()
        self._told.set()

    def held(self) -> bool:
        """Whether nobody can have taken the worker's segments, as far as is known here."""
        return time.clock_gettime(CLOCK) < self._until

    async def confirmed(self) -> None:
        """Wait until that is so, or this process is to stop."""
        while not self.held() and not self.stop.is_set():
            self._told.clear()
            await self._told.wait()


async def run_alone(
    registry: Registry, orders: Orders, lease: WorkersLease, report: Report
) -> None:
    """Run the segment to its rest, or until told to stop; then effects under way finish.

    Raises:
        UnavailableError: the database does not answer; nothing was begun.
    """
    me = orders.executor_id
    async with AsyncExitStack() as stack:
        stack.enter_context(LoopWatch())
        # Under the worker's name: who takes it for dead ends these sessions as well.
        pool = await open_pool(orders.url, 1, 8, application_name=session_name("perdure", me))
        await stack.enter_async_context(pool)
        writer = LedgerWriter(orders.url, session_name("perdure-ledger", me))
        await stack.enter_async_context(writer)
        only = Only(orders.after, lambda epoch: report("began", epoch))
        runner = SegmentRunner(
            *(registry, pool, writer, me),
            lease=lease,
            only=only,
            trace_content=Settings.from_env().trace_content,
        )
        heard = {**Asked(runner).callbacks(), POLICIES: runner.policies.heard}
        await stack.enter_async_context(Listener(orders.url, heard))
        running = asyncio.create_task(runner.run(UUID(orders.run_id), orders.seq))
        stopping = asyncio.create_task(lease.stop.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                runner.stop()
                await runner.quiet()
            report("ended", running.result() if running.done() else STOPPED)
        finally:
            for task in (running, stopping):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
