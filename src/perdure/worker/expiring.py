"""Questions whose time is over, and reminders: done when they are due, by whichever worker looks.

The times are rows, on the database's clock; this loop only sleeps until the next one.
"""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool, in_words
from perdure.runs.overdue import expire_due, remind_due, seconds_to_next

_LOG = logging.getLogger(__name__)
LONGEST_SLEEP_SECONDS = 5.0
_SHORTEST_SLEEP_SECONDS = 0.25
"""Also while something is due that somebody else has hold of."""
_RETRY_SECONDS = 1.0


async def keep_expiring(pool: Pool, woken: asyncio.Event) -> None:
    """Do what is due, sleep until the next is or ``woken`` is set, until cancelled."""
    while True:
        woken.clear()
        try:
            await expire_due(pool)
            await remind_due(pool)
            next_one = await seconds_to_next(pool)
            seconds = LONGEST_SLEEP_SECONDS if next_one is None else next_one
        except psycopg.Error as error:
            _LOG.warning("Looking for what is overdue failed: %s", in_words(error))
            seconds = _RETRY_SECONDS
        try:
            pause = min(max(seconds, _SHORTEST_SLEEP_SECONDS), LONGEST_SLEEP_SECONDS)
            async with asyncio.timeout(pause):
                await woken.wait()
        except TimeoutError:
            continue
