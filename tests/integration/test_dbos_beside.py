"""A program that uses DBOS by itself: in the same process, and on the same database."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent
from dbos import DBOS, DBOSClient, _dbos
from dbos._error import DBOSException

from perdure.engine import Engine
from perdure.errors import ConfigurationError
from tests import dbos_host
from tests.engine_support import SECONDS, query, rested, running, turns

ROOT = Path(__file__).parents[2]


def _agent() -> Agent[Any]:
    return Agent(name="a", model=turns("done"))


async def _host_rows(engine: Engine) -> list[dict[str, Any]]:
    return await query(
        engine,
        "SELECT w.*, i.inputs AS stored_inputs, o.output AS stored_output"
        " FROM dbos.workflow_status w LEFT JOIN dbos.workflow_input i USING (workflow_uuid)"
        " LEFT JOIN dbos.workflow_output o USING (workflow_uuid)"
        " WHERE name <> 'perdure_segment' ORDER BY workflow_uuid",
    )


@pytest.fixture
def host_registry() -> Iterator[Any]:
    """The registry of a program that has decorated the workflows of tests/dbos_host.py."""
    kept = _dbos._dbos_global_registry
    _dbos._dbos_global_registry = dbos_host_registry
    dbos_host_registry.dbos = None
    yield dbos_host_registry
    DBOS.destroy()
    _dbos._dbos_global_registry = kept


# Other tests of this process import it too; whoever did first made the registry.
dbos_host_registry: Any = _dbos._get_or_create_dbos_registry()


async def test_a_process_that_runs_dbos_is_refused_and_goes_on_as_before(
    database_url: str, host_registry: Any
) -> None:
    reached, leave = threading.Event(), threading.Event()

    @DBOS.workflow(name="host_waits")
    def waits() -> str:
        reached.set()
        assert leave.wait(SECONDS)
        return "waited"

    # Made and not launched is enough to be somebody's.
    host = DBOS(config={"name": dbos_host.NAME, "system_database_url": database_url})
    with pytest.raises(ConfigurationError, match="DBOS already"):
        async with running(database_url, _agent()):
            pass
    assert _dbos._dbos_global_instance is host
    DBOS.destroy()
    await asyncio.to_thread(dbos_host.launch, database_url)
    host = DBOS(config={"name": dbos_host.NAME})
    under_way = await asyncio.to_thread(DBOS.start_workflow, waits)
    assert await asyncio.to_thread(reached.wait, SECONDS)
    engine = Engine([_agent()])
    async with engine.running(url=database_url, worker=False):
        before = await _host_rows(engine)
        # A start is taken all the same; a worker elsewhere runs it.
        run = await engine.start("a", "hi")
    with pytest.raises(ConfigurationError, match=r"DBOS already.*left as they are.*perdure worker"):
        async with engine.running(url=database_url):
            pass
    assert _dbos._dbos_global_instance is host
    assert _dbos._dbos_global_registry is host_registry
    async with engine.running(url=database_url, worker=False):
        assert await _host_rows(engine) == before
        assert (await run.refresh()).status == "queued"
    leave.set()
    assert await asyncio.to_thread(under_way.get_result) == "waited"
    queued = await asyncio.to_thread(DBOS.enqueue_workflow, dbos_host.QUEUE, dbos_host.job, "more")
    assert await asyncio.to_thread(queued.get_result) == "did more"


async def test_a_program_that_has_only_decorated_workflows_keeps_them(
    database_url: str, host_registry: Any
) -> None:
    workflows = dict(host_registry.workflow_info_map)
    assert {"host_job", "host_beat"} <= set(workflows)
    async with running(database_url, _agent()) as engine:
        await query(
            engine,
            "SELECT dbos.enqueue_workflow('host_job', NULLIF(%s, ''), ARRAY[to_json('it'::text)],"
            " workflow_id => 'left', app_version => %s, application_name => %s)",
            dbos_host.QUEUE,
            dbos_host.VERSION,
            dbos_host.NAME,
        )
        await query(
            engine,
            "UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = %s",
            dbos_host.EXECUTOR,
        )
        before = await _host_rows(engine)
        # While ours runs, the program's workflows do not run on it, and it cannot be reconfigured.
        for attempt in (
            lambda: DBOS(config={"name": "host", "system_database_url": database_url}),
            DBOS.launch,
            lambda: DBOS.start_workflow(dbos_host.job, "now"),
            lambda: dbos_host.job("now"),
            lambda: DBOS.listen_queues([dbos_host.QUEUE]),
            DBOS.destroy,
        ):
            with pytest.raises((ConfigurationError, DBOSException)) as refused:
                await asyncio.to_thread(attempt)
            assert "Perdure" in str(refused.value) or "before DBOS initialized" in str(
                refused.value
            )
        assert (await rested(engine, "a")).status == "completed"
        # A client is no instance: it enqueues for whoever serves the queue.
        client = DBOSClient(system_database_url=database_url)
        try:
            await client.enqueue_async(
                {"workflow_name": "host_job", "queue_name": dbos_host.QUEUE, "workflow_id": "sent"},
                "that",
            )
        finally:
            client.destroy()
        assert await _host_rows(engine) == before + [
            row for row in await _host_rows(engine) if row["workflow_uuid"] == "sent"
        ]
    assert _dbos._dbos_global_instance is None
    assert dict(host_registry.workflow_info_map) == workflows
    assert _dbos._dbos_global_registry is host_registry
    # Now it is the program's turn: what it left behind and what was sent to it is done.
    await asyncio.to_thread(dbos_host.launch, database_url)
    for workflow_id, result in (("left", "did it"), ("sent", "did that")):
        handle: Any = await asyncio.to_thread(DBOS.retrieve_workflow, workflow_id)
        assert await asyncio.to_thread(handle.get_result) == result


HOST_WORKFLOWS: dict[str, str] = {
    "on its queue": "queue_name => 'host_jobs'",
    "on the internal queue": "queue_name => '_dbos_internal_queue'",
    "named": "queue_name => 'host_jobs', application_name => 'host'",
    "versioned": "queue_name => 'host_jobs', app_version => 'host-7', application_name => 'host'",
    "delayed": "queue_name => 'host_jobs', delay_until_epoch_ms => 1",
}
"""What the other program has enqueued while nobody of it runs, by workflow id."""
OVERDUE = "overdue"


async def _leave_work_of_a_host(engine: Engine) -> None:
    """Leave behind what a program on DBOS would: enqueued, delayed, overdue, dead, scheduled."""
    for workflow_id, arguments in HOST_WORKFLOWS.items():
        await query(
            engine,
            "SELECT dbos.enqueue_workflow('host_job',"
            f" positional_args => ARRAY[to_json('it'::text)], workflow_id => %s, {arguments})",
            workflow_id,
        )
    await query(
        engine,
        "SELECT dbos.enqueue_workflow('host_job', 'host_jobs', workflow_id => %s,"
        " deadline_epoch_ms => 1)",
        OVERDUE,
    )
    for workflow_id, executor, name in (
        ("dead", dbos_host.EXECUTOR, "host"),
        ("old", "gone", None),
    ):
        await query(
            engine,
            "SELECT dbos.enqueue_workflow('host_job', 'host_jobs', ARRAY[to_json('it'::text)],"
            " workflow_id => %s, app_version => %s, application_name => %s)",
            workflow_id,
            dbos_host.VERSION if name else "perdure",
            name,
        )
        await query(
            engine,
            "UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = %s"
            " WHERE workflow_uuid = %s",
            executor,
            workflow_id,
        )
    await query(
        engine,
        "INSERT INTO dbos.workflow_schedules (schedule_id, schedule_name, workflow_name, schedule,"
        " context) VALUES ('beat', 'beat', 'host_beat', '* * * * * *', 'gAVOLg==')",
    )


async def test_another_program_on_the_same_database_is_left_alone(database_url: str) -> None:
    async with running(database_url, _agent()) as engine:
        await _leave_work_of_a_host(engine)
        before = await _host_rows(engine)
        schedule = await query(engine, "SELECT * FROM dbos.workflow_schedules")
        # Longer than the polls of what DBOS would have started here: a second.
        assert (await rested(engine, "a", delay_seconds=1.5)).status == "completed"
        assert await _host_rows(engine) == before
        assert await query(engine, "SELECT * FROM dbos.workflow_schedules") == schedule
        # Now the other program comes up beside us, and both do their own work.
        host = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.dbos_host",
            database_url,
            *HOST_WORKFLOWS,
            "dead",
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        runs = [await engine.start("a", "hi") for _ in range(5)]
        for run in runs:
            assert (await run.wait(SECONDS)).status == "completed"
        said, _ = await asyncio.wait_for(host.communicate(), 2 * SECONDS)
        assert host.returncode == 0
        results = json.loads(said.splitlines()[-1])
        assert results == {
            **dict.fromkeys([*HOST_WORKFLOWS, "dead"], "did it"),
            "new": "did something new",
        }
        after = {row["workflow_uuid"]: row for row in await _host_rows(engine)}
        # Ours to nobody, and nobody's to us.
        assert after["old"] == next(row for row in before if row["workflow_uuid"] == "old")
        assert after[OVERDUE]["status"] == "CANCELLED"
        assert {row["application_name"] for row in after.values()} <= {"host", None}
        assert {row["executor_id"] for row in after.values()} <= {dbos_host.EXECUTOR, "gone", None}
        ours = await query(
            engine,
            "SELECT DISTINCT status, application_name, application_version, queue_name"
            " FROM dbos.workflow_status WHERE name = 'perdure_segment'",
        )
        assert ours == [
            {
                "status": "SUCCESS",
                "application_name": "perdure",
                "application_version": "perdure",
                "queue_name": "perdure",
            }
        ]
        versions = await query(engine, "SELECT version_name FROM dbos.application_versions")
        assert [row["version_name"] for row in versions] == [dbos_host.VERSION]
