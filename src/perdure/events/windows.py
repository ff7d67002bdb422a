"""The statements that read the events of all runs of a tenant, between two snapshots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from perdure.db import Connection, load_sql
from perdure.errors import InvalidRequestError
from perdure.events.cursor import Cursor, Place, Snapshot
from perdure.events.event import KINDS, Event
from perdure.events.reading import event_of, with_data
from perdure.events.topic import Entry

_SQL = load_sql("perdure.events", "windows.sql")
_NOW = _SQL["now"]
_WINDOW = with_data(_SQL["window"])

WINDOW_PAGE: Final = 200
"""How many events of a tenant are read at once."""
TOLD: Final = frozenset(KINDS) - {"model.delta"}
"""The kinds that are given of all runs: what models stream is followed a run at a time."""


@dataclass(frozen=True, slots=True)
class Only:
    """Which events are wanted; None: all. The others are the run's."""

    kinds: frozenset[str] | None = None
    agent: str | None = None
    user_id: str | None = None
    session_id: UUID | None = None

    def lets(self, entry: Anywhere) -> bool:
        """Whether an event is wanted."""
        return (
            (self.kinds is None or entry.event.event in self.kinds)
            and (self.agent is None or entry.agent == self.agent)
            and (self.user_id is None or entry.user_id == self.user_id)
            and (self.session_id is None or entry.session_id == self.session_id)
        )


EVERYTHING: Final = Only()


def kinds_named(names: Iterable[str]) -> frozenset[str] | None:
    """Return the kinds that ``names`` mean, each one a kind or the first word of some; None: all.

    Raises:
        ValueError: one means none.
    """
    found: set[str] = set()
    for name in names:
        meant = {kind for kind in TOLD if kind == name or kind.startswith(f"{name}.")}
        if not meant:
            raise ValueError(name)
        found |= meant
    return frozenset(found) or None


class Anywhere(Entry):
    """An event of any run, and what it is filtered by."""

    __slots__ = ("agent", "cursor", "session_id", "user_id")

    def __init__(self, number: int, event: Event, cursor: Cursor, row: dict[str, Any]) -> None:
        """Take the row it was read from, and the position of who has read up to it."""
        super().__init__(number, event)
        self.cursor = cursor
        self.agent: str = row["agent"]
        self.user_id: str | None = row["user_id"]
        self.session_id: UUID | None = row["session_id"]

    @property
    def id(self) -> str:
        """What a reader comes back with who has read up to here."""
        return self.cursor.text


@dataclass(frozen=True, slots=True)
class Window:
    """Events in order; who has read them stands at ``cursor``. ``has_more``: others are there."""

    entries: list[Anywhere]
    cursor: Cursor
    has_more: bool


async def where_it_is(conn: Connection, cursor: Cursor | None = None) -> Cursor:
    """Return ``cursor`` if it can be of this database, without one where its log is now.

    Raises:
        InvalidRequestError: it names transactions this database has not had yet.
    """
    above = None
    if cursor is not None:
        above = str((cursor.window or cursor.seen).above)
    row = await (await conn.execute(_NOW, {"above": above})).fetchone()
    assert row is not None  # noqa: S101
    if not row["known"]:
        raise InvalidRequestError(
            "The position is ahead of this database: it was restored from an older copy, or is "
            "another one. Follow it anew without a position."
        )
    return cursor or Cursor(Snapshot.of(row["now"]))


async def read_window(
    conn: Connection,
    tenant_id: UUID,
    cursor: Cursor,
    *,
    until: Snapshot | None = None,
    only: Only = EVERYTHING,
    number: int = 0,
    limit: int = WINDOW_PAGE,
) -> Window:
    """Return up to ``limit`` events behind ``cursor``, in one query; it reads one window.

    That is the cursor's own, or else what is new up to ``until``, which is no older; up to now
    without it. Within it runs are mixed by time, and those of one are in order. The entries are
    numbered on from ``number``.
    """
    place = cursor.place
    found = await conn.execute(
        _WINDOW,
        {
            "tenant_id": tenant_id,
            "above": str(cursor.seen.above),
            "under_way": [str(one) for one in cursor.seen.under_way],
            "until": window.as_postgres if (window := cursor.window or until) else None,
            "created_at": place and place.created_at,
            "run_id": place and place.run_id,
            "number": place and place.number,
            "kinds": None if only.kinds is None else sorted(only.kinds),
            "agent": only.agent,
            "user_id": only.user_id,
            "session_id": only.session_id,
            "fetch": limit + 1,
        },
    )
    rows = await found.fetchall()
    reached = Snapshot.of(rows[0]["until"])
    rows = [row for row in rows if row["seq"] is not None]
    has_more = len(rows) > limit
    entries = []
    for at, row in enumerate(rows[:limit], 1):
        here = Cursor(cursor.seen, reached, Place(row["created_at"], row["run_id"], row["seq"]))
        if at == len(rows):
            here = Cursor(reached)
        entries.append(Anywhere(number + at, event_of(row), here, row))
    return Window(entries, entries[-1].cursor if has_more else Cursor(reached), has_more)
