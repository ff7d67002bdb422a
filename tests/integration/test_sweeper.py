"""What nobody runs is found and set going again, once, and nothing else is touched."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from agents import Agent, function_tool
from agents.testing import assistant_message
from dbos import DBOSClient

from perdure import effect
from perdure.engine import Engine, Run
from perdure.runs.stuck import count_repairs, find_stuck
from perdure.worker import sweep
from perdure.worker.held import HeldClaims, Round
from perdure.worker.sweep import Sweeper
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    call,
    query,
    replies_in,
)


class Ship:
    """An agent that ships what it is told to, once for each run, and answers."""

    def __init__(self, *, gate: Gate | None = None, **options: Any) -> None:
        self.shipped = Counter[str]()

        @effect("at_most_once")
        @function_tool(**options)
        async def ship(what: str) -> str:
            self.shipped[what] += 1
            if gate is not None:
                await gate.stop()
            return f"{what} is on its way"

        def rule(items: list[Any]) -> Any:
            what = items[0]["content"]
            if replies_in(items) == 0:
                return [call("ship", f"c-{what}", what=what)]
            return [assistant_message(f"shipped {what}")]

        self.agent = Agent(name="a", model=RuleModel(rule), tools=[ship])


def _sweeper(engine: Engine, name: str) -> Sweeper:
    """A sweeper of no worker: only for what all share."""
    queue = SimpleNamespace(round=Round(0, resting=True))
    return Sweeper(engine.pool, name, HeldClaims(), cast(Any, queue))


async def _repairs(engine: Engine) -> list[tuple[str, str]]:
    """What was repaired, by kind and input of the run, in order."""
    rows = await query(
        engine,
        "SELECT p.kind, r.input #>> '{}' AS input FROM perdure.repairs p"
        " JOIN perdure.runs r ON r.id = p.run_id ORDER BY input, kind",
    )
    return [(row["kind"], row["input"]) for row in rows]


async def _stuck(engine: Engine, **options: Any) -> dict[UUID, str]:
    async with engine.pool.connection() as conn:
        return {one.run_id: one.kind for one in await find_stuck(conn, **options)}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look waits for anything to be so for a while."""
    monkeypatch.setattr("perdure.runs.stuck.SECONDS", 0.0)
    monkeypatch.setattr("perdure.runs.stuck.CLAIM_SECONDS", 0.0)
    for name in ("SECONDS", "UNHELD_SECONDS", "NEXT_WINDOW_SECONDS"):
        monkeypatch.setattr(sweep, name, 0.0)
    for name in ("UNHELD_INTERVAL_SECONDS", "INTERVAL_SECONDS", "PARKED_INTERVAL_SECONDS"):
        monkeypatch.setattr(sweep, name, 0.02)


W = "UPDATE dbos.workflow_status SET "
OF = " WHERE workflow_uuid = %(id)s"
GARBAGE = "UPDATE dbos.workflow_input SET inputs = 'gASVBQAAAA=='" + OF
BEGUN = (
    "UPDATE perdure.segments SET status = 'running', epoch = 1, executor_id = %(by)s"
    " WHERE run_id = %(run_id)s",
    "UPDATE perdure.runs SET status = 'running' WHERE id = %(run_id)s",
)
ENDED, MISPLACED = "ended_workflow", "misplaced_workflow"
BROKEN: dict[str, tuple[str, tuple[str, ...]]] = {
    "success": (
        ENDED,
        (
            W
            + "status = 'SUCCESS', owner_xid = NULL, completed_at = updated_at, output = 'x'"
            + OF,
            "INSERT INTO dbos.workflow_output (workflow_uuid, output) VALUES (%(id)s, 'x')",
        ),
    ),
    "error": (ENDED, (W + "status = 'ERROR', serialization = 'py_pickle'" + OF, GARBAGE)),
    "dead letter": (
        ENDED,
        (W + "status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED', queue_name = NULL" + OF,),
    ),
    "begun by a dead one": (ENDED, (*BEGUN, W + "status = 'ERROR'" + OF)),
    "deleted": ("missing_workflow", ("DELETE FROM dbos.workflow_status" + OF, GARBAGE)),
    "deleted while running": (
        "missing_workflow",
        (
            *BEGUN,
            "DELETE FROM dbos.workflow_status" + OF,
            "DELETE FROM dbos.workflow_input" + OF,
        ),
    ),
    "version": (MISPLACED, (W + "application_version = 'v2'" + OF,)),
    "application": (MISPLACED, (W + "application_name = 'shop'" + OF,)),
    "queue": (MISPLACED, (W + "queue_name = 'elsewhere'" + OF,)),
    "delayed": (MISPLACED, (W + "status = 'DELAYED', delay_until_epoch_ms = 1e15" + OF,)),
}


