"""Segments that keep ending their process: kept apart from the others, and in the end failed.

Which one of the runs of a process has ended it, nobody can say. So an execution that died with a
process it shared is *stalled* if the run has recorded nothing since the last such death
(segment.sql counts); a healthy run beside a poisoned one may be that too. After ``MOST_STALLED``
of them the segment runs *alone*, in a process that runs nothing else: there a death is its own
doing. After ``MOST_DEATHS`` in a row, again without anything recorded between, it is failed as
``quarantined``. A healthy one finishes there.

Where more processes die than the segment was in, something else ends them, and it shares as many
deaths more, up to ``MOST_FORGIVEN``.

What does not count: a worker that stops in good order, a process that goes on after trouble with
the database, the death of the worker that waits for the process, a process that died before it
began the segment.

A segment that cannot be run alone (nothing says how another process finds the engine) goes on in
the shared one, such segments one at a time, and is failed after as many deaths more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol
from uuid import UUID

from perdure.db import load_sql
from perdure.runs.execution import Stopping
from perdure.runs.poisoned import quarantined, under_way
from perdure.runs.rest import Rest
from perdure.runs.segment import Begun
from perdure.runs.segment_rows import SegmentRows

_SQL = load_sql("perdure.runs", "quarantine.sql")
_LOG = logging.getLogger(__name__)

MOST_STALLED = 3
"""After so many deaths of shared processes in a row a segment runs alone."""
MOST_FORGIVEN = 9
"""So many more at most where processes die that it was not in."""
MOST_DEATHS = 5
"""After so many deaths of processes of its own in a row it is failed."""
AT_ONCE = 2
"""How many processes one worker has at once for segments that run alone: each costs seconds."""
MOST_BESIDE = 5
"""So many deaths more a segment may share while all of those processes are taken."""
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
_MOST_FAILED_STARTS = 3
_ENDS = ("interrupted", "completed", "failed", "cancelled", "fenced")

Key = tuple[UUID, int]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process that was to run one segment ended."""

    how: str
    """For people: ``was killed by signal 11 (SIGSEGV)``; or why it never ran the segment."""
    began: int | None
    """The epoch at which it ran the segment; None: it never did."""
    word: str | None
    """How the segment ended there, if the process ended in good order."""


class Apart(Protocol):
    """Runs a segment in a process of its own."""

    def possible(self) -> bool:
        """Whether there is a way to."""

    async def run(self, run_id: UUID, seq: int, *, after: int) -> Ending:
        """Run the segment from epoch ``after`` on, until the process ends.

        Cancelled, it stops the process in good order; cancelled again, at once.
        """


@dataclass(eq=False)
class Only:
    """What a process knows that runs one segment alone: where it is to go on from."""

    after: int
    """The segment's epoch as long as it is still this process's to begin."""
    report: Callable[[int], None]
    """Called with each epoch at which it has begun."""

    def began(self, epoch: int) -> None:
        """Note that the segment has been begun here."""
        self.after = epoch
        self.report(epoch)


class Verdict(Enum):
    """What becomes of an execution that has begun."""

    HERE = "drive it in this process"
    AGAIN = "begin again"


