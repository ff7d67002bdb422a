"""Reads the events of all who follow runs in this process.

One task reads, while somebody follows: after notifications, which it lets gather for a moment, it
asks for what is new of all runs that were named in one query, and keeps it with each run (a
``Topic``) for those who follow it to take. A reader is a number. One that is too far back, as it
has just come or is slow, reads pages of the table until it has caught up.

Notifications only say "look". Whatever becomes of them, of the connection they come by and of
those who send them, all runs that are followed are looked at every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Final
from uuid import UUID

from psycopg_pool import PoolClosed

from perdure import notify
from perdure.db import Connection, Pool
from perdure.errors import NotFoundError, UnavailableError
from perdure.events.event import EventPage
from perdure.events.everywhere import Everywhere
from perdure.events.reading import read_events, read_news, say_that_somebody_reads
from perdure.events.topic import Entry, Topic
from perdure.notify import EVENTS, Listener
from perdure.tasks import end

_LOG = logging.getLogger(__name__)

PACE_SECONDS: Final = 0.02
"""How far apart two looks are at least: under load each one gives more."""
LINGER_SECONDS = 10.0
"""How long it goes on listening when nobody reads any more: readers reconnect."""
_PRESENCE_SECONDS: Final = 10.0
"""How often writers are told that somebody reads; they believe it for thrice as long."""
_SETTLING_SECONDS, _SETTLING_PACE = 1.0, 0.1
"""How long it looks by itself, and how often, until all writers know that somebody reads."""
_DATABASE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.5
_AT_ONCE: Final = 200
"""Of how many runs one query reads."""
_PAGES_AT_ONCE: Final = 4
"""How many readers read the table at the same time: the others would take connections from all."""
_ROOM: Final = 32 << 20
_LEAST_ROOM, _MOST_ROOM = 8 << 10, 256 << 10
"""How many bytes all topics keep, and what one does at least and at most."""


class Hub:
    """Gives the events of runs to all who follow them in this process."""

    def __init__(self, pool: Callable[[], Pool]) -> None:
        """Take what gives the open pool to read by."""
        self._pool = pool
        self._url: str | None = None
        self._readers = 0
        self._topics: dict[str, Topic] = {}
        self._named: set[str] = set()
        self._all = False
        self._called = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._present_at = self._settled_at = self._looked_at = float("-inf")
        self._pages = asyncio.Semaphore(_PAGES_AT_ONCE)
        self.everywhere = Everywhere(self.read, self._called)
        """Gives the events of all runs of a tenant, within ``present``."""
        self.closed = False
        """Whether readers are to end what they read to now, as the process stops."""

    @asynccontextmanager
    async def serving(self, url: str) -> AsyncIterator[Hub]:
        """Listen in the database of ``url`` within the block, whenever somebody reads.

        Outside of one readers are only given what is looked for every few seconds.
        """
        self._url = url
        self.closed = self.everywhere.closed = False
        try:
            yield self
        finally:
            self.close()
            self._url = None
            if (working := self._let_go()) is not None:
                await end(working)

    def close(self) -> None:
        """Let every reader end."""
        self.closed = True
        for topic in self._topics.values():
            topic.wake()
        self.everywhere.close()

    @property
    def idle(self) -> bool:
        """Whether nobody reads, and nothing is kept for anybody."""
        return not (self._readers or self._topics or self.everywhere.topics or self._working)

    def read(self) -> AbstractAsyncContextManager[Connection]:
        """Borrow a connection for a short read; trouble is an UnavailableError."""
        return self._pool().prompt(_DATABASE_SECONDS, answer_within=_DATABASE_SECONDS)

    async def page(self, tenant_id: UUID, run_id: UUID, after: int) -> EventPage:
        """Return the events of a run behind the number ``after``, as far as one page goes.

        Raises:
            NotFoundError: the tenant has no such run.
            UnavailableError: the database cannot be reached.
        """
        async with self._pages, self.read() as conn:
            return await read_events(conn, tenant_id=tenant_id, run_id=run_id, after=after)

    async def follow(
        self,
        tenant_id: UUID,
        run_id: UUID,
        *,
        after: int = 0,
        first: EventPage | None = None,
        idle_seconds: float | None = None,
    ) -> AsyncGenerator[list[Entry], None]:
        """Give the events behind the number ``after`` as they come, to the run's end.

        ``first`` is the page behind it, for who has read it. An empty list says that nothing came
        for ``idle_seconds``. Ends after the terminal event; or when the run is deleted or the hub
        closes. A database that is away is waited for, once the first page was read.

        Raises:
            NotFoundError, UnavailableError: what reading the first page raised.
        """
        page = first or await self.page(tenant_id, run_id, after)
        with self.present():
            while True:
                if page.events:
                    after = page.events[-1].id
                    yield [Entry(event.id, event) for event in page.events]
                    # Who waits for more holds nothing of what there was.
                    page.events.clear()
                if page.over:
                    return
                if not page.has_more:
                    with self._joined(str(run_id), min(after, page.last)) as topic:
                        while (found := topic.take(after)) is not None:
                            if found:
                                after = found[-1].number
                                yield found
                                continue
                            if (
                                self.closed
                                or topic.gone
                                or (topic.over and after == topic.position)
                            ):
                                return
                            if not await _within(idle_seconds, topic.changed.wait()):
                                yield []
                # It came a moment ago, or was too slow for what is kept.
                while not self.closed:
                    try:
                        page = await self.page(tenant_id, run_id, after)
                        break
                    except NotFoundError:
                        return
                    except UnavailableError:
                        await asyncio.sleep(_RETRY_SECONDS)
                else:
                    return

    @contextmanager
    def _joined(self, run_id: str, position: int) -> Iterator[Topic]:
        topic = self._topics.get(run_id)
        if topic is None:
            topic = self._topics[run_id] = Topic(position)
            # Something may have come since the page was read.
            self._hear(run_id)
        topic.readers += 1
        try:
            yield topic
        finally:
            topic.readers -= 1
            if not topic.readers:
                del self._topics[run_id]
                self._named.discard(run_id)

    @contextmanager
    def present(self) -> Iterator[None]:
        """Be a reader within the block: what has to run for readers does."""
        self._readers += 1
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if (self._working is None or self._working.done()) and not self.closed:
            self._working = asyncio.create_task(self._work(self._url), name="perdure-events")
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers and self._working is not None:
                loop = asyncio.get_running_loop()
                self._lingering = loop.call_later(LINGER_SECONDS, self._let_go)

    def _let_go(self) -> asyncio.Task[None] | None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        # Whoever comes now begins anew, and does not wait for what is ending.
        working, self._working = self._working, None
        if working is not None:
            working.cancel()
        return working

    def _hear(self, payload: str) -> None:
        """Note of which runs there may be something new: ids joined by commas, or of any."""
        if payload:
            self._named.update(self._topics.keys() & payload.split(","))
        else:
            self._all = True
        if self._named or self._all or self.everywhere.hear():
            self._called.set()

    async def _work(self, url: str | None) -> None:
        # What was read for readers before is not known to be all.
        self._all = True
        async with nullcontext() if url is None else Listener(url, {EVENTS: self._hear}):
            while self._working is asyncio.current_task():
                try:
                    await self._until_called()
                    began = asyncio.get_running_loop().time()
                    await self._look()
                    took = asyncio.get_running_loop().time() - began
                    await asyncio.sleep(max(PACE_SECONDS - took, 0))
                except UnavailableError:
                    self._all = True
                    await asyncio.sleep(_RETRY_SECONDS)
                except PoolClosed:
                    return
                except Exception:  # noqa: BLE001 - it is logged, and readers wait
                    _LOG.exception("Reading events for who follows runs failed, trying again")
                    self._all = True
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _until_called(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        pace = _SETTLING_PACE if now < self._settled_at else notify.FALLBACK_SECONDS
        seconds = self._looked_at + pace - now
        if self._readers:
            seconds = min(seconds, self._present_at + _PRESENCE_SECONDS - now)
        await _within(max(seconds, 0), self._called.wait())
        self._called.clear()
        # Also where one run is told of all the time, and another one was forgotten.
        if loop.time() >= self._looked_at + pace:
            self._all = True

    async def _look(self) -> None:
        if self._readers:
            await self._say_so()
        if self._all:
            self._named.update(self._topics)
            self.everywhere.hear()
            self._all, self._looked_at = False, asyncio.get_running_loop().time()
        named, self._named = list(self._named), set()
        try:
            while named:
                await self._look_at(named[:_AT_ONCE])
                del named[:_AT_ONCE]
        finally:
            self._named.update(named)
        await self.everywhere.look()
        if self._named:
            self._called.set()

    async def _look_at(self, named: list[str]) -> None:
        positions = {
            run_id: topic.position for run_id in named if (topic := self._topics.get(run_id))
        }
        if not positions:
            return
        async with self.read() as conn:
            found = await read_news(conn, positions)
        room = max(_LEAST_ROOM, min(_MOST_ROOM, _ROOM // max(len(self._topics), 1)))
        for run_id, news in found.items():
            topic = self._topics.get(run_id)
            # It may have begun anew while the database was asked.
            if topic is not None and topic.position == positions[run_id]:
                topic.hear(news, room=room)
                if news.has_more:
                    self._named.add(run_id)
            elif topic is not None:
                self._named.add(run_id)

    async def _say_so(self) -> None:
        """Tell writers that somebody reads, where they may not know."""
        now = asyncio.get_running_loop().time()
        if now < self._present_at + _PRESENCE_SECONDS:
            return
        async with self.read() as conn:
            await say_that_somebody_reads(conn)
        if now > self._present_at + 2 * _PRESENCE_SECONDS:
            # What is written until they have heard it is announced by nobody.
            self._settled_at = now + _SETTLING_SECONDS
        self._present_at = now


async def _within(seconds: float | None, wait: Awaitable[object]) -> bool:
    """Wait, for so many seconds at most (None: for ever); whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await wait
    except TimeoutError:
        return False
    return True
