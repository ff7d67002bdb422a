"""Tasks: ended for certain, or waited for until the first of several is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, TypeVar

__all__ = ["end", "first_of", "to_its_end"]

T = TypeVar("T")

_AGAIN_SECONDS = 0.25


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` until it has ended; what it raises but its cancellation is raised here.

    Once is not always enough: before Python 3.12 ``asyncio.wait_for``, which psycopg waits with,
    forgets a cancellation that comes at the moment the wait is over, and a loop would go on.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_SECONDS)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def first_of(*waits: Awaitable[Any]) -> int:
    """Return the place of the first that is over; those that are no task are ended."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return min(tasks.index(task) for task in done)
    finally:
        for task, wait in zip(tasks, waits, strict=True):
            if task is not wait:
                task.cancel()


async def to_its_end(work: Awaitable[T]) -> T:
    """Wait for ``work`` to its end, also when whoever waits is cancelled: then they are, after it.

    What it did is known then, where a cancellation in the middle would leave that open.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()
