"""The statements that read the logs of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError
from perdure.events.event import TERMINAL, Event, EventPage
from perdure.notify import READERS
from perdure.times import rfc3339

_SQL = load_sql("perdure.events", "reading.sql")


def with_data(statement: str) -> str:
    """Return a statement with what ``/*data*/`` stands for in it: the ``data`` of a row ``t``."""
    return statement.replace("/*data*/", _SQL["data"])


_PAGE = with_data(_SQL["page"])
_NEWS = with_data(_SQL["news"])
_SAY = _SQL["say_that_somebody_reads"]

PAGE: Final = 100
"""How many events of a run are read at once; a slow reader costs no more memory than these."""
LAST: Final = 2**31 - 1
"""The largest number an event can have."""


async def read_events(
    conn: Connection, *, tenant_id: UUID, run_id: UUID, after: int = 0, limit: int = PAGE
) -> EventPage:
    """Return up to ``limit`` events of a run that come after the number ``after``, in one query.

    Raises:
        NotFoundError: the tenant has no such run.
    """
    cursor = await conn.execute(
        _PAGE,
        {
            "tenant_id": tenant_id,
            "run_id": run_id,
            "after": min(max(after, 0), LAST),
            "fetch": limit + 1,
        },
    )
    rows = await cursor.fetchall()
    if not rows:
        raise NotFoundError("run", run_id)
    events = [event_of(row) for row in rows if row["seq"] is not None]
    has_more = len(events) > limit
    last = rows[0]["last_seq"] or 0
    over = not has_more and rows[0]["last_kind"] in TERMINAL
    return EventPage(events[:limit], has_more, over, last)


@dataclass(frozen=True, slots=True)
class News:
    """What is new of a run. ``has_more``: others are there already; ``gone``: it was deleted."""

    events: list[Event]
    has_more: bool
    gone: bool


async def read_news(
    conn: Connection, positions: Mapping[str, int], limit: int = PAGE
) -> dict[str, News]:
    """Return what is new of each run behind its number, up to ``limit`` events each, in one query.

    Whose the runs are is for the caller to know.
    """
    cursor = await conn.execute(
        _NEWS,
        {"runs": list(positions), "after": list(positions.values()), "fetch": limit + 1},
    )
    found: dict[str, list[Event]] = {}
    gone: set[str] = set()
    for row in await cursor.fetchall():
        events = found.setdefault(row["run_id"], [])
        if row["seq"] is not None:
            events.append(event_of(row))
        elif row["gone"]:
            gone.add(row["run_id"])
    return {
        run_id: News(events[:limit], len(events) > limit, run_id in gone)
        for run_id, events in found.items()
    }


async def say_that_somebody_reads(conn: Connection) -> None:
    """Let writers in all processes announce what they write, for the next half minute."""
    await conn.execute(_SAY, {"channel": READERS})


def event_of(row: Mapping[str, Any]) -> Event:
    """Return the event of a row with ``run_id``, ``seq``, ``kind``, ``data`` and ``created_at``."""
    return Event(
        row["seq"],
        row["kind"],
        str(row["run_id"]),
        rfc3339(row["created_at"]),
        jsonsafe.loads(row["data"]),
    )
