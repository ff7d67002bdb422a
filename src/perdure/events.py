"""The log of a run: every change of it, numbered without gaps, read in order, followed as it grows.

Rows are written by ``perdure.add_events`` (SQL) in the transaction of the change they tell of. It
holds the row of the run's head to the end of that transaction, so numbers commit in their order:
whoever has read up to n finds nothing smaller later, and a page has no hole that is filled behind
its reader. Notifications only wake readers; what there is to read is in the table, and they look
for themselves every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError, UnavailableError
from perdure.notify import FALLBACK_SECONDS, Feed
from perdure.times import rfc3339

_SQL = load_sql("perdure", "events.sql")

PAGE: Final = 100
"""How many events are read at once; a slow reader costs no more memory than these."""
TERMINAL: Final = frozenset({"run.completed", "run.failed", "run.cancelled"})
"""What a log ends with. A failed run that is resumed goes on with ``run.queued``."""
_LAST: Final = 2**31 - 1

_STATUS_AFTER: Final = {
    "run.queued": "queued",
    "run.started": "running",
    "run.recovered": "running",
    "run.resumed": "running",
    "run.interrupted": "interrupted",
    "run.completed": "completed",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a run.

    ``id`` rises by one within the run; ``event`` says what happened (``tool.started``, …) and
    ``data`` about what: ids, names and short texts. ``created_at`` is RFC 3339 in UTC.
    """

    id: int
    event: str
    run_id: str
    created_at: str
    data: dict[str, Any]

    @property
    def ends(self) -> bool:
        """Whether the run has ended with it."""
        return self.event in TERMINAL

    def as_object(self) -> dict[str, Any]:
        """Return it as the API shows it: one object, ``data`` beside the rest."""
        return {
            "id": self.id,
            "object": "event",
            "event": self.event,
            "run_id": self.run_id,
            "created_at": self.created_at,
            **self.data,
        }

    @classmethod
    def of(cls, shown: dict[str, Any]) -> Event:
        """Return the event that ``as_object`` made ``shown`` of."""
        data = {k: v for k, v in shown.items() if k not in _FRAME}
        return cls(shown["id"], shown["event"], shown["run_id"], shown["created_at"], data)


_FRAME: Final = frozenset({"id", "object", "event", "run_id", "created_at"})


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in order. ``has_more``: others are there already; ``over``: none will come."""

    events: list[Event]
    has_more: bool
    over: bool


def status_after(status: str, event: str) -> str:
    """Return the status of a run that had ``status`` and to which ``event`` happened."""
    return _STATUS_AFTER.get(event, status)


async def read_events(
    conn: Connection, *, tenant_id: UUID, run_id: UUID, after: int = 0, limit: int = PAGE
) -> EventPage:
    """Return up to ``limit`` events of a run that come after the number ``after``, in one query.

    Raises:
        NotFoundError: the tenant has no such run.
    """
    cursor = await conn.execute(
        _SQL["page"],
        {
            "tenant_id": tenant_id,
            "run_id": run_id,
            "after": min(max(after, 0), _LAST),
            "fetch": limit + 1,
        },
    )
    rows = await cursor.fetchall()
    if not rows:
        raise NotFoundError("run", run_id)
    events = [_event(jsonsafe.loads(row["event"])) for row in rows if row["event"] is not None]
    has_more = len(events) > limit
    return EventPage(events[:limit], has_more, not has_more and rows[0]["last_kind"] in TERMINAL)


def _event(row: dict[str, Any]) -> Event:
    return Event(row["seq"], row["kind"], row["run_id"], rfc3339(row["created_at"]), row["data"])


Look = Callable[[int], Awaitable[EventPage]]
"""Reads the page after a number; borrows a connection for as long as that takes."""


async def follow(
    look: Look, feed: Feed, run_id: UUID, *, after: int = 0, idle_seconds: float | None = None
) -> AsyncGenerator[list[Event], None]:
    """Give the events after the number ``after``, page by page, as they come, to the run's end.

    Each page is read when the one before has been taken. An empty list says that nothing came for
    ``idle_seconds``. Ends after the terminal event; or when the run is deleted or ``feed`` closes.
    A database that is away is waited for, once the first page was read.

    Raises:
        NotFoundError, UnavailableError: what the first look raised.
    """
    loop = asyncio.get_running_loop()
    async with feed.expect(str(run_id)) as woken:
        said = loop.time()
        first = True
        while True:
            woken.clear()
            try:
                page = await look(after)
            except (NotFoundError, UnavailableError) as error:
                if first:
                    raise
                if isinstance(error, NotFoundError):
                    return
                page = EventPage([], has_more=False, over=False)
            first = False
            if page.events:
                after = page.events[-1].id
                yield page.events
                said = loop.time()
            if page.over:
                return
            if page.has_more:
                continue
            if feed.closed:
                return
            wait = FALLBACK_SECONDS
            if idle_seconds is not None:
                wait = min(wait, said + idle_seconds - loop.time())
            try:
                async with asyncio.timeout(max(wait, 0)):
                    await woken.wait()
            except TimeoutError:
                if idle_seconds is not None and loop.time() >= said + idle_seconds:
                    yield []
                    said = loop.time()
