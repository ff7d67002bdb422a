"""Workflows are claimed from their queue and started, by DBOS's own statement and dispatch.

Its queue thread is not used: it takes rows without a version too if this version is the latest,
asks before each claim whether it is, and reads each row back to unpickle what a row says is a
pickle. A segment, or a delivery, is known by its workflow's id, so nothing of a row is read at all.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from uuid import uuid4

from dbos import DBOS
from dbos._core import execute_dequeued_workflow
from dbos._serialization import DBOSPortableJSON, serialize_exception
from dbos._sys_db import WorkflowStatusInternal

from perdure.errors import ConfigurationError
from perdure.runs.dbos_inside.kinds import SEGMENT, Kind
from perdure.runs.enqueue import APPLICATION_VERSION

__all__ = ["Claims"]

_LOG = logging.getLogger(__name__)
_ID = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):([0-9]{1,9})")


FIRST_AT_ONCE = 8
DOUBLED_AFTER_SECONDS = 1.0


class Claims:
    """Claims workflows of one kind for one executor, ``concurrency`` of them at once at most.

    A few at first, twice as many each second: where processes die one after the other, a new one
    that took all there is would bring none of it further before it dies as well, and every death
    would cost every run.
    """

    def __init__(
        self, dbos: DBOS, executor_id: str, concurrency: int, kind: Kind = SEGMENT
    ) -> None:
        self._dbos = dbos
        self._executor_id = executor_id
        self._kind = kind
        # Not entered in the table of queues: nobody else is to know it.
        self._queue = dbos._registry._register_internal_queue(
            kind.queue, worker_concurrency=concurrency
        )
        self._concurrency = concurrency
        self._born = time.monotonic()
        self.full = False
        """Whether the last claim may have left something because there was no room for it."""

    @property
    def limit(self) -> int:
        """How many may run here at once now."""
        doublings = int((time.monotonic() - self._born) / DOUBLED_AFTER_SECONDS)
        return min(self._concurrency, FIRST_AT_ONCE << min(doublings, 32))

    @property
    def growing(self) -> bool:
        """Whether more may run here at once in a moment."""
        return self.limit < self._concurrency

    def claim(self) -> int:
        """Claim and start what there is and there is room for; returns how many. Blocks.

        Not to be called from the event loop they run in, nor from two threads at once.
        """
        owner = str(uuid4())
        # Before the room is counted: a place given up from now on is worth another look.
        self.full = True
        limit = self._queue._worker_concurrency = self.limit
        running = self._dbos._active_workflows_set.count_for_queue(self._kind.queue)
        claimed, _ = self._dbos._sys_db.start_queued_workflows(
            self._queue,
            self._executor_id,
            APPLICATION_VERSION,
            None,
            running,
            owner_xid=owner,
            is_latest_version=False,
        )
        self.full = running + len(claimed) >= limit
        for workflow_id in claimed:
            self._start(workflow_id, owner)
        if claimed:
            # A started workflow counts as running from its task's first step on. This comes after.
            self._dbos._background_event_loop.submit_coroutine(asyncio.sleep(0))
        return len(claimed)

    def _start(self, workflow_id: str, owner: str) -> None:
        known = _ID.fullmatch(workflow_id)
        if known is None:
            self._refuse(workflow_id, owner)
            return
        arguments = [known[1], int(known[2])]
        status = _status(workflow_id, arguments, self._executor_id, self._kind)
        execute_dequeued_workflow(self._dbos, status, owner)

    def _refuse(self, workflow_id: str, owner: str) -> None:
        reason = ConfigurationError(
            f"Workflow {workflow_id} is no {self._kind.noun}, and the queue {self._kind.queue!r} "
            "takes nothing else. Enqueue it on a queue of its own application."
        )
        _LOG.error("%s", reason)
        serialized, _ = serialize_exception(reason, DBOSPortableJSON.name(), DBOSPortableJSON)
        self._dbos._sys_db.update_workflow_outcome(
            workflow_id, "ERROR", error=serialized, owner_xid=owner
        )


def _status(
    workflow_id: str, arguments: list[str | int], executor_id: str, kind: Kind
) -> WorkflowStatusInternal:
    """Return what a claimed workflow's row says, or would if nobody had meddled with it."""
    return {
        "workflow_uuid": workflow_id,
        "status": "PENDING",
        "name": kind.workflow,
        "class_name": None,
        "config_name": None,
        "authenticated_user": None,
        "assumed_role": None,
        "authenticated_roles": None,
        "created_at": None,
        "updated_at": None,
        "queue_name": kind.queue,
        "executor_id": executor_id,
        "app_version": APPLICATION_VERSION,
        "app_id": None,
        "recovery_attempts": None,
        "workflow_timeout_ms": None,
        "workflow_deadline_epoch_ms": None,
        "deduplication_id": None,
        "priority": 0,
        "inputs": json.dumps({"positionalArgs": arguments, "namedArgs": {}}),
        "queue_partition_key": None,
        "forked_from": None,
        "parent_workflow_id": None,
        "started_at_epoch_ms": None,
        "serialization": DBOSPortableJSON.name(),
        "delay_until_epoch_ms": None,
        "attributes": None,
        "schedule_name": None,
        "debounce_deadline_epoch_ms": None,
        "is_debounced": False,
        "application_name": "perdure",
        "shard_key": None,
    }
