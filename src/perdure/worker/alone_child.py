"""Runs one segment and nothing else: the side of the process that was started for it.

No DBOS: the segment's workflow is that of the worker which started this process (alone.py), and
which begins the segment again when this process dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure.db import open_pool
from perdure.ledger.writer import LedgerWriter
from perdure.notify import CANCEL, Listener
from perdure.runs.quarantine import Only
from perdure.runs.registry import Registry
from perdure.runs.workflow import SegmentRunner
from perdure.worker.cancelling import Cancellations
from perdure.worker.lease import Lease, new_executor_id, new_tag, session_name

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
    version: str
    run_id: str
    seq: int
    after: int


async def run_alone(
    registry: Registry, orders: Orders, told_to_stop: asyncio.Event, report: Report
) -> None:
    """Run the segment to its rest, or until told to stop; then effects under way finish.

    Raises:
        UnavailableError: the database does not answer; nothing was begun.
    """
    tag = new_tag()
    lease = Lease(orders.url, orders.version, new_executor_id(tag), on_lost=told_to_stop.set)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            await open_pool(orders.url, 1, 8, application_name=f"perdure {tag}")
        )
        await stack.enter_async_context(lease)
        name = session_name("perdure-ledger", lease.executor_id)
        writer = await stack.enter_async_context(LedgerWriter(orders.url, name))
        only = Only(orders.after, lambda epoch: report("began", epoch))
        runner = SegmentRunner(registry, pool, writer, lease.executor_id, lease=lease, only=only)
        heard = {CANCEL: Cancellations(runner).heard}
        await stack.enter_async_context(Listener(orders.url, heard))
        running = asyncio.create_task(runner.run(UUID(orders.run_id), orders.seq))
        telling = asyncio.create_task(told_to_stop.wait())
        try:
            await asyncio.wait({running, telling}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                runner.stop()
                await runner.quiet()
            report("ended", running.result() if running.done() else STOPPED)
        finally:
            for task in (running, telling):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
