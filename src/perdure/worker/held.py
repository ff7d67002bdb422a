"""What this process really runs: the workflows DBOS's claims have brought to it.

A claim is held from the moment DBOS starts the workflow's task, which comes to `take` at once,
until that task is over, its outcome recorded. It is known by the workflow's id and the token the
claim wrote (``owner_xid``): an older execution of the same workflow, fenced and still winding up,
does not hide that a later claim was lost.

A claim that is given back here is remembered: if DBOS comes with it after all, it is not begun.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, NamedTuple

_REMEMBERED = 1000


class Claim(NamedTuple):
    """A workflow and the token of one claim of it."""

    workflow_id: str
    owner_xid: str | None


class Round(NamedTuple):
    """Where the thread that claims is: how many rounds it has ended, and whether it rests now."""

    ended: int
    resting: bool


class _Suspicion(NamedTuple):
    seen_at: datetime
    rounds: int


class HeldClaims:
    """The claims one worker holds; used from its event loop only."""

    def __init__(self) -> None:
        self._held: dict[asyncio.Task[Any], Claim] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._given_back: dict[Claim, None] = {}
        self._suspected: dict[Claim, _Suspicion] = {}

    def take(self) -> bool:
        """Note the claim whose task this is; False when it was given back and is not to be run."""
        from perdure.runs.dbos_inside.context import current_claim

        task, claim = asyncio.current_task(), Claim(*current_claim())
        assert task is not None  # noqa: S101
        if claim in self._given_back:
            return False
        self._held[task] = claim
        self._running.add(task)
        task.add_done_callback(self._held.pop)
        return True

    def end(self) -> None:
        """Note that the segment of this task is over; its claim is held until DBOS recorded it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._running.discard(task)

    def runs(self, workflow_id: str) -> bool:
        """Whether an execution of the workflow is under way in this process."""
        return any(self._held[task].workflow_id == workflow_id for task in self._running)

    def holds(self, claim: Claim) -> bool:
        """Whether this claim has come here, and its outcome is not recorded yet."""
        return claim in self._held.values()

    def lost(
        self,
        seen: dict[Claim, datetime],
        *,
        apart: float,
        at_last: float,
        before: Round,
        after: Round,
    ) -> list[Claim]:
        """Return those of the claims in the database that this process knows nothing of.

        ``seen`` is all of them, with the database's time they were seen at; ``before`` and
        ``after`` that look the claiming thread was at these rounds. A claim counts as lost if it
        was not held at two looks in a row, ``apart`` seconds at least from each other, and if the
        round that may have brought it is over: what it claimed is started by then. One that is
        not over for ``at_last`` seconds hangs. What is returned is refused from now on.
        """
        lost: list[Claim] = []
        suspected: dict[Claim, _Suspicion] = {}
        for claim, seen_at in seen.items():
            if self.holds(claim):
                continue
            first = self._suspected.get(claim)
            if first is None:
                suspected[claim] = _Suspicion(seen_at, after.ended)
                continue
            age = (seen_at - first.seen_at).total_seconds()
            started = before.resting or before.ended > first.rounds or age >= at_last
            if started and age >= apart:
                lost.append(claim)
            else:
                suspected[claim] = first
        self._suspected = suspected
        for claim in lost:
            self._given_back[claim] = None
        while len(self._given_back) > _REMEMBERED:
            del self._given_back[next(iter(self._given_back))]
        return lost
