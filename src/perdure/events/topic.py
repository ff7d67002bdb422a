"""What a process holds of a run that is followed: its newest events, for all who follow it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from perdure.events.event import TERMINAL, Event
from perdure.events.reading import News

Render = Callable[["Entry"], bytes]

_FRAME_BYTES: Final = 700
"""About what an event takes beside its texts."""


class Entry:
    """An event that is given to many: the bytes it is sent as are made once, for the first."""

    __slots__ = ("_bytes", "event", "number")

    def __init__(self, number: int, event: Event) -> None:
        """Take the event and its number within the topic: for one run's, that of the event."""
        self.number = number
        self.event = event
        self._bytes: bytes | None = None

    @property
    def id(self) -> str:
        """What a reader comes back with who has read up to here."""
        return str(self.event.id)

    def written(self, render: Render) -> bytes:
        """Return the event as ``render`` writes it."""
        if self._bytes is None:
            self._bytes = render(self)
        return self._bytes

    def size(self) -> int:
        """Return about how many bytes of memory it takes, with what it is sent as."""
        return _FRAME_BYTES + 2 * sum(
            len(value) if isinstance(value, str) else 50 for value in self.event.data.values()
        )


E = TypeVar("E", bound=Entry)


class Ring(Generic[E]):
    """The newest entries of a topic, up to so many bytes; readers take what is behind a number.

    A reader has nothing here but its number. ``floor`` is the number the ring begins behind:
    whoever is further back reads the table. Waiting for more is waiting for ``changed``, which is
    another event each time.
    """

    def __init__(self, position: int) -> None:
        """Begin empty, behind the number ``position``."""
        self.floor = self.position = position
        self.readers = 0
        self.changed = asyncio.Event()
        self._entries: deque[tuple[E, int]] = deque()
        self._bytes = 0

    def take(self, after: int) -> list[E] | None:
        """Return the entries behind the number ``after``; None: some of them are not here."""
        if after < self.floor:
            return None
        found: list[E] = []
        for entry, _ in reversed(self._entries):
            if entry.number <= after:
                break
            found.append(entry)
        found.reverse()
        return found

    def add(self, entries: Iterable[E], *, room: int) -> None:
        """Append entries; of those there were, what is more than ``room`` bytes goes."""
        while self._bytes > room:
            old, size = self._entries.popleft()
            self._bytes -= size
            self.floor = old.number
        for entry in entries:
            size = entry.size()
            self._entries.append((entry, size))
            self._bytes += size
            self.position = entry.number

    def wake(self) -> None:
        """Let all who wait look again."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Topic(Ring[Entry]):
    """A run that is followed. ``over``: it has ended; ``gone``: it was deleted."""

    over = False
    gone = False

    def hear(self, news: News, *, room: int) -> None:
        """Take what was read behind ``position``, and wake who waits for it."""
        self.add((Entry(event.id, event) for event in news.events), room=room)
        if news.events:
            self.over = not news.has_more and news.events[-1].event in TERMINAL
        self.gone = news.gone
        if news.events or news.gone:
            self.wake()
