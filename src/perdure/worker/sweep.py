"""The sweeper: what nobody runs is set going again.

Two looks. What has this executor's name on it, only this process can judge: a claim whose answer
was lost (`unheld_claim`), a segment begun here whose workflow somebody ended. Each worker looks for
its own. The rest is in the rows for all to see (``runs.stuck``), and all workers together look as
often as one: whoever holds the lock of the look's row in ``perdure.sweeps`` when it is due.

Crash points. A repair, its row in ``perdure.repairs`` and the end of the look are one transaction:
a process that dies before its commit has repaired nothing, and another one looks at once. Every
repair locks the run, or changes the workflow's row only as it was seen, so that of two at once one
repairs. A repair that was not needed does no harm either: a segment begun twice is fenced.

Only workflows named ``perdure_segment`` are ever touched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg

from perdure.db import Connection, Pool, in_words, is_infrastructure, load_sql, uuid7
from perdure.runs.dbos_inside.looks import begun_by, claims_of
from perdure.runs.dbos_inside.statements import Seen, clear_away, requeue
from perdure.runs.enqueue import enqueue
from perdure.runs.resume import go_on_if_decided
from perdure.runs.stuck import (
    FIRST,
    SECONDS,
    UNREPAIRED,
    Look,
    Stuck,
    find_without_segment,
    look_at_open_segments,
    look_at_parked_runs,
    stuck_of,
)
from perdure.worker.held import Claim, HeldClaims
from perdure.worker.wake import QueueLoop

_SQL = load_sql("perdure.worker", "sweep.sql")
_DONE = _SQL["done"]
_LET_GO = _SQL["let_go"]
_LOCK_OPEN_RUN = _SQL["lock_open_run"]
_RECORD = _SQL["record"]
_TAKE = _SQL["take"]
_LOG = logging.getLogger(__name__)

UNHELD_INTERVAL_SECONDS = 2.1
UNHELD_SECONDS = 2.0
"""How far the two looks are apart, at least, that a claim has to be missed at."""
HUNG_SECONDS = 30.0
"""After how long a claiming thread that has not come to rest is taken for one that will not."""
INTERVAL_SECONDS = 10.0
PARKED_INTERVAL_SECONDS = 600.0
NEXT_WINDOW_SECONDS = 1.0
WINDOW = 10_000
PARKED_WINDOW = 100_000
MAX_REPAIRS = 100
"""At one look; the next goes on where it stopped."""
_SAID_AT_MOST = 1000


@dataclass(eq=False)
class Sweeper:
    """Looks and repairs, for one worker."""

    pool: Pool
    executor_id: str
    claims: HeldClaims
    queue: QueueLoop
    _said: set[tuple[str, UUID, int]] = field(default_factory=set)

    def loops(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what to run, each until cancelled: a look for lost claims, a look for the rest."""
        return _repeat(self._give_back_again), _repeat(self._sweep_again)

    async def _give_back_again(self) -> float:
        await self.give_back_lost_claims()
        return UNHELD_INTERVAL_SECONDS

    async def _sweep_again(self) -> float:
        await self.requeue_own()
        whole = [await self.sweep_open_segments(), await self.sweep_parked_runs()]
        return INTERVAL_SECONDS if all(whole) else NEXT_WINDOW_SECONDS

    async def give_back_lost_claims(self) -> list[Stuck]:
        """Give back what DBOS says this executor runs and this process knows nothing of.

        It takes two calls, two seconds apart, to find something. Returns what was given back.
        """
        before = self.queue.round
        async with self.pool.connection() as conn:
            claims = await claims_of(conn, self.executor_id)
            rows = {Claim(row["workflow_uuid"], row["owner_xid"]): row for row in claims}
            lost = self.claims.lost(
                {claim: row["seen_at"] for claim, row in rows.items()},
                apart=UNHELD_SECONDS,
                at_last=HUNG_SECONDS,
                before=before,
                after=self.queue.round,
            )
            return await self._repair_own(conn, [stuck_of(rows[claim]) for claim in lost])

    async def requeue_own(self) -> list[Stuck]:
        """Queue again what was begun here, is under way no more and will not come back."""
        async with self.pool.connection() as conn:
            begun = await begun_by(conn, self.executor_id, max_found=MAX_REPAIRS, seconds=SECONDS)
            stuck = [stuck_of(row) for row in begun if not self.claims.runs(row["workflow_uuid"])]
            return await self._repair_own(conn, stuck)

    async def _repair_own(self, conn: Connection, stuck: list[Stuck]) -> list[Stuck]:
        if not stuck:
            return []
        async with conn.transaction():
            repaired = await self._repair_each(conn, stuck)
        return _logged(repaired)

    async def sweep_open_segments(self) -> bool:
        """Look at what is queued or running, if it is due; False when there is more to look at."""
        return await self._sweep("open_segments", INTERVAL_SECONDS, WINDOW, look_at_open_segments)

    async def sweep_parked_runs(self) -> bool:
        """Look at what waits for people, if it is due; False when there is more to look at."""
        return await self._sweep(
            "parked_runs", PARKED_INTERVAL_SECONDS, PARKED_WINDOW, look_at_parked_runs
        )

    async def _sweep(
        self, name: str, interval: float, window: int, look_at: Callable[..., Awaitable[Look]]
    ) -> bool:
        async with self.pool.connection() as conn, conn.transaction():
            cursor = await conn.execute(_TAKE, {"name": name})
            due = await cursor.fetchall()
            if not due:
                return True
            after = due[0]["reached"] or FIRST
            look = await look_at(conn, after=after, window=window, max_found=MAX_REPAIRS)
            found = look.stuck
            reached = look.reached if look.looked == window else None
            if len(found) == MAX_REPAIRS:
                reached = found[-1].run_id
            elif reached is None and name == "parked_runs":
                found = found + await find_without_segment(conn, max_found=MAX_REPAIRS)
            repaired = await self._repair_each(conn, (one for one in found if one.kind in _SHARED))
            seconds = interval if reached is None else NEXT_WINDOW_SECONDS
            await conn.execute(_DONE, {"name": name, "seconds": seconds, "reached": reached})
        _logged(repaired)
        self._say(one for one in found if one.kind in UNREPAIRED)
        return reached is None

    async def _repair_each(self, conn: Connection, stuck: Iterable[Stuck]) -> list[Stuck]:
        """Repair what still is as it was seen, each by itself; return what was repaired."""
        repaired = []
        for one in stuck:
            try:
                async with conn.transaction():
                    if await _REPAIRS[one.kind](conn, one):
                        await self._record(conn, one)
                        repaired.append(one)
            except psycopg.Error as error:
                if is_infrastructure(error):
                    raise
                # One that cannot be repaired does not keep the others from it.
                _LOG.warning("Repairing %s of %s failed: %s", one.kind, one.where, error)
        return repaired

    async def _record(self, conn: Connection, repaired: Stuck) -> None:
        params = {
            "id": uuid7(),
            "kind": repaired.kind,
            "run_id": repaired.run_id,
            "segment": repaired.segment,
            "executor_id": repaired.executor_id,
            "by": self.executor_id,
        }
        await conn.execute(_RECORD, params)
        if repaired.executor_id == self.executor_id:
            await conn.execute(_LET_GO, params)

    def _say(self, findings: Iterable[Stuck]) -> None:
        """Log what cannot be repaired, each once."""
        for one in findings:
            said = (one.kind, one.run_id, one.segment)
            if said not in self._said and len(self._said) < _SAID_AT_MOST:
                self._said.add(said)
                _LOG.warning("%s: %s. This is not repaired; look at it.", one.where, one.text)


