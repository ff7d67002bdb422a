"""What is tried: the controller's view of whoever runs the runs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from chaos.herd import Herd
from chaos.world import Log

ENDED = ("completed", "failed", "cancelled")


@dataclass
class RunRecord:
    """One run as its own records and the controller know it; times are seconds since 1970."""

    order: str
    started_at: float
    status: str = "queued"
    output: Any = None
    error: str = ""
    finished_at: float | None = None
    begins: list[tuple[float, int]] = field(default_factory=list)
    """When which process began, or began again, to work on it."""
    waits: list[tuple[float, float | None]] = field(default_factory=list)
    """From when until when it waited for a person."""
    bookings: int = 0
    """Rows its transactional call left in the database."""
    not_done: dict[str, str] = field(default_factory=dict)
    """Doubts a person settled by saying that it had not happened: the call, by question."""
    done: dict[str, str] = field(default_factory=dict)
    """Doubts a person settled by saying that it had."""


class Side(Protocol):
    """A way to run agents, held to the script."""

    name: str
    worker: str
    """Module whose ``main`` is a worker."""

    @classmethod
    def at(cls, url: str) -> AbstractAsyncContextManager[Self]:
        """Prepare the database of ``url`` and open a side on it."""
        ...

    async def start(self, order: str) -> None:
        """Start the run of ``order``, once, however often it has to be tried."""
        ...

    async def decide(self, log: Log, herd: Herd) -> None:
        """Be the person: answer what is asked now, by what ``log`` shows."""
        ...

    async def unfinished(self) -> int:
        """Return how many of the started runs have not ended."""
        ...

    async def records(self, log: Log) -> list[RunRecord]:
        """Return what is known of every run, when all is over."""
        ...
