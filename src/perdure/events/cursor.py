"""Where somebody stands who reads the events of all runs: there is no number for that.

What is new to a reader is what transactions wrote that its last snapshot of the database does not
show. So its position is that snapshot; within what lies between two, also the second one and the
place of the last event given. Transactions that end late, and in whatever order, are new to every
snapshot that was taken before they did.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final, NamedTuple
from uuid import UUID

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,18})"
_SNAPSHOT: Final = re.compile(rf"{_NUMBER}(?:\.{_NUMBER})+")
_PLACE: Final = re.compile(rf"({_NUMBER})\.([0-9a-f]{{32}})\.({_NUMBER})")
_MOST: Final = 2**63 - 1
_LAST: Final = 2**31 - 1
_LATEST: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _MICROSECOND
LONGEST: Final = 16_000
"""How many characters one has at most: a snapshot names all transactions that were under way."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which transactions have ended: those below ``above`` that are not ``under_way``."""

    above: int
    under_way: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> Snapshot:
        """Read the text Postgres has for one (``pg_current_snapshot()``)."""
        _, above, under_way = text.split(":")
        return cls(int(above), tuple(int(one) for one in under_way.split(",") if one))

    @property
    def as_postgres(self) -> str:
        """The text Postgres has for it."""
        lowest = self.under_way[0] if self.under_way else self.above
        return f"{lowest}:{self.above}:{','.join(map(str, self.under_way))}"

    @property
    def text(self) -> str:
        """A short text: ``above``, then how far below it those under way are."""
        # Differences, as they share most of their digits.
        steps = [b - a for a, b in pairwise((*self.under_way, self.above))]
        return ".".join(map(str, [self.above, len(steps), *steps]))

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read what ``text`` gave.

        Raises:
            ValueError: it is none.
        """
        if not _SNAPSHOT.fullmatch(text):
            raise _no_position(text)
        above, count, *steps = map(int, text.split("."))
        if len(steps) != count or not 0 < above <= _MOST or not all(steps) or sum(steps) >= above:
            raise _no_position(text)
        under_way, one = [], above
        for step in reversed(steps):
            one -= step
            under_way.append(one)
        return cls(above, tuple(reversed(under_way)))


class Place(NamedTuple):
    """Where an event stands in what lies between two snapshots: these are in this order."""

    created_at: datetime
    run_id: UUID
    number: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position: all that ``seen`` shows; with ``window`` also what it shows up to ``place``."""

    seen: Snapshot
    window: Snapshot | None = None
    place: Place | None = None

    @property
    def text(self) -> str:
        """The position as clients keep it; good for an address and for a header."""
        if self.window is None or self.place is None:
            return self.seen.text
        moment = (self.place.created_at - _EPOCH) // _MICROSECOND
        place = f"{moment}.{self.place.run_id.hex}.{self.place.number}"
        return f"{self.seen.text}_{self.window.text}_{place}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what ``text`` gave.

        Raises:
            ValueError: it is none.
        """
        if len(text) > LONGEST:
            raise _no_position(text)
        seen, *more = text.split("_")
        if not more:
            return cls(Snapshot.parse(seen))
        if len(more) != 2 or (found := _PLACE.fullmatch(more[1])) is None:
            raise _no_position(text)
        moment, number = int(found[1]), int(found[3])
        if moment > _LATEST or not 0 < number <= _LAST:
            raise _no_position(text)
        place = Place(_EPOCH + moment * _MICROSECOND, UUID(hex=found[2]), number)
        begun, window = Snapshot.parse(seen), Snapshot.parse(more[0])
        if window.above < begun.above:
            raise _no_position(text)
        return cls(begun, window, place)


def _no_position(text: str) -> ValueError:
    return ValueError(f"{text[:64]!r} is no position.")
