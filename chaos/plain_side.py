"""Plain DBOS on trial: the same script with each call a step, driven through DBOS's client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from dbos import AsyncSQLAlchemyDatasource, DBOSClient

from chaos import script
from chaos.herd import Herd
from chaos.plain_worker import APPROVALS, QUEUE, VERSION, WORKFLOW
from chaos.side import RunRecord
from chaos.world import Log
from perdure.db import Pool, connect, load_sql, open_pool
from perdure.runs.dbos_schema import migrate_dbos

_SQL = load_sql("chaos", "plain_side.sql")
_STATUS = {"SUCCESS": "completed", "ERROR": "failed", "CANCELLED": "cancelled"}


class PlainSide:
    """The controller's client, which runs nothing itself."""

    name = "plain DBOS"
    worker = "chaos.plain_worker"

    def __init__(self, client: DBOSClient, pool: Pool) -> None:
        self._client = client
        self._pool = pool
        self._runs: dict[str, RunRecord] = {}
        """By workflow id."""
        self._lines = 0

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str) -> AsyncIterator[Self]:
        """Make DBOS's tables in the database of ``url`` and open it."""
        await asyncio.to_thread(migrate_dbos, url)
        async with await connect(url, application_name="chaos") as conn:
            await conn.execute(_SQL["prepare"])
        await AsyncSQLAlchemyDatasource.migrate(url)
        client = await asyncio.to_thread(DBOSClient, system_database_url=url)
        try:
            async with await open_pool(url, 1, 4) as pool:
                yield cls(client, pool)
        finally:
            await asyncio.to_thread(client.destroy)

    async def start(self, order: str) -> None:
        id = _id(order)
        await self._client.enqueue_async(
            {
                "queue_name": QUEUE,
                "workflow_name": WORKFLOW,
                "workflow_id": id,
                "app_version": VERSION,
            },
            script.FIRST,
            order,
        )
        self._runs[id] = RunRecord(order, time.time())

    async def decide(self, log: Log, herd: Herd) -> None:
        log.read_on()
        new, self._lines = log.lines[self._lines :], len(log.lines)
        for line in new:
            if line["kind"] == "waiting":
                order, run = line["order"], self._runs[_id(line["order"])]
                if run.waits:
                    continue
                await self._client.send_async(
                    _id(order), "approved", APPROVALS, idempotency_key=f"{order}:approved"
                )
                run.waits.append((line["at"], time.time()))

    async def unfinished(self) -> int:
        [row] = await self._rows("unfinished")
        return int(row["n"])

    async def records(self, log: Log) -> list[RunRecord]:
        for workflow in await self._client.list_workflows_async(workflow_id_prefix="order-"):
            if (run := self._runs.get(workflow.workflow_id)) is None:
                continue
            run.status = _STATUS.get(workflow.status, workflow.status.lower())
            run.output = workflow.output
            run.error = "" if workflow.error is None else repr(workflow.error)
            if run.status in _STATUS.values() and workflow.updated_at is not None:
                run.finished_at = workflow.updated_at / 1000
        for line in log.lines:
            if line["kind"] == "began":
                self._runs[_id(line["order"])].begins.append((line["at"], line["pid"]))
        bookings = {row["order_id"]: row["n"] for row in await self._rows("bookings")}
        for run in self._runs.values():
            run.bookings = bookings.get(run.order, 0)
        return list(self._runs.values())

    async def _rows(self, statement: str) -> list[dict[str, Any]]:
        async with self._pool.connection() as conn:
            return list(await (await conn.execute(_SQL[statement])).fetchall())


def _id(order: str) -> str:
    return f"order-{order}"