async def test_every_kind_is_repaired_once_and_the_run_finishes_once(
    database_url: str, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "WINDOW", 5)
    monkeypatch.setattr(sweep, "MAX_REPAIRS", 3)
    ship = Ship()
    runs: dict[str, Run] = {}
    wrong: dict[UUID, str] = {}
    engine = Engine([ship.agent])
    async with engine.running(url=database_url, worker=False), _dbos(database_url) as dbos:
        for name, (kind, statements) in BROKEN.items():
            runs[name] = await engine.start("a", name)
            wrong[UUID(runs[name].id)] = kind
            await _break(engine, runs[name], statements)
        # As people do it, by way of the `dbos` command.
        for name, kind, act in (
            ("cancelled", ENDED, dbos.cancel_workflow_async),
            ("resumed", MISPLACED, dbos.resume_workflow_async),
        ):
            runs[name] = await engine.start("a", name)
            wrong[UUID(runs[name].id)] = kind
            await act(f"{runs[name].id}:1")
        # What is well, what is another's, and what only its owner can judge.
        runs["well"] = await engine.start("a", "well")
        runs["later"] = await engine.start("a", "later", delay_seconds=3600)
        runs["held"] = await engine.start("a", "held")
        await query(
            engine,
            "INSERT INTO perdure.executors (id, host, pid, version, lease_until)"
            " VALUES ('living', '', 1, '', now() + interval '1 hour')",
        )
        await _break(engine, runs["held"], (*BEGUN, W + "status = 'CANCELLED'" + OF), by="living")
        hosts = await _hosts_workflows(engine, dbos)

        assert await _stuck(engine) == wrong
        one, other = _sweeper(engine, "one"), _sweeper(engine, "other")
        await asyncio.gather(*(_until_done(sweeper) for sweeper in (one, other, one, other)))
        expected = sorted(
            [(kind, name) for name, (kind, _) in BROKEN.items()]
            + [(ENDED, "cancelled"), (MISPLACED, "resumed")],
            key=lambda repair: (repair[1], repair[0]),
        )
        assert await _repairs(engine) == expected
        assert await _stuck(engine) == {}
        async with engine.pool.connection() as conn:
            counts = Counter(kind for kind, _ in expected)
            assert await count_repairs(conn, 60) == counts
            assert await count_repairs(conn, 0) == {}

        # The living one dies; nobody else was asked before.
        await query(engine, "UPDATE perdure.executors SET lost_at = now() WHERE id = 'living'")
        await _until_done(one)
        assert len(await _repairs(engine)) == len(expected) + 1
        assert await _hosts_workflows(engine) == hosts

    async with engine.running(url=database_url):
        del runs["later"]
        for name, run in runs.items():
            engine_run = await engine.get(run.id)
            assert (await engine_run.wait(SECONDS)).output == f"shipped {name}"
        assert ship.shipped == Counter(dict.fromkeys(runs, 1))
        assert len(await _repairs(engine)) == len(expected) + 1
        assert await _hosts_workflows(engine) == hosts
        ended = await query(
            engine,
            "SELECT DISTINCT w.status, o.error FROM dbos.workflow_status w"
            " LEFT JOIN dbos.workflow_output o USING (workflow_uuid)"
            " WHERE w.name = 'perdure_segment' AND w.status <> 'DELAYED'",
        )
        assert [(row["status"], row["error"]) for row in ended] == [("SUCCESS", None)]


async def _break(
    engine: Engine, run: Run, statements: tuple[str, ...], by: str = "gone before"
) -> None:
    async with engine.pool.connection() as conn, conn.transaction():
        for statement in statements:
            params = {"id": f"{run.id}:1", "run_id": run.id, "by": by}
            cursor = await conn.execute(statement.encode(), params)
            assert cursor.rowcount == 1, statement


async def _until_done(sweeper: Sweeper) -> None:
    """Look at all there is, whatever it takes."""
    await _make_due(sweeper)
    async with asyncio.timeout(SECONDS):
        while not await sweeper.sweep_open_segments():
            pass


async def _make_due(sweeper: Sweeper) -> None:
    async with sweeper.pool.connection() as conn:
        await conn.execute("UPDATE perdure.sweeps SET due_at = now()")


@asynccontextmanager
async def _dbos(url: str) -> AsyncIterator[DBOSClient]:
    client = await asyncio.to_thread(DBOSClient, system_database_url=url)
    try:
        yield client
    finally:
        await asyncio.to_thread(client.destroy)


async def _hosts_workflows(engine: Engine, dbos: DBOSClient | None = None) -> list[dict[str, Any]]:
    """Workflows of a host that keeps its own in the same database; made with ``dbos``."""
    if dbos is not None:
        for status in ("ENQUEUED", "PENDING", "ERROR", "CANCELLED", "DELAYED"):
            options: Any = {"queue_name": "host", "workflow_name": "host_work"}
            handle = await dbos.enqueue_async(options, status)
            await query(
                engine,
                "UPDATE dbos.workflow_status SET status = %s, executor_id = 'host'"
                " WHERE workflow_uuid = %s",
                status,
                handle.get_workflow_id(),
            )
    return await query(
        engine,
        "SELECT w.*, i.inputs AS payload FROM dbos.workflow_status w"
        " LEFT JOIN dbos.workflow_input i USING (workflow_uuid)"
        " WHERE name = 'host_work' ORDER BY workflow_uuid",
    )
