"""A segment of a run as one DBOS workflow. Read this first.

States. A segment is *scheduled* (a delayed start), *queued* (its workflow is enqueued), *running*
(an execution of it drives the SDK) and *rested*, with an outcome: interrupted, completed, failed
or cancelled. An interrupted run goes on in its next segment, when the last of its interruptions
is decided; between the two it is rows and nothing else.

One execution: begin (compare-and-set, epoch raised, latest state and the ledger after it read) →
settle doubts (an effect begun and not recorded: rest, ask) → drive the SDK; replies and calls
that are recorded are answered from the ledger → rest (state, items, interruptions, status: one
transaction).

Who wins. Each execution raises the segment's epoch and every write checks it under a lock on the
segment's row, so of two executions the later one writes and the earlier one is *fenced*: it stops
starting effects and changes nothing. A cancellation wins over everything but a finish that was
committed before it. A message to the run wins over its completion: that writes nothing while one
waits, and the run takes another turn.

Crash points.

* Before begin: the workflow is PENDING; whoever recovers it begins.
* Between begin and rest: the next execution begins from the latest state and the ledger.
* After rest, before DBOS records success: the workflow is recovered, begin finds the segment
  rested, nothing happens.

Who dies. Executions that end with their process and leave nothing recorded are counted where the
next one begins, and quarantine.py says what becomes of a segment that does nothing else.

What escapes. Nothing does, except the cancellation of a process that stops: an exception out of
the body would be an ERROR for good, a BaseException a PENDING row nobody runs. Infrastructure
errors begin again, from the latest state at a new epoch, as long as it takes.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from uuid import UUID

import psycopg
from psycopg_pool import PoolClosed

from perdure.db import Pool, in_words, is_infrastructure, load_sql
from perdure.errors import Fenced, LedgerUnavailable, PerdureError, UnavailableError
from perdure.ledger.writer import LedgerWriter
from perdure.logs import run_fields
from perdure.notify import CANCEL, INPUT
from perdure.runs.driver import Driver
from perdure.runs.execution import CancelRequested, Execution, Stopping
from perdure.runs.items import input_rows
from perdure.runs.leftovers import cancelled
from perdure.runs.liveness import UNDOUBTED, Liveness
from perdure.runs.policies import Policies
from perdure.runs.quarantine import Only, Quarantine, Verdict
from perdure.runs.registry import Registry
from perdure.runs.rest import Rest
from perdure.runs.segment import Begun, SegmentRows, begin
from perdure.runs.spending import BudgetNews, Spending
from perdure.runs.traces.segment import SegmentTrace, traced
from perdure.tasks import first_of

_SQL = load_sql("perdure.runs", "workflow.sql")
_LOG = logging.getLogger(__name__)
_BACKOFF_SECONDS = (0.1, 0.25, 0.5, 1.0)
_AFTER_A_MISTAKE_SECONDS = 5.0


@dataclass(eq=False)
class SegmentRunner:
    """Runs segments in this process: the body of their workflows."""

    registry: Registry
    pool: Pool
    writer: LedgerWriter
    executor_id: str
    lease: Liveness = UNDOUBTED
    quarantine: Quarantine | None = None
    """Judges segments that keep ending their process; None runs them as any other."""
    only: Only | None = None
    """Where this process runs one segment alone: which."""
    policies: Policies = field(init=False)
    """Those of each tenant, as this process knows them."""
    budget_news: BudgetNews = field(default_factory=BudgetNews)
    trace_content: bool = False
    """Whether spans hold what was said."""
    _running: dict[UUID, Execution] = field(default_factory=dict)
    _heard: dict[tuple[UUID, int], set[str]] = field(default_factory=dict)
    """By segment under way here: the channels on which its run was named, from before it is begun.

    Two of one run at once are no mistake: one that rested already may be recovered beside its
    successor.
    """
    _previous: dict[tuple[UUID, int], Execution] = field(default_factory=dict)
    """By segment under way here: its last execution, which knows what it never began."""
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _under_way: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._quiet.set()
        self.policies = Policies(self.pool, self.registry.policies)

    async def run(self, run_id: UUID, seq: int) -> str:
        """Run segment ``seq`` of a run to its rest and return how it ended, as a word for logs.

        Once ``stop`` was called it does not return: it waits to be cancelled.
        """
        run_fields.set({"run_id": str(run_id), "segment": seq, "executor": self.executor_id})
        self._under_way += 1
        self._quiet.clear()
        try:
            ended = await self._run(run_id, seq)
        finally:
            self._previous.pop((run_id, seq), None)
            if self.quarantine is not None:
                self.quarantine.forget((run_id, seq))
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()
        if ended is None:
            # The workflow stays PENDING, for whoever runs it next; only cancelling ends this.
            await asyncio.get_running_loop().create_future()
        return str(ended)

    async def quiet(self) -> None:
        """Wait until no segment is under way; those that were stopped are not."""
        await self._quiet.wait()

    async def _run(self, run_id: UUID, seq: int) -> str | None:
        attempt = 0
        while not self._stop.is_set():
            try:
                ended = await self._execute(run_id, seq)
                if ended is not None:
                    return ended
            except Fenced as reason:
                _LOG.warning("%s", reason)
                return "fenced"
            except (Stopping, PoolClosed):
                return None
            except (LedgerUnavailable, Exception) as error:  # noqa: BLE001 - it is logged
                if is_infrastructure(error):
                    delay = _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)]
                    attempt += 1
                    _LOG.warning(
                        "Run %s, segment %d: %s Beginning again in %.2f s.",
                        run_id, seq, in_words(error), delay,
                    )  # fmt: skip
                else:
                    # A mistake of ours, most likely; a run without a rest would be worse than a
                    # loop.
                    delay = _AFTER_A_MISTAKE_SECONDS
                    _LOG.exception("Run %s, segment %d: %s", run_id, seq, error)
                await asyncio.sleep(delay)
        return None

    async def _execute(self, run_id: UUID, seq: int) -> str | None:
        """Execute the segment once and return how it ended; None: it is to begin again."""
        heard = self._heard[run_id, seq] = set()
        try:
            await self.lease.confirmed()
            previous = self._previous.get((run_id, seq))
            if previous is not None:
                # What this process knows of its effects is written first: fenced by the next
                # execution it would come too late, and people would be asked.
                await first_of(previous.flush(), self._stop.wait())
            if self._stop.is_set():
                raise Stopping(run_id)
            begun = await self._begin(run_id, seq)
            if begun is None:
                return "over"
            self.writer.streams.announce([str(run_id)])
            self.policies.expect(begun.tenant_id, begun.policies_revision)
            tenant = str(begun.tenant_id)
            run_fields.set({**run_fields.get(), "execution": begun.executions, "tenant_id": tenant})
            spans = traced(run_id, seq, begun, self.executor_id, with_content=self.trace_content)
            if spans is None:
                return await self._run_begun(run_id, seq, begun, heard, None)
            with spans.to_its_end(begun) as end:
                end.outcome = await self._run_begun(run_id, seq, begun, heard, spans)
            return end.outcome
        finally:
            if self._heard.get((run_id, seq)) is heard:
                del self._heard[run_id, seq]

    async def _begin(self, run_id: UUID, seq: int) -> Begun | None:
        only = self.only
        if only is None:
            return await begin(
                self.pool, run_id, seq, self.executor_id, versions=self.registry.versions
            )
        begun = await begin(
            *(self.pool, run_id, seq, self.executor_id),
            alone=True,
            after=only.after,
            versions=self.registry.versions,
        )
        if begun is not None:
            only.began(begun.epoch)
        return begun

    async def _run_begun(
        self, run_id: UUID, seq: int, begun: Begun, heard: set[str], spans: SegmentTrace | None
    ) -> str | None:
        rows = SegmentRows(
            *(self.pool, run_id, seq, begun.epoch, begun.items, begun.tenant_id, begun.session_id),
            parts=begun.parts,
        )
        previous = self._previous.get((run_id, seq))
        if previous is not None and previous.epoch == begun.epoch - 1:
            never = begun.journal.withdraw(previous.epoch, previous.started)
            await rows.withdraw(never, epoch=previous.epoch)
        if begun.cancel_requested or CANCEL in heard:
            asked = input_rows(begun.input)[begun.items :]
            return await rows.rest(replace(cancelled(begun.journal.under_way()), items=asked))
        if self.quarantine is not None:
            match await self.quarantine.judge(begun, rows):
                case Verdict.AGAIN:
                    return None
                case Rest() as rest:
                    return await self._rest(rest, rows, spans)
                case str() as ended:
                    if spans is not None:
                        spans.elsewhere = True
                    return ended
        policies = await self.policies.of(begun.tenant_id)
        execution = Execution(
            run_id=run_id,
            tenant_id=begun.tenant_id,
            segment=seq,
            epoch=begun.epoch,
            writer=self.writer,
            pool=self.pool,
            default_effect=self.registry.default_effect,
            operation_kinds=self.registry.operation_kinds,
            asks_first=begun.asks_first,
            inherited=begun.inherited,
            instructions=begun.instructions,
            journal=begun.journal,
            parts=begun.parts,
            mcp_lists=begun.mcp_lists,
            lease=self.lease,
            policy_source=self.policies,
            policies=policies,
            prices=self.registry.prices,
            trace=spans,
            spending=Spending(begun.budgeted, self.budget_news),
            inputs_waiting=begun.inputs_waiting or INPUT in heard,
        )
        rows.guardrails = execution.guardrails
        self._running[run_id] = self._previous[run_id, seq] = execution
        if CANCEL in heard:
            execution.stop(CancelRequested(run_id))
        if self._stop.is_set():
            execution.stop(Stopping(run_id))
        try:
            return await self._to_rest(begun, execution, rows)
        finally:
            if self._running.get(run_id) is execution:
                del self._running[run_id]

    async def _to_rest(self, begun: Begun, execution: Execution, rows: SegmentRows) -> str:
        driver: Driver | None = None
        while True:
            try:
                driver = driver or Driver(self.registry, begun, execution, rows)
                rest = await driver.run()
            except PerdureError as error:
                if isinstance(error, UnavailableError):
                    raise
                rest = Rest("failed", error_type="programming_error", error_message=str(error))
            ended = await self._rest(rest, rows, execution.trace)
            if ended is not None:
                return ended
            # A message came at the last moment, and nothing was written: the run goes on.
            execution.inputs_waiting = True

    async def _rest(self, rest: Rest, rows: SegmentRows, spans: SegmentTrace | None) -> str | None:
        if spans is not None:
            spans.error_type = rest.error_type
        try:
            return await rows.rest(rest)
        except Exception as error:
            if is_infrastructure(error):
                raise
            _LOG.exception("Run %s: its %s end cannot be stored.", rows.run_id, rest.outcome)
            message = f"The run's {rest.outcome} end cannot be stored: {error}"
            return await rows.rest(
                Rest("failed", error_type="infrastructure", error_message=message)
            )

    def cancel(self, run_id: UUID) -> None:
        """Stop the run's execution in this process, if there is one, without waiting for it."""
        if self.quarantine is not None:
            self.quarantine.wake(run_id)
        execution = self._running.get(run_id)
        if execution is not None:
            execution.stop(CancelRequested(run_id))
        for key, heard in self._heard.items():
            if key[0] == run_id:
                heard.add(CANCEL)

    def input_added(self, run_id: UUID) -> None:
        """Let the run's execution in this process, if there is one, take a message it was sent."""
        execution = self._running.get(run_id)
        if execution is not None:
            execution.input_added()
        for key, heard in self._heard.items():
            if key[0] == run_id:
                heard.add(INPUT)

    def stop(self) -> None:
        """Let every execution end at its next step; effects under way finish and are recorded."""
        self._stop.set()
        if self.quarantine is not None:
            self.quarantine.stop()
        for run_id, execution in self._running.items():
            execution.stop(Stopping(run_id))

    async def look_again(self) -> None:
        """Do what was asked of runs while nobody listened; returns when it could look."""
        while True:
            try:
                async with self.pool.connection() as conn:
                    cursor = await conn.execute(_SQL["asked_of"], {"runs": self.running})
                    rows = await cursor.fetchall()
                break
            except psycopg.Error as error:
                if not is_infrastructure(error) or isinstance(error, PoolClosed):
                    raise
                await asyncio.sleep(_BACKOFF_SECONDS[-1])
        for row in rows:
            if row["cancel_requested"]:
                self.cancel(row["id"])
            else:
                self.input_added(row["id"])

    @property
    def running(self) -> list[UUID]:
        """The runs this process executes a segment of now, itself or in a process for it alone."""
        return [*self._running, *(self.quarantine.runs if self.quarantine is not None else ())]
