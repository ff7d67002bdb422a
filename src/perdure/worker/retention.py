"""What is kept no longer is deleted as PERDURE_RETENTION says, by one worker at a time.

Without it runs are kept for ever. Either way workflows of ours that ended a week ago are forgotten,
in DBOS: their rows say nothing that is not in ours.
"""

from __future__ import annotations

import asyncio
import logging

from perdure.config import Settings
from perdure.db import connect, in_words, load_sql
from perdure.runs.dbos_inside.forgetting import forget_ended
from perdure.runs.keeping.events import drop_empty_months, prune_events
from perdure.runs.keeping.policy import Retention, parse_retention
from perdure.runs.keeping.pruning import Archive, prune

_SQL = load_sql("perdure.worker", "retention.sql")
_TAKE = _SQL["take"]
_NOW = _SQL["a_week_ago"]
_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 3600.0
FIRST_SECONDS = 60.0
"""A deployment that has just come up has other things to do."""


class Retaining:
    """The standing policy of a worker."""

    def __init__(self, url: str, settings: Settings) -> None:
        """Read the policy.

        Raises:
            ConfigurationError: it cannot be meant.
        """
        self._url = url
        self._retention: Retention = parse_retention(settings.retention)
        self._archive = None if settings.archive is None else Archive(settings.archive, True)

    async def keep(self) -> None:
        """Apply the policy in a minute and then every hour, until cancelled."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            try:
                await self.apply()
            except Exception as error:  # noqa: BLE001 - the next hour is another try
                _LOG.warning("Deleting what is kept no longer stopped: %s", in_words(error))
            await asyncio.sleep(INTERVAL_SECONDS)

    async def apply(self) -> bool:
        """Apply it once; False where another worker is at it."""
        # A session of its own: the lock is held for as long as it takes, and goes with it.
        async with await connect(self._url, application_name="perdure retention") as conn:
            [taken] = await (await conn.execute(_TAKE)).fetchall()
            if not taken["taken"]:
                return False
            if self._retention.events is not None:
                events = await prune_events(conn, self._retention.events)
                if events.months or events.runs:
                    _LOG.info("Events were deleted: %s", events.as_dict())
            if self._retention.runs:
                pruned = await prune(
                    conn, self._url, self._retention.runs, by=None, archive=self._archive
                )
                if pruned.runs:
                    _LOG.info("Runs were deleted: %s", pruned.as_dict())
                await drop_empty_months(conn)
            [row] = await (await conn.execute(_NOW)).fetchall()
            while await asyncio.to_thread(forget_ended, self._url, row["before"]):
                pass
        return True
