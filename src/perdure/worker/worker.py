"""A worker: joins the queue, runs segments, recovers those of workers that died.

Enter: lease → catalogue → watch over the loop → ledger writer → DBOS (launched in this event loop,
so that segments run in it) → queue loop → recovery, delayed starts, what is asked of runs. Leave,
in the other order: nothing new is claimed, segments under way are parked at their next step, and
what is left goes back to the queue. A worker that was taken for dead begins nothing more and says
so (`lost`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Self
from uuid import UUID

from perdure.catalogue.registering import register
from perdure.config import Settings
from perdure.db import Pool
from perdure.ledger.writer import LedgerWriter
from perdure.notify import (
    BUDGETS,
    DELIVERIES,
    DELIVERIES_DUE,
    DUE,
    POLICIES,
    READERS,
    SEGMENTS,
    Listener,
)
from perdure.runs.quarantine import Quarantine
from perdure.runs.registry import Registry
from perdure.runs.workflow import SegmentRunner
from perdure.tasks import end
from perdure.webhooks.addresses import Allowed
from perdure.webhooks.sending import Sender
from perdure.worker.alone import Alone
from perdure.worker.asked import Asked
from perdure.worker.closing import keep_closing_days
from perdure.worker.delivering import Deliverer
from perdure.worker.due import keep_enqueuing
from perdure.worker.expiring import keep_expiring
from perdure.worker.held import HeldClaims
from perdure.worker.launch import launch
from perdure.worker.lease import Lease, new_executor_id, session_name
from perdure.worker.partitions import keep_partitions
from perdure.worker.purge import keep_purging
from perdure.worker.recovery import hand_over, keep_recovering
from perdure.worker.retention import Retaining
from perdure.worker.seal import keep_sealing
from perdure.worker.sweep import Sweeper
from perdure.worker.thinning import keep_thinning
from perdure.worker.wake import QueueLoop
from perdure.worker.watch import LoopWatch

_LOG = logging.getLogger(__name__)
DEFAULT_CONCURRENCY = 64
STOP_SECONDS = 5.0
"""How long effects under way may take to end when a worker is told to stop."""
_CLAIM_SECONDS = 2.0
"""How long DBOS may take for its own part of a workflow, before and after ours."""


class Worker:
    """Runs the segments of a registry's agents; one per process, as DBOS is."""

    def __init__(
        self,
        registry: Registry,
        pool: Pool,
        url: str,
        *,
        target: Callable[[], str | None],
        concurrency: int = DEFAULT_CONCURRENCY,
        version: str = "",
        tag: str | None = None,
        stop_seconds: float = STOP_SECONDS,
        settings: Settings | None = None,
    ) -> None:
        """Take what it runs and where; ``target`` says where another process finds it.

        ``settings`` are those of the environment by default.

        Raises:
            ConfigurationError: a setting cannot be meant.
        """
        settings = settings or Settings.from_env()
        self._sender = Sender(Allowed.parse(settings.webhook_allow))
        self._deliverer = Deliverer(pool, settings, self._sender)
        self._secret_keys = settings.secret_keys
        self._trace_content = settings.trace_content
        self._retaining = Retaining(url, settings)
        self._registry = registry
        self._pool = pool
        self._url = url
        self._concurrency = concurrency
        self._stop_seconds = stop_seconds
        self._lease = Lease(
            url,
            version,
            new_executor_id(tag),
            on_silence=self._on_silence,
            on_lost=self._on_lost,
        )
        self._quarantine = Quarantine(Alone(target, url, self._lease, stop_seconds))
        self.lost = asyncio.Event()
        """Set when another executor took this one's segments: it begins nothing more."""
        self._silence = asyncio.Event()
        self._stack = AsyncExitStack()
        self._runner: SegmentRunner | None = None
        self._queue: QueueLoop | None = None
        self._deliveries: QueueLoop | None = None
        self._workflow_tasks: Callable[[], set[asyncio.Task[Any]]] = set
        self._due = asyncio.Event()
        self._overdue = asyncio.Event()
        self._segments: set[asyncio.Task[Any]] = set()
        self._delivering: set[asyncio.Task[Any]] = set()
        self._claims = HeldClaims()
        self._stopping = False

    @property
    def executor_id(self) -> str:
        """This worker's id, of this process and no other."""
        return self._lease.executor_id

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._lease)
            # Under the lease: what a living worker came with is not pruned.
            await register(self._pool, self._registry.catalogue)
            stack.enter_context(LoopWatch())
            name = session_name("perdure-ledger", self.executor_id)
            writer = await stack.enter_async_context(LedgerWriter(self._url, name))
            self._runner = SegmentRunner(
                *(self._registry, self._pool, writer, self.executor_id, self._lease),
                quarantine=self._quarantine,
                trace_content=self._trace_content,
            )
            asked = Asked(self._runner)
            await stack.enter_async_context(self._sender)
            stack.push_async_callback(self._hand_over)
            launched = await launch(
                stack,
                self._pool,
                self._url,
                self.executor_id,
                self._concurrency,
                self._run_segment,
                self._deliver,
            )
            self._queue, self._workflow_tasks = launched.queue, launched.workflow_tasks
            self._deliveries = launched.deliveries
            heard = {
                SEGMENTS: self._on_segments,
                DUE: self._on_due,
                DELIVERIES: self._on_deliveries,
                DELIVERIES_DUE: self._deliverer.wake,
                POLICIES: self._runner.policies.heard,
                BUDGETS: self._runner.budget_news.heard,
                READERS: writer.streams.heard,
                **asked.callbacks(),
            }
            await stack.enter_async_context(Listener(self._url, heard))
            for loop in (
                keep_recovering(self._pool, self._lease, self._silence),
                keep_enqueuing(self._pool, self._due),
                keep_expiring(self._pool, self._overdue),
                keep_purging(self._pool),
                keep_closing_days(self._pool),
                keep_thinning(self._pool),
                keep_partitions(self._pool),
                self._retaining.keep(),
                keep_sealing(self._pool, self._secret_keys),
                *self._deliverer.loops(),
            ):
                stack.push_async_callback(end, asyncio.create_task(loop))
            sweeper = Sweeper(self._pool, self.executor_id, self._claims, self._queue)
            sweeping = [asyncio.create_task(loop) for loop in sweeper.loops()]
            stack.push_async_callback(self._stop_segments)
            # Before anything else: what stops is no fault to be repaired.
            for task in sweeping:
                stack.push_async_callback(end, task)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _run_segment(self, run_id: UUID, seq: int) -> str:
        task = asyncio.current_task()
        assert task is not None and self._runner is not None  # noqa: S101, PT018
        self._segments.add(task)
        task.add_done_callback(self._make_room)
        try:
            if self._stopping or not self._claims.take():
                # Claimed at the last moment: it stays PENDING and is handed over. Or come so late
                # that it was given back.
                raise asyncio.CancelledError
            return await self._runner.run(run_id, seq)
        finally:
            self._segments.discard(task)
            self._claims.end()

    async def _deliver(self, delivery_id: UUID, attempt: int) -> str:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._delivering.add(task)
        task.add_done_callback(self._make_room)
        try:
            if self._stopping:
                raise asyncio.CancelledError
            return await self._deliverer.run(delivery_id, attempt)
        finally:
            self._delivering.discard(task)

    def _make_room(self, _: asyncio.Task[Any]) -> None:
        # It was held until now: DBOS has recorded the outcome.
        for queue in (self._queue, self._deliveries):
            if queue is not None:
                queue.room()

    def _on_segments(self, _: str) -> None:
        if self._queue is not None:
            self._queue.wake()

    def _on_deliveries(self, _: str) -> None:
        if self._deliveries is not None:
            self._deliveries.wake()

    def _on_silence(self) -> None:
        self._silence.set()

    def _on_lost(self) -> None:
        # Effects under way may finish; what they came to is kept as evidence.
        self._stopping = True
        if self._runner is not None:
            self._runner.stop()
        self.lost.set()

    def _on_due(self, _: str) -> None:
        self._due.set()
        self._overdue.set()

    async def _stop_segments(self) -> None:
        self._stopping = True
        queues = [queue for queue in (self._queue, self._deliveries) if queue is not None]
        await asyncio.gather(*(asyncio.to_thread(queue.stop, _CLAIM_SECONDS) for queue in queues))
        if self._runner is not None:
            self._runner.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stop_seconds):
                    await self._runner.quiet()
                    # Cut off, they are made again elsewhere: the receiver hears of it twice.
                    if self._delivering:
                        await asyncio.wait(set(self._delivering))
        # DBOS's own part of a workflow before and after ours is let run to its end.
        workflows = self._workflow_tasks()
        for task in (*self._segments, *self._delivering):
            task.cancel()
        if workflows:
            await asyncio.wait(workflows, timeout=_CLAIM_SECONDS)

    async def _hand_over(self) -> None:
        with contextlib.suppress(Exception):
            await hand_over(self._pool, self.executor_id)
