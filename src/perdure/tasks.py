"""Tasks that run until they are told to end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

__all__ = ["end"]

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
