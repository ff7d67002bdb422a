"""What nobody runs is found and set going again, once, and nothing else is touched."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest
from agents import Agent, function_tool
from agents.testing import assistant_message
from dbos import DBOSClient
from dbos._sys_db import SystemDatabase

from perdure import effect
from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.engine import Engine, Run
from perdure.interruptions.decisions import decide
from perdure.interruptions.rules import Decision
from perdure.runs.dbos_inside.claims import Claims as DBOSClaims
from perdure.runs.stuck import count_repairs, find_stuck, look_at_open_segments
from perdure.worker import sweep
from perdure.worker.held import HeldClaims, Round
from perdure.worker.sweep import Sweeper
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    call,
    error_of,
    eventually,
    query,
    replies_in,
    rested,
    running,
    turns,
)


class Ship:
    """An agent that ships what it is told to, once for each run, and answers."""

    def __init__(self, *, gate: Gate | None = None, **options: Any) -> None:
        self.shipped = Counter[str]()

        async def ship(what: str) -> str:
            self.shipped[what] += 1
            if gate is not None:
                await gate.stop()
            return f"{what} is on its way"

        tool = effect("at_most_once")(function_tool(ship, **options))

        def rule(items: list[Any]) -> Any:
            what = items[0]["content"]
            if replies_in(items) == 0:
                return [call("ship", f"c-{what}", what=what)]
            return [assistant_message(f"shipped {what}")]

        self.agent = Agent(name="a", model=RuleModel(rule), tools=[tool])


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


class Looks:
    """How often workers looked."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.taken = self.of_claims = 0
        self._one_more = asyncio.Event()
        look, lost = look_at_open_segments, HeldClaims.lost

        async def counted(*args: Any, **options: Any) -> Any:
            found = await look(*args, **options)
            self.taken += 1
            self._one_more.set()
            return found

        def counted_lost(*args: Any, **options: Any) -> Any:
            self.of_claims += 1
            return lost(*args, **options)

        patch.setattr(sweep, "look_at_open_segments", counted)
        patch.setattr(HeldClaims, "lost", counted_lost)

    async def more(self, count: int) -> None:
        """Wait for so many looks more, the last of which is over."""
        wanted = self.taken + count
        async with asyncio.timeout(SECONDS):
            while self.taken < wanted:
                self._one_more.clear()
                await self._one_more.wait()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """The looks of all sweepers of the test."""
    return Looks(monkeypatch)


