"""Perdure on trial: runs started, questions answered and records read by a program beside it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from uuid import UUID

from chaos import script
from chaos.herd import Herd
from chaos.perdure_worker import make_engine
from chaos.side import RunRecord
from chaos.world import Log, World
from perdure import Engine
from perdure.db import connect, load_sql
from perdure.errors import AlreadyDecidedError, InvalidStateError
from perdure.migrate import migrate
from perdure.runs.dbos_schema import migrate_dbos

_THINKS_SECONDS = 0.5
"""How old a question is before a person is sure that something has not happened."""
_SQL = load_sql("chaos", "perdure_side.sql")


class PerdureSide:
    """The controller's engine, which runs nothing itself."""

    name = "Perdure"
    worker = "chaos.perdure_worker"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs: dict[str, RunRecord] = {}
        """By run id."""

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str) -> AsyncIterator[Self]:
        """Migrate the database of ``url`` and open it."""
        await migrate(url, system=migrate_dbos)
        async with await connect(url, application_name="chaos") as conn:
            await conn.execute(_SQL["prepare"])
        engine = make_engine(World())
        async with engine.running(worker=False, migrate_first=False, url=url):
            yield cls(engine)

    async def start(self, order: str) -> None:
        run = await self._engine.start(script.FIRST, order, idempotency_key=order, max_turns=50)
        self._runs[run.id] = RunRecord(order, time.time())

    async def decide(self, log: Log, herd: Herd) -> None:
        for question in await self._rows("pending"):
            run = self._runs.get(str(question["run_id"]))
            # What is decided already was, and only the answer to that was lost.
            with suppress(AlreadyDecidedError, InvalidStateError):
                if question["type"] == "tool_approval":
                    await self._engine.decide(question["id"], "approve", digest=question["digest"])
                elif run is not None:
                    await self._settle(question, run, log, herd)

    async def _settle(self, question: dict[str, Any], run: RunRecord, log: Log, herd: Herd) -> None:
        """Say whether a call happened, once no process is left that may still make it."""
        id, call_id = str(question["id"]), question["call_id"]
        doing = {row["pid"] for row in await self._rows("who_began", run_id=question["run_id"])}
        sure = question["age"] > _THINKS_SECONDS and not herd.may_still_act(doing)
        log.read_on()
        if log.effects[run.order, call_id]:
            call, _ = script.calls_of(run.order)[call_id]
            run.done[id] = call_id
            await self._engine.decide(
                id, "resolve", outcome="done", result=script.returned(call, run.order)
            )
        elif sure:
            run.not_done[id] = call_id
            await self._engine.decide(id, "resolve", outcome="not_done")

    async def unfinished(self) -> int:
        [row] = await self._rows("unfinished")
        return int(row["n"])

    async def records(self, log: Log) -> list[RunRecord]:
        for row in await self._rows("runs"):
            if (run := self._runs.get(str(row["id"]))) is not None:
                run.status, run.output, run.finished_at = (
                    row["status"],
                    row["output"],
                    row["finished_at"],
                )
                if row["error_type"]:
                    run.error = f"{row['error_type']}: {row['error_message']}"
        for row in await self._rows("begins"):
            self._of(row["run_id"]).begins.append((row["at"], row["pid"] or 0))
        for row in await self._rows("waits"):
            self._of(row["run_id"]).waits.append((row["since"], row["until"]))
        bookings = {row["order_id"]: row["n"] for row in await self._rows("bookings")}
        for run in self._runs.values():
            run.bookings = bookings.get(run.order, 0)
        return list(self._runs.values())

    def _of(self, run_id: UUID) -> RunRecord:
        return self._runs[str(run_id)]

    async def _rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        async with self._engine.pool.connection() as conn:
            return list(await (await conn.execute(_SQL[statement], values)).fetchall())
