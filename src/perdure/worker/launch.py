"""DBOS in this process: configured, launched, its one workflow registered, its queue joined.

What it leans on of DBOS's inside stands in ``runs/dbos_inside.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import UUID

from dbos import DBOS, DBOSConfig, WorkflowSerializationFormat

from perdure.errors import ConfigurationError
from perdure.runs.enqueue import APPLICATION_VERSION, QUEUE, WORKFLOW
from perdure.worker.wake import QueueLoop

POLL_SECONDS = 5.0

Body = Callable[[UUID, int], Awaitable[str]]
"""Runs one segment: run id and segment number in, how it ended as a word out."""


async def launch(
    stack: AsyncExitStack, url: str, executor_id: str, concurrency: int, body: Body
) -> QueueLoop:
    """Launch DBOS in this event loop, to be ended by ``stack``, and begin to claim segments.

    ``concurrency`` is how many segments run here at once; ``body`` runs each.

    Raises:
        ConfigurationError: the process runs DBOS already.
    """
    from dbos._dbos import _dbos_global_instance

    if _dbos_global_instance is not None:
        raise ConfigurationError(
            "This process runs DBOS already, and DBOS is one to a process. Run the agents in "
            "a worker process of their own: `perdure worker TARGET`."
        )
    dbos = DBOS(config=_config(url, executor_id))
    stack.callback(lambda: DBOS.destroy(destroy_registry=True))

    @DBOS.workflow(
        name=WORKFLOW,
        max_recovery_attempts=None,
        serialization_type=WorkflowSerializationFormat.PORTABLE,
    )
    async def segment(run_id: str, seq: int) -> str:
        return await body(UUID(run_id), seq)

    DBOS.listen_queues([])
    DBOS.launch()
    # In a thread: its async twin would make DBOS's small executor the loop's default one,
    # where plain (not async) tools run.
    queue = await asyncio.to_thread(
        DBOS.register_queue,
        QUEUE,
        worker_concurrency=concurrency,
        polling_interval_sec=POLL_SECONDS,
        on_conflict="always_update",
    )
    # Its limits are this process's; reading them again before each claim takes a query.
    queue.database_backed_queue = False
    loop = QueueLoop(dbos, queue)
    loop.start()
    return loop


def _config(url: str, executor_id: str) -> DBOSConfig:
    return {
        "name": "perdure",
        "system_database_url": url,
        "application_version": APPLICATION_VERSION,
        "executor_id": executor_id,
        "max_executor_threads": 8,
        "run_migrations": False,
        "sys_db_pool_size": 8,
        # How often a thread looks whether DBOS's own events are to be told of; there are none.
        # DBOS waits for that thread when it ends.
        "notification_coalesce_sec": 0.1,
        "db_engine_kwargs": {
            # A dead connection is found by the statement that meets it, which DBOS tries
            # again; asking before each one costs a round trip and a half of a claim.
            "pool_pre_ping": False,
            # The same connection again, which knows the statement: its plan is kept there.
            "pool_use_lifo": True,
        },
        "log_level": "WARNING",
    }


def workflow_tasks() -> set[asyncio.Task[object]]:
    """Return DBOS's tasks of this loop, those that have not come to our part of them too."""
    return {
        task
        for task in asyncio.all_tasks()
        if getattr(task.get_coro(), "__name__", "") == "_execute_workflow_async"
    }