W = "UPDATE dbos.workflow_status SET "
RUN = " WHERE run_id = %(run_id)s"
OF = " WHERE workflow_uuid = %(id)s"
GARBAGE = "UPDATE dbos.workflow_input SET inputs = 'gASVBQAAAA=='" + OF
BEGUN = (
    "UPDATE perdure.segments SET status = 'running', executor_id = %(by)s" + RUN,
    "UPDATE perdure.runs SET status = 'running'" + RUN.replace("run_id", "id", 1),
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
            handle: Any = await dbos.enqueue_async(options, status)
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


async def test_a_claim_whose_answer_was_lost_is_given_back_by_its_owner(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real intervals: it is found within about five seconds."""
    claim = SystemDatabase.start_queued_workflows
    lost: list[str] = []

    def unanswered(self: Any, *args: Any, **options: Any) -> Any:
        claimed, reason = claim(self, *args, **options)
        if claimed and len(lost) < 3:
            lost.extend(claimed)
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return claimed, reason

    monkeypatch.setattr(SystemDatabase, "start_queued_workflows", unanswered)
    ship = Ship()
    async with running(database_url, ship.agent) as engine:
        names = ["one", "two", "three", "four", "five"]
        runs = [await engine.start("a", name) for name in names]
        async with asyncio.timeout(10):
            for run in runs:
                assert (await run.wait(SECONDS)).status == "completed"
        assert len(lost) >= 3
        assert ship.shipped == Counter(names)
        repairs = await query(
            engine,
            "SELECT p.run_id || ':' || p.segment AS id, p.kind,"
            " p.executor_id = p.repaired_by AS own, s.executions,"
            " EXTRACT(epoch FROM p.repaired_at - r.created_at) AS after"
            " FROM perdure.repairs p JOIN perdure.runs r ON r.id = p.run_id"
            " JOIN perdure.segments s ON s.run_id = p.run_id",
        )
        assert sorted(row["id"] for row in repairs) == sorted(lost)
        for row in repairs:
            assert (row["kind"], row["own"], row["executions"]) == ("unheld_claim", True, 1)
            assert row["after"] < 6


async def test_a_claim_that_comes_after_it_was_given_back_is_not_begun(
    database_url: str, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claiming thread is held up between its claim and the start of what it claimed."""
    monkeypatch.setattr(sweep, "HUNG_SECONDS", 0.0)
    start, go_on, comes = DBOSClaims._start, threading.Event(), iter((True,))

    def late(self: Any, workflow_id: str, owner: str) -> None:
        if next(comes, False):
            go_on.wait(SECONDS)
        start(self, workflow_id, owner)

    monkeypatch.setattr(DBOSClaims, "_start", late)
    ship = Ship()
    async with running(database_url, ship.agent) as engine:
        run = await engine.start("a", "late")
        await eventually(lambda: _repairs(engine))
        go_on.set()
        assert (await run.wait(SECONDS)).output == "shipped late"
        assert await _repairs(engine) == [("unheld_claim", "late")]
        segments = await query(engine, "SELECT executions FROM perdure.segments")
        assert [row["executions"] for row in segments] == [1]


async def test_what_runs_is_left_to_whoever_runs_it(
    database_url: str, hasty: None, looks: Looks
) -> None:
    """Its workflow is cancelled, resumed and deleted while its tool is at work."""
    gate = Gate()
    ship = Ship(gate=gate)
    async with running(database_url, ship.agent) as engine, _dbos(database_url) as dbos:
        run = await engine.start("a", "it")
        await gate.reached()
        workflow_id = f"{run.id}:1"
        for act in (
            dbos.cancel_workflow_async,
            dbos.resume_workflow_async,
            dbos.delete_workflow_async,
        ):
            await act(workflow_id)
            await looks.more(3)
            assert await _repairs(engine) == []
            assert await _stuck(engine) == {}
        gate.open()
        assert (await run.wait(SECONDS)).output == "shipped it"
        assert await _repairs(engine) == []
    assert ship.shipped == Counter(it=1)


async def test_what_this_worker_began_and_runs_no_more_goes_on(
    database_url: str, hasty: None
) -> None:
    """As if DBOS had ended it while the worker lives; nobody is counted as dead."""
    ship = Ship()
    cases = {
        ENDED: W + "status = 'SUCCESS', owner_xid = NULL" + OF,
        MISPLACED: W + "queue_name = '_dbos_internal_queue'" + OF,
        "missing_workflow": "DELETE FROM dbos.workflow_status" + OF,
    }
    async with running(database_url, ship.agent) as engine:
        [worker] = await query(engine, "SELECT id FROM perdure.executors")
        for kind, statement in cases.items():
            async with engine.pool.connection() as conn, conn.transaction():
                run = await engine.start("a", kind, connection=conn)
                for one in (*BEGUN, statement):
                    params = {"id": f"{run.id}:1", "run_id": run.id, "by": worker["id"]}
                    await conn.execute(one.encode(), params)
            assert (await run.wait(SECONDS)).output == f"shipped {kind}"
        assert await _repairs(engine) == [(kind, kind) for kind in sorted(cases)]
        segments = await query(engine, "SELECT executions, stalled FROM perdure.segments")
        assert segments == [{"executions": 1, "stalled": 0}] * len(cases)


async def test_healthy_work_is_never_repaired_and_waits_for_no_poll(
    database_url: str, hasty: None, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.worker.wake.POLL_SECONDS", 600.0)
    model = turns("hello")
    async with running(database_url, Agent(name="a", model=model), concurrency=16) as engine:
        runs = await asyncio.gather(*(engine.start("a", "hi") for _ in range(200)))
        for run in runs:
            assert (await run.wait(60)).status == "completed"
        assert looks.taken > 10
        assert looks.of_claims > 10
        assert await _repairs(engine) == []
        assert model.asked == 200


async def test_decided_runs_without_a_next_segment_go_on(
    database_url: str, hasty: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(sweep, "PARKED_WINDOW", 2)
    ship = Ship(needs_approval=True)
    engine = Engine([ship.agent])
    async with engine.running(url=database_url):
        runs = {
            name: await rested(engine, "a", name)
            for name in ("waits", "decided", "abandoned", "unasked", "done", "rested")
        }
    async with engine.running(url=database_url, worker=False):
        for name in ("decided", "done"):
            [one] = runs[name].interruptions
            async with engine.pool.connection() as conn:
                # The decision alone, without what it sets going.
                await decide(
                    conn,
                    tenant_id=DEFAULT_TENANT,
                    interruption_id=UUID(one.id),
                    decision=Decision("approve", digest=one.digest),
                    by=program_principal("ada"),
                )
        await _abandon(engine, runs["abandoned"])
        ids = {name: UUID(run.id) for name, run in runs.items()}
        await query(engine, "DELETE FROM perdure.interruptions WHERE run_id = %s", ids["unasked"])
        await query(
            engine, "UPDATE perdure.runs SET status = 'running' WHERE id = %s", ids["rested"]
        )
        assert await _stuck(engine, parked=True) == {
            ids["decided"]: "missing_segment",
            ids["done"]: "missing_segment",
            ids["abandoned"]: "missing_segment",
            ids["unasked"]: "nothing_to_wait_for",
            ids["rested"]: "no_open_segment",
        }
        sweepers = [_sweeper(engine, name) for name in ("one", "other")]
        for _ in range(5):
            await _make_due(sweepers[0])
            await asyncio.gather(*(one.sweep_parked_runs() for one in sweepers))
        assert await _repairs(engine) == [
            ("missing_segment", name) for name in ("abandoned", "decided", "done")
        ]
        # What nobody can repair is told of, each of the two once.
        for text in ("waits for nobody", "missing or over"):
            assert 1 <= caplog.text.count(text) <= len(sweepers)
    async with engine.running(url=database_url):
        for name in ("decided", "done"):
            run = await engine.get(runs[name].id)
            assert (await run.wait(SECONDS)).output == f"shipped {name}"
        abandoned = await engine.get(runs["abandoned"].id)
        assert error_of(abandoned)["type"] == "abandoned"
        assert (await engine.get(runs["waits"].id)).status == "interrupted"
        assert ship.shipped == Counter(decided=1, done=1)
        assert len(await _repairs(engine)) == 3


async def _abandon(engine: Engine, run: Run) -> None:
    """Make the run's question one whose call was abandoned, as its decision leaves it."""
    await query(
        engine,
        "WITH closed AS (UPDATE perdure.interruptions SET status = 'resolved', closed_at = now(),"
        " type = 'uncertain_effect' WHERE run_id = %s RETURNING *)"
        " INSERT INTO perdure.decisions (id, interruption_id, run_id, tenant_id, decision, by_type,"
        " by_subject, outcome) SELECT gen_random_uuid(), id, run_id, tenant_id, 'resolve', 'local',"
        " 'ada', 'abandon' FROM closed",
        run.id,
    )


async def test_a_sweeper_that_dies_before_its_commit_has_repaired_nothing(
    database_url: str, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine([Ship().agent])
    async with engine.running(url=database_url, worker=False):
        for name in ("one", "two"):
            run = await engine.start("a", name)
            await _break(engine, run, (W + "status = 'ERROR'" + OF,))
        broken = await _stuck(engine)
        assert len(broken) == 2
        dying, repair_each = _sweeper(engine, "dying"), Sweeper._repair_each

        async def die_after(self: Sweeper, conn: Any, stuck: Any) -> Any:
            assert len(await repair_each(self, conn, stuck)) == 2
            await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        with monkeypatch.context() as patch:
            patch.setattr(Sweeper, "_repair_each", die_after)
            with pytest.raises(psycopg.OperationalError):
                await dying.sweep_open_segments()
        assert await _repairs(engine) == []
        assert await _stuck(engine) == broken
        # It is still due: the next one repairs, and the one after it finds nothing.
        await _sweeper(engine, "next").sweep_open_segments()
        await _until_done(_sweeper(engine, "after"))
        assert await _repairs(engine) == [("ended_workflow", "one"), ("ended_workflow", "two")]


async def test_a_look_is_taken_by_one_and_not_before_it_is_due(
    database_url: str, looks: Looks
) -> None:
    engine = Engine([Ship().agent])
    async with engine.running(url=database_url, worker=False):
        await asyncio.gather(*(_sweeper(engine, str(n)).sweep_open_segments() for n in range(5)))
        assert looks.taken == 1
        [row] = await query(
            engine,
            "SELECT EXTRACT(epoch FROM due_at - now()) AS seconds FROM perdure.sweeps"
            " WHERE name = 'open_segments'",
        )
        assert 5 < row["seconds"] <= 10
        # What is as it is for a moment only is nobody's fault yet.
        run = await engine.start("a", "new")
        await _break(engine, run, (W + "status = 'ERROR'" + OF,))
        assert await _stuck(engine, parked=True) == {}
        await query(engine, "UPDATE dbos.workflow_status SET updated_at = updated_at - 6000")
        assert await _stuck(engine) == {UUID(run.id): "ended_workflow"}


async def test_what_is_not_for_the_sweeper_is_told_too(database_url: str, hasty: None) -> None:
    """Whose turn it is to repair it, or that nobody can."""
    engine = Engine([Ship().agent])
    async with engine.running(url=database_url, worker=False):
        run = await engine.start("a", "it")
        await query(
            engine,
            "INSERT INTO perdure.executors (id, host, pid, version) VALUES ('living', '', 1, '')",
        )
        claimed = W + "status = 'PENDING', executor_id = 'living', started_at_epoch_ms = 1" + OF
        for statements, kind in (
            (("UPDATE dbos.workflow_status SET name = 'other'" + OF,), "foreign_workflow"),
            ((W + "status = 'PENDING', executor_id = 'nobody'" + OF,), "dead_executor"),
            ((claimed,), "unheld_claim"),
            ((claimed, *BEGUN), "unheld_claim"),
            ((claimed, *(one.replace("%(by)s", "'living'") for one in BEGUN)), None),
            # It waits to be run alone, or is.
            ((claimed, *(one.replace("%(by)s", "NULL") for one in BEGUN)), None),
        ):
            async with engine.pool.connection() as conn, conn.transaction(force_rollback=True):
                for one in statements:
                    params = {"id": f"{run.id}:1", "run_id": run.id, "by": "dead"}
                    await conn.execute(one.encode(), params)
                found = await find_stuck(conn)
                assert [one.kind for one in found] == ([kind] if kind else []), statements
                if found:
                    assert str(run.id) in found[0].where
                    assert found[0].text
        assert await _stuck(engine) == {}
