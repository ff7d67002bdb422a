"""Reads the events of all runs of a tenant, once for all who follow them in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from perdure.db import Connection
from perdure.errors import UnavailableError
from perdure.events.cursor import Cursor, Snapshot
from perdure.events.topic import Ring
from perdure.events.windows import (
    EVERYTHING,
    Anywhere,
    Only,
    Window,
    read_window,
    where_it_is,
)

_PACE_SECONDS: Final = 0.1
"""How far apart two looks at a tenant are at least: it is not streamed text that one waits for."""
_ROOM: Final = 1 << 20
_RETRY_SECONDS: Final = 0.5
_PAGES_AT_ONCE: Final = 2
"""How many readers catch up at the same time: what was written since is sorted for each page."""


class Tenant(Ring[Anywhere]):
    """The newest events of a tenant's runs, numbered within this process."""

    def __init__(self) -> None:
        """Begin nowhere: the first look says where."""
        super().__init__(0)
        self.cursor: Cursor | None = None
        self.begun = self.done = 0
        self.looked = asyncio.Event()
        """Set when a look at it is over; another one each time."""

    def hear(self, found: Window) -> None:
        """Take what a look gave, and wake who waits for it."""
        self.add(found.entries, room=_ROOM)
        self.cursor, self.done = found.cursor, self.begun
        looked, self.looked = self.looked, asyncio.Event()
        looked.set()
        if found.entries:
            self.wake()


@dataclass(frozen=True, slots=True)
class Given:
    """Events for a reader, maybe none; who has taken them stands at ``cursor``."""

    entries: list[Anywhere]
    cursor: Cursor


class Everywhere:
    """Gives the events of all runs of a tenant to all who follow them in this process."""

    def __init__(
        self, read: Callable[[], AbstractAsyncContextManager[Connection]], called: asyncio.Event
    ) -> None:
        """Take what gives a connection, and what is set when ``look`` is to be called."""
        self._read = read
        self._called = called
        self._pages = asyncio.Semaphore(_PAGES_AT_ONCE)
        self._wanted = False
        self._next_look = 0.0
        self.topics: dict[UUID, Tenant] = {}
        self.closed = False

    def hear(self) -> bool:
        """Note that there may be something new of any run; whether somebody cares."""
        self._wanted = bool(self.topics)
        return self._wanted

    def close(self) -> None:
        """Let every reader end."""
        self.closed = True
        for topic in self.topics.values():
            topic.looked.set()
            topic.wake()

    async def look(self) -> None:
        """Read what is new of each tenant, if there may be something and it is time.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        if not self._wanted:
            return
        loop = asyncio.get_running_loop()
        wait = self._next_look - loop.time()
        if wait > 0:
            loop.call_later(wait, self._called.set)
            return
        self._next_look = loop.time() + _PACE_SECONDS
        self._wanted = False
        for tenant_id, topic in list(self.topics.items()):
            topic.begun += 1
            before = topic.cursor
            async with self._read() as conn:
                cursor = before or await where_it_is(conn)
                found = await read_window(conn, tenant_id, cursor, number=topic.position)
            if topic.cursor is not before:
                # Somebody else has looked, whose cancellation came late.
                continue
            topic.hear(found)
            if found.has_more:
                self._wanted, self._next_look = True, 0.0
                self._called.set()

    async def follow(
        self,
        tenant_id: UUID,
        cursor: Cursor,
        *,
        only: Only = EVERYTHING,
        idle_seconds: float | None = None,
    ) -> AsyncGenerator[Given, None]:
        """Give what is wanted of what happens in all runs of a tenant, from ``cursor`` on.

        Nothing is given, but where one stands, when nothing came for ``idle_seconds``. Ends when
        ``closed``. A database that is away is waited for.
        """
        with self._joined(tenant_id) as topic:
            while (meeting := await self._meet(topic)) is not None:
                number, snapshot = meeting
                while cursor.seen != snapshot or cursor.window is not None:
                    found = await self._page(tenant_id, cursor, snapshot, only)
                    cursor = found.cursor
                    if found.entries:
                        yield Given(found.entries, cursor)
                    del found
                while (news := topic.take(number)) is not None:
                    if news:
                        number, cursor = news[-1].number, news[-1].cursor
                        wanted = [entry for entry in news if only.lets(entry)]
                        if wanted:
                            yield Given(wanted, cursor)
                        del wanted
                        continue
                    if self.closed:
                        return
                    if topic.cursor is not None:
                        cursor = topic.cursor
                    try:
                        async with asyncio.timeout(idle_seconds):
                            await topic.changed.wait()
                    except TimeoutError:
                        yield Given([], cursor)

    @contextmanager
    def _joined(self, tenant_id: UUID) -> Iterator[Tenant]:
        topic = self.topics.setdefault(tenant_id, Tenant())
        topic.readers += 1
        try:
            yield topic
        finally:
            topic.readers -= 1
            if not topic.readers:
                del self.topics[tenant_id]

    async def _meet(self, topic: Tenant) -> tuple[int, Snapshot] | None:
        """Return where a topic is, between two windows, after a look that begins from now on.

        An earlier one may have shown less than somebody has seen who comes from another process.
        """
        look = topic.begun + 1
        self._wanted = True
        self._called.set()
        while topic.done < look or topic.cursor is None or topic.cursor.window is not None:
            if self.closed:
                return None
            await topic.looked.wait()
        return topic.position, topic.cursor.seen

    async def _page(self, tenant_id: UUID, cursor: Cursor, until: Snapshot, only: Only) -> Window:
        while True:
            try:
                async with self._pages, self._read() as conn:
                    return await read_window(conn, tenant_id, cursor, until=until, only=only)
            except UnavailableError:
                if self.closed:
                    return Window([], Cursor(until), has_more=False)
                await asyncio.sleep(_RETRY_SECONDS)
