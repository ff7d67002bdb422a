"""What runs/dbos_inside leans on inside DBOS is still there and means what it is taken for.

A failure here after an upgrade of DBOS says which of its undocumented parts has changed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any
from uuid import UUID

import pytest
from agents import Agent
from dbos import DBOS

from perdure.db import Connection, connect, uuid7
from perdure.engine import Engine
from perdure.errors import ConfigurationError, MigrationError
from perdure.migrate import migrate
from perdure.runs.dbos_inside import claims, instance
from perdure.runs.dbos_inside.claims import Claims
from perdure.runs.dbos_inside.kinds import SEGMENT
from perdure.runs.dbos_inside.statements import Seen, requeue
from perdure.runs.dbos_inside.tested import TESTED, problem_with
from perdure.runs.dbos_schema import dbos_sql, dbos_version, known_dbos_version, migrate_dbos
from perdure.runs.enqueue import enqueue
from tests.engine_support import SECONDS, eventually, rested, running, turns


def test_the_dbos_that_is_installed_is_the_one_that_was_tested() -> None:
    assert problem_with(metadata.version("dbos")) is None


@dataclass
class Bench:
    """DBOS launched for segments whose body is the test's, and a connection to look at rows."""

    dbos: DBOS
    claims: Claims
    conn: Connection

    async def claim(self) -> int:
        return await asyncio.to_thread(self.claims.claim)

    async def enqueue(self, run_id: UUID | None = None, seq: int = 1, priority: int = 0) -> str:
        """Enqueue a segment; returns its workflow's id."""
        run_id = run_id or uuid7()
        await enqueue(self.conn, run_id, seq, priority=priority)
        return f"{run_id}:{seq}"

    async def row(self, workflow_id: str) -> dict[str, Any]:
        return await workflow(self.conn, workflow_id)

    async def ended(self, workflow_id: str, *statuses: str) -> dict[str, Any]:
        """The row once its status is one of these."""

        async def look() -> dict[str, Any] | None:
            row = await self.row(workflow_id)
            return row if row["status"] in statuses else None

        found: dict[str, Any] = await eventually(look)
        return found


