"""What nobody runs: found by reading, changing nothing.

The worker's sweeper repairs what it can of it; ``perdure doctor`` and the metrics tell of it. A
look is one statement and sees one moment, and what changed in the last seconds is left out, so
that a transition is not taken for a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure.db import Connection, load_sql
from perdure.runs.dbos_inside.looks import open_segments

_SQL = load_sql("perdure.runs", "stuck.sql")
_COUNT_REPAIRS = _SQL["count_repairs"]
_PARKED_RUNS = _SQL["parked_runs"]
_WITHOUT_SEGMENT = _SQL["without_segment"]
FIRST = UUID(int=0)
"""Where a look over all runs begins."""

SECONDS = 5.0
"""How long something has to have been as it is before it counts as stuck."""
CLAIM_SECONDS = 15.0
"""The same for a claim that was not followed by a beginning, as others than its owner see it."""

_TEXTS = {
    "missing_workflow": "its workflow is gone",
    "ended_workflow": "its workflow is {status} and nobody runs it",
    "misplaced_workflow": "its workflow is {status} in queue {queue_name} as no worker takes it",
    "unheld_claim": "{executor_id} has claimed it and does not run it",
    "missing_segment": "all its questions are decided and its next segment is missing",
    "dead_executor": "it is with {executor_id}, which lives no more",
    "foreign_workflow": "a workflow of another name has its workflow's id",
    "no_open_segment": "the run is {status} and its segment is missing or over",
    "nothing_to_wait_for": "the run is interrupted and waits for nobody",
}
_NOT_OPEN = ("missing_segment", "no_open_segment", "nothing_to_wait_for")
OPEN_KINDS = tuple(kind for kind in _TEXTS if kind not in _NOT_OPEN)
"""What a look at open segments finds."""
UNREPAIRED = frozenset(("foreign_workflow", "no_open_segment", "nothing_to_wait_for"))
"""Kinds that are found and left as they are: nobody knows what was meant. Workers repair the
others; a `dead_executor` is taken over."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """A run that does not go on, and why.

    ``segment`` is the number of its current segment, ``since`` (UTC) how long it has been so at
    least, ``executor_id`` whose it was, where somebody had it, ``status`` that of its workflow or,
    where the run's own is wrong, of the run.
    """

    kind: str
    run_id: UUID
    segment: int
    since: datetime
    executor_id: str | None
    status: str | None
    text: str
    owner_xid: str | None = None
    """The token of the last claim of its workflow."""

    @property
    def workflow_id(self) -> str:
        """The id its workflow has, or would have."""
        return f"{self.run_id}:{self.segment}"

    @property
    def where(self) -> str:
        """The run and its segment, as a message begins with them."""
        return f"Run {self.run_id}, segment {self.segment}"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found, how many rows it looked at, and the last one's run if there was any."""

    stuck: list[Stuck]
    looked: int
    reached: UUID | None


async def find_stuck(
    conn: Connection, *, parked: bool = False, max_found: int = 100
) -> list[Stuck]:
    """Return up to ``max_found`` runs that do not go on, of each look, without changing anything.

    Looks at every open segment; with ``parked`` at every interrupted run too, and for runs that
    have no segment to be in: seconds, where there are a million. A claim its worker does not know
    of is guessed from outside: it was followed by no beginning for 15 s.
    """
    everything = 2**31 - 1
    look = await look_at_open_segments(conn, window=everything, max_found=max_found)
    if not parked:
        return look.stuck
    resting = await look_at_parked_runs(conn, window=everything, max_found=max_found)
    without = await find_without_segment(conn, max_found=max_found)
    return look.stuck + resting.stuck + without


async def look_at_open_segments(
    conn: Connection, *, after: UUID = FIRST, window: int, max_found: int
) -> Look:
    """Look at ``window`` open segments of runs after ``after``: at their workflows."""
    rows = await open_segments(
        conn,
        after=after,
        window=window,
        max_found=max_found,
        seconds=SECONDS,
        claim_seconds=CLAIM_SECONDS,
    )
    return _look(rows)


async def look_at_parked_runs(
    conn: Connection, *, after: UUID = FIRST, window: int, max_found: int
) -> Look:
    """Look at ``window`` interrupted runs after ``after``: those that wait for nobody."""
    params = {"after": after, "window_size": window, "max_found": max_found, "seconds": SECONDS}
    return _look(await (await conn.execute(_PARKED_RUNS, params)).fetchall())


async def find_without_segment(conn: Connection, *, max_found: int) -> list[Stuck]:
    """Return runs that are queued or running and have no open segment to be so in."""
    params = {"seconds": SECONDS, "max_found": max_found}
    cursor = await conn.execute(_WITHOUT_SEGMENT, params)
    return [stuck_of(row) for row in await cursor.fetchall()]


async def count_repairs(conn: Connection, since_seconds: float) -> dict[str, int]:
    """Return how many repairs of each kind were made in the last ``since_seconds``."""
    cursor = await conn.execute(_COUNT_REPAIRS, {"seconds": since_seconds})
    return {row["kind"]: row["repairs"] for row in await cursor.fetchall()}


def _look(rows: list[dict[str, Any]]) -> Look:
    stuck = [stuck_of(row) for row in rows if row["kind"] is not None]
    return Look(stuck, rows[0]["looked"], rows[0]["reached"])


def stuck_of(row: Mapping[str, Any]) -> Stuck:
    """Return what a row of a look says is wrong."""
    return Stuck(
        kind=row["kind"],
        run_id=row["run_id"],
        segment=row["seq"],
        since=row["since"],
        executor_id=row["executor_id"],
        status=row["status"],
        text=_TEXTS[row["kind"]].format(**row),
        owner_xid=row["owner_xid"],
    )