async def _repeat(look: Callable[[], Awaitable[float]]) -> None:
    """Look, and again after as many seconds as it says; what goes wrong is logged."""
    while True:
        seconds = INTERVAL_SECONDS
        try:
            seconds = await look()
        except Exception as error:  # noqa: BLE001 - the last net must not tear for ever
            mistake = None if is_infrastructure(error) else error
            _LOG.warning(
                "Looking for what nobody runs failed: %s", in_words(error), exc_info=mistake
            )
        await asyncio.sleep(seconds)


def _logged(repaired: list[Stuck]) -> list[Stuck]:
    for one in repaired:
        _LOG.warning("%s: %s. It was %s (%s).", one.where, one.text, _WAS[one.kind], one.kind)
    return repaired


async def _give_back(conn: Connection, stuck: Stuck) -> bool:
    """Queue a workflow again that is as it was seen."""
    seen = Seen(stuck.workflow_id, stuck.status, stuck.owner_xid)
    return bool(await requeue(conn, [seen]))


async def _requeue(conn: Connection, stuck: Stuck) -> bool:
    return await _lock(conn, stuck) is not None and await _give_back(conn, stuck)


async def _enqueue(conn: Connection, stuck: Stuck) -> bool:
    run = await _lock(conn, stuck)
    if run is None or not await clear_away(conn, stuck.workflow_id):
        return False
    await enqueue(conn, stuck.run_id, stuck.segment, priority=run["priority"])
    return True


async def _go_on(conn: Connection, stuck: Stuck) -> bool:
    return await go_on_if_decided(conn, run_id=stuck.run_id, segment=stuck.segment)


async def _lock(conn: Connection, stuck: Stuck) -> dict[str, Any] | None:
    key = {"run_id": stuck.run_id, "segment": stuck.segment}
    return await (await conn.execute(_LOCK_OPEN_RUN, key)).fetchone()


_SHARED: dict[str, Callable[[Connection, Stuck], Awaitable[bool]]] = {
    "ended_workflow": _requeue,
    "misplaced_workflow": _requeue,
    "missing_workflow": _enqueue,
    "missing_segment": _go_on,
}
_REPAIRS = _SHARED | {"unheld_claim": _give_back}
_WAS = {
    "ended_workflow": "queued again",
    "misplaced_workflow": "put back into its queue",
    "missing_workflow": "enqueued again",
    "missing_segment": "moved on",
    "unheld_claim": "given back to its queue",
}