async def workflow(conn: Connection, workflow_id: str) -> dict[str, Any]:
    """A workflow's row, with its arguments and its outcome from where DBOS keeps them."""
    cursor = await conn.execute(
        "SELECT w.*, i.inputs AS stored_inputs, o.output AS stored_output, o.error AS stored_error"
        " FROM dbos.workflow_status w LEFT JOIN dbos.workflow_input i USING (workflow_uuid)"
        " LEFT JOIN dbos.workflow_output o USING (workflow_uuid) WHERE workflow_uuid = %s",
        (workflow_id,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row


async def nothing(_: UUID, __: int) -> str:
    return "over"


@asynccontextmanager
async def launched(
    url: str, body: Callable[[UUID, int], Any] = nothing, concurrency: int = 64
) -> AsyncIterator[Bench]:
    """DBOS as a worker runs it, but for the loop that claims."""
    conn = await connect(url)
    async with conn:
        with instance.running(url, "executor-1", {SEGMENT: body}) as dbos:
            bench = Bench(dbos, Claims(dbos, "executor-1", concurrency), conn)
            # As of a worker that has lived for a while: it takes all it has room for.
            bench.claims._born -= 3600
            yield bench
            for task in instance.workflow_tasks(dbos):
                task.cancel()
            await asyncio.gather(*instance.workflow_tasks(dbos), return_exceptions=True)


async def test_an_enqueue_makes_the_row_a_claim_looks_for_and_attaches_to_a_known_id(
    database_url: str,
) -> None:
    async with launched(database_url) as bench:
        run_id = uuid7()
        workflow_id = await bench.enqueue(run_id, 3, priority=7)
        row = await bench.row(workflow_id)
        assert {
            "status": "ENQUEUED",
            "name": "perdure_segment",
            "queue_name": "perdure",
            "application_version": "perdure",
            "application_name": "perdure",
            "serialization": "portable_json",
            "priority": 7,
            "recovery_attempts": 0,
            "executor_id": None,
        }.items() <= row.items()
        arguments = {"positionalArgs": [str(run_id), 3], "namedArgs": {}}
        assert json.loads(row["stored_inputs"]) == arguments
        assert await bench.enqueue(run_id, 3) == workflow_id
        again = await bench.row(workflow_id)
        assert again == row | {"updated_at": again["updated_at"]}
        assert await bench.claim() == 1
        await bench.ended(workflow_id, "SUCCESS")
        # A segment that is over is not begun anew.
        await bench.enqueue(run_id, 3)
        assert (await bench.row(workflow_id))["status"] == "SUCCESS"
        assert await bench.claim() == 0


async def test_a_claim_takes_what_there_is_room_for_and_writes_a_new_owner(
    database_url: str,
) -> None:
    leave = {n: asyncio.Event() for n in (1, 2, 3)}
    began: list[int] = []

    async def body(_: UUID, seq: int) -> str:
        began.append(seq)
        await leave[seq].wait()
        return "completed"

    async with launched(database_url, body, concurrency=2) as bench:
        ids = [await bench.enqueue(seq=n, priority=priority) for n, priority in ((1, 5), (2, 1))]
        ids.append(await bench.enqueue(seq=3, priority=9))
        queued = [await bench.row(one) for one in ids]
        assert await bench.claim() == 2
        # What was begun counts at once.
        assert await bench.claim() == 0
        assert began == [2, 1]
        for before, after in zip(
            queued[:2], [await bench.row(one) for one in ids[:2]], strict=True
        ):
            assert (after["status"], after["executor_id"]) == ("PENDING", "executor-1")
            assert after["owner_xid"] not in (None, before["owner_xid"])
            assert after["started_at_epoch_ms"] is not None
            assert after["recovery_attempts"] == 1
        assert len(instance.workflow_tasks(bench.dbos)) == 2
        leave[1].set()
        done = await bench.ended(ids[0], "SUCCESS")
        assert (done["owner_xid"], done["stored_output"]) == (None, '"completed"')
        assert done["completed_at"] is not None
        # Its place is free when its task is over, a moment after its outcome is recorded.
        assert await eventually(bench.claim) == 1
        leave[2].set()
        leave[3].set()
        for one in ids:
            await bench.ended(one, "SUCCESS")
        assert began == [2, 1, 3]


async def test_a_new_worker_takes_few_and_more_as_it_lives_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "FIRST_AT_ONCE", 1)
    leave = asyncio.Event()

    async def body(*_: Any) -> str:
        await leave.wait()
        return "completed"

    async with launched(database_url, body, concurrency=3) as bench:
        ids = [await bench.enqueue(seq=n) for n in range(1, 5)]
        taken = []
        for lived in (0.0, 0.9, 1.0, 2.0, 60.0):
            bench.claims._born = time.monotonic() - lived
            taken.append(await bench.claim())
            assert bench.claims.growing == (lived < 2)
        # One, two, and no more than the three there may be.
        assert taken == [1, 0, 1, 1, 0]
        leave.set()
        for one in ids[:3]:
            await bench.ended(one, "SUCCESS")


async def test_the_outcome_of_an_old_owner_is_refused(database_url: str) -> None:
    began: list[asyncio.Event] = []

    async def body(_: UUID, __: int) -> str:
        began.append(asyncio.Event())
        number = len(began)
        await began[-1].wait()
        return f"execution {number}"

    async with launched(database_url, body) as bench:
        workflow_id = await bench.enqueue()
        assert await bench.claim() == 1
        [old] = instance.workflow_tasks(bench.dbos)
        first = await bench.row(workflow_id)
        seen = Seen(workflow_id, "PENDING", first["owner_xid"])
        assert await requeue(bench.conn, [seen]) == [workflow_id]
        assert await bench.claim() == 1
        second = await bench.row(workflow_id)
        assert second["owner_xid"] not in (None, first["owner_xid"])
        # Who looked before that second claim is too late.
        assert await requeue(bench.conn, [seen]) == []
        began[0].set()
        # It gives up its place and waits for what the new owner records.
        await eventually(lambda: _one_counts(bench.dbos))
        assert (await bench.row(workflow_id))["owner_xid"] == second["owner_xid"]
        began[1].set()
        done = await bench.ended(workflow_id, "SUCCESS")
        assert done["stored_output"] == '"execution 2"'
        async with asyncio.timeout(SECONDS):
            await old


async def _one_counts(dbos: DBOS) -> bool:
    return dbos._active_workflows_set.count_for_queue("perdure") == 1


async def test_what_comes_out_of_a_body(database_url: str) -> None:
    async def body(_: UUID, seq: int) -> str:
        if seq == 1:
            raise ValueError("in words")
        raise asyncio.CancelledError

    async with launched(database_url, body) as bench:
        failed, cancelled = await bench.enqueue(seq=1), await bench.enqueue(seq=2)
        assert await bench.claim() == 2
        row = await bench.ended(failed, "ERROR")
        assert json.loads(row["stored_error"])["message"] == "in words"
        async with asyncio.timeout(SECONDS):
            while instance.workflow_tasks(bench.dbos):
                await asyncio.wait(instance.workflow_tasks(bench.dbos))
        # A cancelled one is nobody's end: whoever recovers it begins it again.
        row = await bench.row(cancelled)
        assert (row["status"], row["executor_id"]) == ("PENDING", "executor-1")


async def test_only_segments_of_our_queue_version_and_application_are_claimed(
    database_url: str,
) -> None:
    ran: list[int] = []

    async def body(_: UUID, seq: int) -> str:
        ran.append(seq)
        return "completed"

    async with launched(database_url, body) as bench:
        others = [
            ("perdure", None, "perdure"),
            ("perdure", None, None),
            ("perdure", "v1", "perdure"),
            ("perdure", "perdure", "host"),
            ("jobs", "perdure", None),
            ("_dbos_internal_queue", None, None),
        ]
        for n, (queue, version, application) in enumerate(others):
            await bench.conn.execute(
                "SELECT dbos.enqueue_workflow('job', %s, workflow_id => %s, app_version => %s,"
                " application_name => %s)",
                (queue, f"{uuid7()}:{n}", version, application),
            )
        await bench.conn.execute(
            "SELECT dbos.enqueue_workflow('job', 'perdure', workflow_id => 'stray',"
            " app_version => 'perdure', application_name => 'perdure')"
        )
        ours = await bench.enqueue(seq=9)
        assert await bench.claim() == 2
        await bench.ended(ours, "SUCCESS")
        assert ran == [9]
        # What was put on our queue and is no segment is told so, not left lying.
        stray = await bench.row("stray")
        assert stray["status"] == "ERROR"
        assert "no segment" in json.loads(stray["stored_error"])["message"]
        cursor = await bench.conn.execute(
            "SELECT count(*) AS untouched FROM dbos.workflow_status"
            " WHERE status = 'ENQUEUED' AND name = 'job' AND updated_at = created_at"
        )
        assert await cursor.fetchone() == {"untouched": len(others)}
        # No version that could be somebody's latest, no queue somebody could listen to.
        for table in ("application_versions", "queues"):
            assert await (await bench.conn.execute(f"SELECT FROM dbos.{table}")).fetchall() == []
        assert bench.dbos._background_threads == []
        names = {thread.name for thread in threading.enumerate()}
        assert not {name for name in names if "queue" in name or "dbos-background" in name}


DEFACED: dict[str, list[Any]] = {
    "status": ["PENDING", "ERROR", "SUCCESS", "CANCELLED", "DELAYED", "NONSENSE", None],
    "name": ["job", None],
    "class_name": ["C"],
    "config_name": ["c"],
    "queue_name": ["jobs", None],
    "queue_partition_key": ["a"],
    "application_version": ["v1", None],
    "application_name": ["host", None],
    "serialization": ["py_pickle", None],
    "inputs": ["gASVBQAA"],
    "output": ["gASVBQAA"],
    "error": ["gASVBQAA"],
    "executor_id": ["gone"],
    "owner_xid": ["somebody", None],
    "recovery_attempts": [100, None],
    "workflow_timeout_ms": [1],
    "workflow_deadline_epoch_ms": [1],
    "delay_until_epoch_ms": [1],
    "authenticated_roles": ['["a"]'],
    "attributes": ['{"a": 1}'],
}
"""What may stand in the columns of a segment's row when somebody has meddled with it."""


async def test_a_segment_is_requeued_as_if_new_whatever_became_of_its_row(
    database_url: str,
) -> None:
    async with launched(database_url) as bench:
        fresh = await bench.row(await bench.enqueue())
        cases = [(column, value) for column, values in DEFACED.items() for value in values]
        ids = []
        for n, (column, value) in enumerate(cases, 1):
            ids.append(await bench.enqueue(seq=n))
            await bench.conn.execute(
                f"UPDATE dbos.workflow_status SET {column} = %s WHERE workflow_uuid = %s",
                (value, ids[-1]),
            )
            await bench.conn.execute(
                "UPDATE dbos.workflow_input SET inputs = 'gASVBQAA' WHERE workflow_uuid = %s",
                (ids[-1],),
            )
            await bench.conn.execute(
                "INSERT INTO dbos.workflow_output (workflow_uuid, output) VALUES (%s, 'x')",
                (ids[-1],),
            )
        rows = [await bench.row(one) for one in ids]
        seen = [Seen(one["workflow_uuid"], one["status"], one["owner_xid"]) for one in rows]
        # Not as it was seen, not there, not a segment: left alone.
        await bench.conn.execute("SELECT dbos.enqueue_workflow('job', 'jobs', workflow_id => 'j')")
        job = await bench.row("j")
        others = [
            Seen(ids[-1], "PENDING", rows[-1]["owner_xid"]),
            Seen(ids[-1], rows[-1]["status"], "somebody else"),
            Seen(f"{uuid7()}:1", "ENQUEUED", None),
            Seen("j", job["status"], job["owner_xid"]),
        ]
        assert await requeue(bench.conn, others) == []
        assert await bench.row("j") == job
        assert sorted(await requeue(bench.conn, seen)) == sorted(ids)
        own = {"workflow_uuid", "created_at", "updated_at", "stored_inputs"}
        for n, (workflow_id, case) in enumerate(zip(ids, cases, strict=True), 1):
            row = await bench.row(workflow_id)
            expected = {**fresh, "owner_xid": None}
            assert {key: row[key] for key in row if key not in own} == {
                key: expected[key] for key in row if key not in own
            }, case
            run_id = workflow_id.split(":")[0]
            assert json.loads(row["stored_inputs"])["positionalArgs"] == [run_id, n], case
        assert await bench.claim() == len(cases) + 1
        for workflow_id in ids:
            assert (await bench.ended(workflow_id, "SUCCESS"))["stored_output"] == '"over"'


async def test_the_number_of_migrations_is_the_version_of_the_tables(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with await connect(database_url) as conn:
        known = known_dbos_version()
        assert await dbos_version(conn) == known
        await conn.execute("UPDATE dbos.dbos_migrations SET version = %s", (known + 1,))
    with caplog.at_level(logging.WARNING):
        async with running(database_url, Agent(name="a", model=turns("done"))) as engine:
            assert (await rested(engine, "a")).status == "completed"
    assert f"version {known + 1}" in caplog.text
    async with await connect(database_url) as conn:
        await conn.execute("UPDATE dbos.dbos_migrations SET version = %s", (known - 1,))
    with (
        pytest.raises(MigrationError, match="perdure migrate"),
        instance.running(database_url, "executor-1", {SEGMENT: nothing}),
    ):
        pass


async def test_an_untested_dbos_is_refused_before_anything_is_done(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine([Agent(name="a", model=turns("done"))])
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda _: "3.5.0")
        refused = pytest.raises(ConfigurationError, match=rf"DBOS 3\.5\.0.*{TESTED}.*Install")
        with refused:
            await migrate(empty_database_url, system=migrate_dbos)
        with refused:
            dbos_sql()
        with refused:
            async with engine.running(url=empty_database_url):
                pass
    await migrate(empty_database_url, system=migrate_dbos)
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda _: "4.0")
        with pytest.raises(ConfigurationError, match=r"DBOS 4\.0"):
            async with engine.running(url=empty_database_url, migrate_first=False):
                pass