class Quarantine:
    """Judges the executions that begin in this process."""

    def __init__(self, apart: Apart) -> None:
        self._apart = apart
        self._places = asyncio.Semaphore(AT_ONCE)
        self._turn = asyncio.Lock()
        self._whose_turn: Key | None = None
        self._failed_starts: Counter[Key] = Counter()
        self._last: dict[Key, str] = {}
        """By segment: how the last process that ran it alone ended."""
        self._present: Counter[UUID] = Counter()
        self._woken: set[UUID] = set()
        self._waits: set[tuple[UUID, asyncio.Future[Any]]] = set()
        self._processes: set[asyncio.Future[Any]] = set()
        self._stopping = False

    @property
    def runs(self) -> list[UUID]:
        """The runs that wait here, or whose segment runs in a process of its own."""
        return list(self._present)

    async def judge(self, begun: Begun, rows: SegmentRows) -> Verdict | Rest | str:
        """Say what becomes of an execution: a verdict, its rest, or how it has ended elsewhere.

        Raises:
            Stopping: ``stop`` was called meanwhile.
        """
        key = rows.run_id, rows.seq
        died_alone = begun.alone_deaths >= MOST_DEATHS
        if begun.stalled < MOST_STALLED and not died_alone:
            return Verdict.HERE
        limit = limit_of(begun.stalled, await _deaths(rows))
        if begun.stalled < limit and not begun.alone_deaths:
            return Verdict.HERE
        possible = self._apart.possible() and self._failed_starts[key] < _MOST_FAILED_STARTS
        if died_alone or (not possible and begun.stalled >= limit + MOST_DEATHS):
            rest = quarantined(begun, self._last.get(key), alone=died_alone)
            _LOG.error("Run %s, segment %d is quarantined: %s", *key, rest.error_message)
            return rest
        if self._whose_turn == key or self._may_stay(begun, limit, possible=possible):
            return Verdict.HERE
        self._present[rows.run_id] += 1
        try:
            await _let_go(rows)
            if possible:
                return await self._alone(begun, rows)
            return await self._wait_for_turn(begun, rows)
        finally:
            self._present[rows.run_id] -= 1
            if not self._present[rows.run_id]:
                del self._present[rows.run_id]
                self._woken.discard(rows.run_id)

    def _may_stay(self, begun: Begun, limit: int, *, possible: bool) -> bool:
        """Whether a suspect goes on here rather than wait for a place.

        Where processes are killed from outside, many are suspects and none is to blame: made to
        wait they would stand still, and each one here soon records something and is none any more.
        """
        taken = self._places.locked() if possible else self._turn.locked()
        return taken and not begun.alone_deaths and begun.stalled < limit + MOST_BESIDE

    async def _alone(self, begun: Begun, rows: SegmentRows) -> Verdict | str:
        if not await self._wait(rows.run_id, self._places.acquire()):
            return Verdict.AGAIN
        try:
            if rows.run_id in self._woken:
                return Verdict.AGAIN
            if not begun.alone_deaths:
                _LOG.warning(
                    "Run %s, segment %d: %d executions in a row ended with their process and "
                    "recorded nothing. It runs alone in a process of its own now.",
                    *(rows.run_id, rows.seq, begun.stalled),
                )
            ending = await self._process(rows)
        finally:
            self._places.release()
        return await self._judge_ending(ending, rows)

    async def _process(self, rows: SegmentRows) -> Ending:
        process = asyncio.ensure_future(self._apart.run(rows.run_id, rows.seq, after=rows.epoch))
        self._processes.add(process)
        try:
            await asyncio.wait({process})
            if process.cancelled():
                raise Stopping(rows.run_id)
            return process.result()
        finally:
            process.cancel()
            self._processes.discard(process)

    async def _judge_ending(self, ending: Ending, rows: SegmentRows) -> Verdict | str:
        key = rows.run_id, rows.seq
        if ending.word in _ENDS:
            return ending.word
        if ending.word is not None:
            # It was stopped, though not by us, or the segment is another's: begin says which.
            await self._wait(rows.run_id, asyncio.sleep(PAUSES_SECONDS[0]))
            return Verdict.AGAIN
        if ending.began is None:
            pause = PAUSES_SECONDS[min(self._failed_starts[key], len(PAUSES_SECONDS) - 1)]
            self._failed_starts[key] += 1
            _LOG.error("Run %s, segment %d cannot be run alone: %s", *key, ending.how)
            await self._wait(rows.run_id, asyncio.sleep(pause))
            return Verdict.AGAIN
        deaths = await _died_alone(rows, ending.began)
        if deaths is not None:
            self._last[key] = ending.how
            _LOG.warning(
                "Run %s, segment %d: the process that ran it alone %s; death %d of %d.",
                *(*key, ending.how, deaths, MOST_DEATHS),
            )
            if deaths < MOST_DEATHS:
                pause = PAUSES_SECONDS[min(deaths, len(PAUSES_SECONDS)) - 1]
                await self._wait(rows.run_id, asyncio.sleep(pause))
        return Verdict.AGAIN

    async def _wait_for_turn(self, begun: Begun, rows: SegmentRows) -> Verdict:
        _LOG.error(
            "Run %s, segment %d: %d executions in a row ended with their process and recorded "
            "nothing. %s It cannot run alone, as a process of its own would not find the engine: "
            'keep it in a variable of a module, or name that: Engine(…, target="module:engine").',
            *(rows.run_id, rows.seq, begun.stalled, under_way(begun)),
        )
        if await self._wait(rows.run_id, self._turn.acquire()):
            self._whose_turn = rows.run_id, rows.seq
        return Verdict.AGAIN

    async def _wait(self, run_id: UUID, waiting: Awaitable[Any]) -> bool:
        """Wait for something; False when the run was cancelled meanwhile.

        Raises:
            Stopping: ``stop`` was called.
        """
        task = asyncio.ensure_future(waiting)
        entry = run_id, task
        self._waits.add(entry)
        try:
            if self._stopping or run_id in self._woken:
                task.cancel()
            await asyncio.wait({task})
        finally:
            task.cancel()
            self._waits.discard(entry)
        if self._stopping:
            raise Stopping(run_id)
        return not task.cancelled()

    def forget(self, key: Key) -> None:
        """The segment has ended here."""
        if self._whose_turn == key:
            self._whose_turn = None
            self._turn.release()
        self._failed_starts.pop(key, None)
        self._last.pop(key, None)

    def wake(self, run_id: UUID) -> None:
        """Somebody cancelled the run: it does not wait. A process of its own hears of it itself."""
        if run_id in self._present:
            self._woken.add(run_id)
            for waits_for, task in self._waits:
                if waits_for == run_id:
                    task.cancel()

    def stop(self) -> None:
        """Let every wait end, and every process stop in good order."""
        self._stopping = True
        for _, task in self._waits:
            task.cancel()
        for process in self._processes:
            process.cancel()


def limit_of(stalled: int, deaths: int) -> int:
    """Return after how many stalled executions a segment runs alone.

    ``stalled`` is how many it has, ``deaths`` how many executors died in the last minute: those
    it was not in speak for it, as what ends them may have ended its own.
    """
    return MOST_STALLED + min(MOST_FORGIVEN, max(0, deaths - 2 * stalled))


async def _deaths(rows: SegmentRows) -> int:
    async with rows.pool.connection() as conn:
        row = await (await conn.execute(_SQL["deaths"])).fetchone()
    return 0 if row is None else int(row["deaths"])


async def _let_go(rows: SegmentRows) -> None:
    """Take this executor's name out of the segment: its death would not be the segment's doing."""
    async with rows.pool.connection() as conn:
        await conn.execute(
            _SQL["let_go"], {"run_id": rows.run_id, "seq": rows.seq, "epoch": rows.epoch}
        )


async def _died_alone(rows: SegmentRows, epoch: int) -> int | None:
    """Count the death of the process that ran the segment alone at ``epoch``.

    Returns how many there have been in a row without anything recorded between, or None when the
    segment has rested or gone on to somebody else.
    """
    async with rows.pool.connection() as conn:
        cursor = await conn.execute(
            _SQL["died_alone"], {"run_id": rows.run_id, "seq": rows.seq, "epoch": epoch}
        )
        row = await cursor.fetchone()
    return None if row is None else int(row["alone_deaths"])
