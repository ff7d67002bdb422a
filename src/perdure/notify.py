"""Waking up: one connection that LISTENs, and tasks that wait for a payload.

A notification says "look again", never what changed: whoever is woken reads the tables. So a
lost one costs a moment and no truth. Two things make up for losses: after every (re)connection
each channel is called with an empty payload, and waits look again every few seconds on their own.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, sql

from perdure.db import connection_options, in_words
from perdure.tasks import end

logger = logging.getLogger(__name__)

SEGMENTS = "perdure_segments"
"""A segment was enqueued; the payload is empty. Wakes workers."""
DUE = "perdure_due"
"""A delayed start was accepted; the payload is empty. Wakes who enqueues what is due."""
RUNS = "perdure_runs"
"""A run's status changed; the payload is the run's id."""
CANCEL = "perdure_cancel"
"""A running run shall stop; the payload is the run's id."""
INPUT = "perdure_input"
"""A message was added to a run; the payload is the run's id."""
POLICIES = "perdure_policies"
"""A tenant's policies changed; the payload is its id, a colon and the new revision."""

BUDGETS = "perdure_budgets"
"""A call ended that others may wait for, as their budgets were reserved; the payload is empty."""

INTERRUPTIONS = "perdure_interruptions"
"""A question was asked or closed; the payload is the id of its tenant."""
DELIVERIES_DUE = "perdure_deliveries_due"
"""A webhook is to be told of something; the payload is empty. Wakes who enqueues what is due."""
DELIVERIES = "perdure_deliveries"
"""An attempt at a delivery was enqueued; the payload is empty. Wakes workers."""
DELIVERIES_DONE = "perdure_deliveries_done"
"""An attempt at a delivery is over; the payload is the delivery's id."""
EVENTS = "perdure_events"
"""Events were written; the payload is the run's id, or several joined by commas. Many: only who has
readers listens."""
READERS = "perdure_readers"
"""Somebody reads events; the payload is empty. Workers announce what they write for a while."""

FALLBACK_SECONDS = 5.0
"""How long a wait trusts notifications alone before it looks for itself."""

_FIRST_BACKOFF, _LAST_BACKOFF = 0.1, 1.0

Callback = Callable[[str], None]
T = TypeVar("T")


class Listener:
    """LISTENs on channels and hands each payload to that channel's callback.

    ``async with Listener(url, {channel: callback})`` enters once the first attempt to connect is
    over; a database that is away is tried again with growing pauses, for as long as the block
    lasts. After each connection every callback is called with ``""``: something may have been
    missed, look again. Callbacks run on the event loop and must not block; what one raises is
    logged and stops nothing.
    """

    def __init__(self, url: str, callbacks: Mapping[str, Callback]) -> None:
        """Take the database's URL and the callback of each channel.

        Raises:
            ConfigurationError: the URL cannot be parsed.
        """
        self._url = url
        self._options: dict[str, Any] = {**connection_options(url, "perdure-listener")}
        self._callbacks = dict(callbacks)
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Listener:
        self._task = asyncio.create_task(self._run(), name="perdure-listener")
        try:
            await self._tried.wait()
        except BaseException:
            # Nobody will leave what was never entered.
            await end(self._task)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            await end(self._task)

    async def _run(self) -> None:
        backoff = _FIRST_BACKOFF
        while True:
            try:
                async with await AsyncConnection.connect(
                    self._url, autocommit=True, **self._options
                ) as conn:
                    for channel in self._callbacks:
                        await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                    backoff = _FIRST_BACKOFF
                    for channel in self._callbacks:
                        self._call(channel, "")
                    self._tried.set()
                    async for notification in conn.notifies():
                        self._call(notification.channel, notification.payload)
            except (psycopg.Error, OSError) as error:
                logger.warning(
                    "lost the connection that listens for notifications, trying again in"
                    " %.1f s: %s",
                    backoff,
                    in_words(error),
                )
            except Exception:
                logger.exception("listening for notifications failed, trying again")
            self._tried.set()
            # Jitter, so that the processes of a fleet do not all return at the same moment.
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311
            backoff = min(backoff * 2, _LAST_BACKOFF)

    def _call(self, channel: str, payload: str) -> None:
        try:
            self._callbacks[channel](payload)
        except Exception:
            logger.exception("callback of channel %s failed for payload %r", channel, payload)


class Waiters:
    """Tasks of this process that wait for a payload: the id of what changed, on any channel.

    ``waiters.notify`` is the callback to give to a ``Listener``; ``waiters.callbacks()`` are those
    of all channels with such payloads. An empty payload wakes all.
    """

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}
        self._ending = False

    def begin(self) -> None:
        """Let waits take their time, from now on."""
        self._ending = False

    def end(self) -> None:
        """Let each wait that has a time look a last time and return: the process is to stop."""
        self._ending = True
        self.notify("")

    def callbacks(self) -> dict[str, Callback]:
        """Return what to give to a ``Listener``, to wake whoever waits for anything."""
        return dict.fromkeys((RUNS, INTERRUPTIONS, DELIVERIES_DONE), self.notify)

    def notify(self, payload: str) -> None:
        """Wake who waits for ``payload``; everybody, where it is empty."""
        keys = [payload] if payload else list(self._events)
        for key in keys:
            for event in self._events.get(key, ()):
                event.set()

    @asynccontextmanager
    async def expect(self, key: str) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set by each notification for ``key`` within the block.

        Enter first and read the tables then, or a change in between is missed.
        """
        event = asyncio.Event()
        self._events.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._events[key]
            waiting.discard(event)
            if not waiting:
                del self._events[key]

    async def until(
        self, key: str, look: Callable[[], Awaitable[T | None]], *, seconds: float | None = None
    ) -> T | None:
        """Call ``look`` now and after every notification for ``key`` until it gives a value.

        Looks at least every ``FALLBACK_SECONDS``, so that a lost notification delays but never
        strands. After ``seconds`` (None: never), or at the ``end``, it looks a last time and
        returns what that gave.
        """
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        async with self.expect(key) as event:
            while True:
                event.clear()
                found = await look()
                remaining = FALLBACK_SECONDS if deadline is None else deadline - loop.time()
                ending = self._ending and deadline is not None
                if found is not None or remaining <= 0 or ending:
                    return found
                try:
                    async with asyncio.timeout(min(remaining, FALLBACK_SECONDS)):
                        await event.wait()
                except TimeoutError:
                    continue
