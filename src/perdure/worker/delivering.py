"""Deliveries to webhooks: each attempt is one DBOS workflow, ``<delivery_id>:<attempt>``.

A delivery waits as a row, ``due_at`` on the database's clock. What is due is enqueued by whoever
looks first, claimed by any worker, and sent; what becomes of it is recorded with when to try again,
so that no workflow ever sleeps.

Crash points.

* Before it is sent, or sent and not recorded: the workflow is PENDING under a dead executor and is
  given back; it is sent again, with the same id and the same bytes.
* Recorded, before DBOS records success: it begins again, finds the delivery past this attempt, and
  nothing happens.
* A workflow that somebody deleted, ended or moved, or a claim whose answer was lost: an attempt of
  which nothing was heard for ``LOST_SECONDS`` is followed by another.

So each delivery is made at least once, and a receiver tells repetitions by the id.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg

from perdure.config import Settings
from perdure.db import Pool, in_words, is_infrastructure, load_sql
from perdure.errors import ConfigurationError, NotFoundError
from perdure.runs.dbos_inside.statements import (
    ENQUEUE_DELIVERIES,
    forget_deliveries,
    lost_deliveries,
)
from perdure.webhooks import deliveries
from perdure.webhooks.deliveries import Begun
from perdure.webhooks.schedule import DELAYS_SECONDS, JITTER, Sent, judge
from perdure.webhooks.sealing import unseal
from perdure.webhooks.sending import Sender
from perdure.webhooks.signing import headers
from perdure.worker.telling import Teller

_SQL = load_sql("perdure.worker", "delivering.sql")
_ENQUEUE_DUE = f"{_SQL['enqueue_due']}\n{ENQUEUE_DELIVERIES}"
_NEXT_DUE = _SQL["next_due"]
_TRY_AGAIN = _SQL["try_again"]
_GIVE_UP = _SQL["give_up"]
_PURGE = _SQL["purge"]
_PURGE_LINKS = _SQL["purge_links"]
_LOG = logging.getLogger(__name__)

AT_ONCE_PER_WEBHOOK = 8
"""So many attempts at deliveries to one webhook are under way at once, of all workers together."""
LONGEST_SLEEP_SECONDS = 15.0
LOST_SECONDS = 120.0
"""After how long without a word an attempt, which takes seconds, is taken for lost."""
LOOK_FOR_LOST_SECONDS = 30.0
KEPT_SECONDS = 30 * 24 * 3600.0
"""How long deliveries are kept once they are over, and links once their time is."""
PURGE_SECONDS = 3600.0
_BACKOFF_SECONDS = (0.1, 0.25, 0.5, 1.0)
_RETRY_SECONDS = 1.0


@dataclass(eq=False)
class Deliverer:
    """Sends what is due, for one worker."""

    pool: Pool
    settings: Settings
    sender: Sender
    delays: tuple[float, ...] = DELAYS_SECONDS
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something may be due."""

    def __post_init__(self) -> None:
        self._teller = Teller(self.settings)

    def loops(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what to run, each until cancelled."""
        return (
            self._keep_enqueuing(),
            _repeat(self.try_lost_again, LOOK_FOR_LOST_SECONDS),
            _repeat(self.purge, PURGE_SECONDS),
        )

    def wake(self, _: str = "") -> None:
        """Look now for what is due."""
        self.woken.set()

    async def run(self, delivery_id: UUID, attempt: int) -> str:
        """Make an attempt and record what became of it; returns that as a word.

        Trouble with the database is waited out. What it is told may be cut off at any point.
        """
        begun = await self._with_patience(lambda: self._begin(delivery_id, attempt))
        if begun is None:
            return "over"
        try:
            sent = await self._send(delivery_id, begun)
        except Exception as mistake:  # noqa: BLE001 - it is logged
            # Most likely one of ours: it must not be made for ever.
            _LOG.exception("Delivery %s could not be made.", delivery_id)
            sent = Sent(0, error=f"It could not be made: {mistake}")
        if sent is None:
            return "gone"
        verdict = judge(sent, begun.tries, self._jittered())

        async def finish() -> bool:
            async with self.pool.connection() as conn:
                return await deliveries.finish(conn, delivery_id, attempt, sent, verdict)

        if verdict.disable:
            _LOG.warning("Webhook %s answered 410 and is disabled.", begun.webhook_id)
        counted = await self._with_patience(finish)
        # There is room for another one to the same webhook.
        self.wake()
        return verdict.status if counted else "late"

    async def _begin(self, delivery_id: UUID, attempt: int) -> Begun | None:
        async with self.pool.connection() as conn:
            return await deliveries.begin(conn, delivery_id, attempt)

    async def _send(self, delivery_id: UUID, begun: Begun) -> Sent | None:
        """Send what is to be sent; None: what it would tell of is gone."""
        try:
            kept = [begun.secret, *([begun.old_secret] if begun.old_secret is not None else [])]
            keys = self.settings.encryption_keys
            secrets = [unseal(one, begun.webhook_id, keys) for one in kept]
            text = await self._with_patience(lambda: self._text(delivery_id, begun))
        except ConfigurationError as error:
            _LOG.warning("Delivery %s: %s", delivery_id, error)
            return Sent(0, error=error.message)
        if text is None:
            return None
        signed = headers(delivery_id, begun.now, text, secrets)
        return await self.sender.post(begun.url, text.encode(), signed)

    async def _text(self, delivery_id: UUID, begun: Begun) -> str | None:
        async with self.pool.connection() as conn, conn.transaction():
            text = begun.payload or await deliveries.lock_payload(conn, delivery_id)
            if text is None:
                try:
                    text = await self._teller.tell(conn, delivery_id, begun)
                except NotFoundError as error:
                    await conn.execute(_GIVE_UP, {"id": delivery_id, "error": error.message})
                    return None
                await deliveries.keep_payload(conn, delivery_id, text)
            return await self._teller.complete(conn, delivery_id, text)

    async def _with_patience(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        attempt = 0
        while True:
            try:
                return await ask()
            except Exception as error:
                if not is_infrastructure(error):
                    raise
                pause = _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)]
                attempt += 1
                _LOG.warning("A delivery waits for the database: %s", in_words(error))
                await asyncio.sleep(pause)

    def _jittered(self) -> tuple[float, ...]:
        stretch = 1 + random.random() * JITTER  # noqa: S311 - it keeps no secret
        return tuple(delay * stretch for delay in self.delays)

    async def enqueue_due(self) -> int:
        """Enqueue what is due and has room; returns how many attempts that are."""
        async with self.pool.connection() as conn:
            cursor = await conn.execute(_ENQUEUE_DUE, {"at_once": AT_ONCE_PER_WEBHOOK})
            return cursor.rowcount

    async def try_lost_again(self, seconds: float = LOST_SECONDS) -> int:
        """Make attempts due anew of which nothing was heard for so long; returns how many."""
        async with self.pool.connection() as conn:
            lost = await lost_deliveries(conn, seconds=seconds)
            if not lost:
                return 0
            cursor = await conn.execute(
                _TRY_AGAIN,
                {
                    "ids": [delivery_id for delivery_id, _ in lost],
                    "attempts": [attempt for _, attempt in lost],
                    "seconds": seconds,
                },
            )
            again = await cursor.fetchall()
        for row in again:
            _LOG.warning("Nothing was heard of an attempt at delivery %s: trying again.", row["id"])
        self.wake()
        return len(again)

    async def purge(self) -> None:
        """Delete deliveries that ended a month ago with their workflows, and links."""
        async with self.pool.connection() as conn:
            await conn.execute(_PURGE_LINKS, {"seconds": KEPT_SECONDS})
        while True:
            async with self.pool.connection() as conn, conn.transaction():
                cursor = await conn.execute(_PURGE, {"seconds": KEPT_SECONDS})
                ids = [row["workflow_id"] for row in await cursor.fetchall()]
                if not ids:
                    return
                await forget_deliveries(conn, ids)

    async def _keep_enqueuing(self) -> None:
        """Enqueue what is due, sleep until the next is or ``woken`` is set, until cancelled."""
        while True:
            self.woken.clear()
            try:
                await self.enqueue_due()
                seconds = await self._seconds_to_next()
            except psycopg.Error as error:
                _LOG.warning("Looking for deliveries that are due failed: %s", in_words(error))
                seconds = _RETRY_SECONDS
            try:
                async with asyncio.timeout(min(max(seconds, 0.01), LONGEST_SLEEP_SECONDS)):
                    await self.woken.wait()
            except TimeoutError:
                continue

    async def _seconds_to_next(self) -> float:
        async with self.pool.connection() as conn:
            row = await (await conn.execute(_NEXT_DUE)).fetchone()
        seconds = row["seconds"] if row is not None else None
        return LONGEST_SLEEP_SECONDS if seconds is None else float(seconds)


async def _repeat(duty: Callable[[], Awaitable[object]], seconds: float) -> None:
    while True:
        try:
            await duty()
        except Exception as error:  # noqa: BLE001 - it is looked at again
            mistake = None if is_infrastructure(error) else error
            _LOG.warning("Looking after deliveries failed: %s", in_words(error), exc_info=mistake)
        await asyncio.sleep(seconds)
