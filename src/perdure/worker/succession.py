"""A worker, and another one in its place each time one is lost.

A process that was paused for longer than its lease finds its segments taken. What ran them ends,
and a worker under a new id takes up new ones, so that a program that goes on has one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from perdure.errors import PerdureError
from perdure.tasks import first_of
from perdure.worker.worker import Worker

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0


@asynccontextmanager
async def succession(make: Callable[[], Worker]) -> AsyncIterator[None]:
    """Run a worker that ``make`` gives inside the block, and the next one when it is lost.

    Raises:
        PerdureError: the first one could not start.
    """
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ending = asyncio.Event()
    reigning = asyncio.create_task(_reign(make, started, ending), name="perdure-succession")
    try:
        await asyncio.shield(started)
        yield
    finally:
        ending.set()
        await reigning


async def _reign(
    make: Callable[[], Worker], started: asyncio.Future[None], ending: asyncio.Event
) -> None:
    while not ending.is_set():
        try:
            async with make() as worker:
                if not started.done():
                    started.set_result(None)
                await first_of(worker.lost.wait(), ending.wait())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
                return
            if not isinstance(error, Exception):
                raise
            known = isinstance(error, PerdureError)
            _LOG.error("No new worker could start yet: %s", error, exc_info=not known)
            await asyncio.sleep(_RETRY_SECONDS)
