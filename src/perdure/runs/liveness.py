"""Whether this process may begin something: nobody can have taken its segments from it.

The worker's lease answers (worker/lease.py). It is asked right before each effect and each
request to a model, as a process may have been paused since its last write, and taken over.
"""

from __future__ import annotations

from typing import Protocol


class Liveness(Protocol):
    """What is asked."""

    def held(self) -> bool:
        """Whether nobody can have taken this process's segments; asks nobody."""

    async def confirmed(self) -> None:
        """Wait until that is so, or never will be again: then everything is stopped first."""


class _Undoubted:
    def held(self) -> bool:
        return True

    async def confirmed(self) -> None:
        return


UNDOUBTED: Liveness = _Undoubted()
"""Of a process that nobody takes over."""
