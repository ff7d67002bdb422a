"""Nothing that stands in DBOS's tables is unpickled by us: a pickle runs what it names."""

from __future__ import annotations

import asyncio
import base64
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from agents import Agent
from agents.testing import assistant_message
from dbos._serialization import DBOSDefaultSerializer, DefaultSerializer

from perdure.engine import Engine
from perdure.errors import ConfigurationError
from perdure.migrate import migrate
from perdure.runs.dbos_inside.statements import Seen, requeue
from perdure.runs.dbos_schema import migrate_dbos
from tests.engine_support import SECONDS, Gate, RuleModel, eventually, query, rested

MARKERS = ["py_pickle", None, "custom_serializer", "portable_json"]


class _Payload:
    """What a row of somebody's making says: touch this file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """A file that is there once the payload has run."""
    return tmp_path / "it-ran"


@pytest.fixture
def payload(proof: Path) -> str:
    """The payload as DBOS stores a pickle, shown to work."""
    encoded = base64.b64encode(pickle.dumps(_Payload(proof))).decode()
    DBOSDefaultSerializer.deserialize(encoded)
    assert proof.exists()
    proof.unlink()
    return encoded


async def _plant(engine: Engine, payload: str, marker: str | None, workflow_id: str) -> None:
    """Put the payload wherever DBOS keeps a value of a workflow, and in its schedules."""
    parameters = {"payload": payload, "marker": marker, "id": workflow_id}
    async with engine.pool.connection() as conn:
        for statement in (
            (
                "UPDATE dbos.workflow_status SET inputs = %(payload)s, output = %(payload)s,"
                " error = %(payload)s, request = %(payload)s, serialization = %(marker)s"
                " WHERE workflow_uuid = %(id)s"
            ),
            "UPDATE dbos.workflow_input SET inputs = %(payload)s WHERE workflow_uuid = %(id)s",
            (
                "INSERT INTO dbos.workflow_output (workflow_uuid, output, error)"
                " VALUES (%(id)s, %(payload)s, %(payload)s)"
            ),
            (
                "INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, output, error,"
                " serialization) SELECT %(id)s, n, %(payload)s, %(payload)s, %(marker)s"
                " FROM generate_series(0, 3) n"
            ),
            (
                "INSERT INTO dbos.notifications (destination_uuid, message, serialization)"
                " VALUES (%(id)s, %(payload)s, %(marker)s)"
            ),
            (
                "INSERT INTO dbos.workflow_events (workflow_uuid, key, value, serialization)"
                " VALUES (%(id)s, 'k', %(payload)s, %(marker)s)"
            ),
            (
                "INSERT INTO dbos.workflow_events_history (workflow_uuid, function_id, key, value,"
                " serialization) VALUES (%(id)s, 0, 'k', %(payload)s, %(marker)s)"
            ),
            (
                'INSERT INTO dbos.streams (workflow_uuid, key, value, "offset", serialization)'
                " VALUES (%(id)s, 'k', %(payload)s, 0, %(marker)s)"
            ),
            (
                "INSERT INTO dbos.workflow_schedules (schedule_id, schedule_name, workflow_name,"
                " schedule, context, application_name) VALUES (%(id)s, %(id)s, 'perdure_segment',"
                " '* * * * * *', %(payload)s, 'perdure')"
            ),
            (
                "INSERT INTO dbos.event_dispatch_kv (service_name, workflow_fn_name, key, value)"
                " VALUES (%(id)s, 'perdure_segment', 'k', %(payload)s)"
            ),
        ):
            await conn.execute(statement, parameters)


async def test_every_column_a_value_may_stand_in_is_planted(database_url: str) -> None:
    """A column DBOS adds for values has to be added to the test above all others here."""
    engine = Engine([Agent(name="a", model=RuleModel(lambda _: []))])
    async with engine.running(url=database_url, worker=False):
        columns = await query(
            engine,
            "SELECT table_name || '.' || column_name AS name FROM information_schema.columns"
            " WHERE table_schema = 'dbos' AND column_name IN"
            " ('inputs', 'output', 'error', 'message', 'value', 'context', 'request')"
            " UNION SELECT table_name || '.' || column_name FROM information_schema.columns"
            " WHERE table_schema = 'dbos' AND column_name = 'serialization'",
        )
    assert {one["name"] for one in columns} == {
        "event_dispatch_kv.value",
        "notifications.message",
        "notifications.serialization",
        "operation_outputs.error",
        "operation_outputs.output",
        "operation_outputs.serialization",
        "streams.serialization",
        "streams.value",
        "workflow_events.serialization",
        "workflow_events.value",
        "workflow_events_history.serialization",
        "workflow_events_history.value",
        "workflow_input.inputs",
        "workflow_output.error",
        "workflow_output.output",
        "workflow_schedules.context",
        "workflow_status.error",
        "workflow_status.inputs",
        "workflow_status.output",
        "workflow_status.request",
        "workflow_status.serialization",
    }


async def test_a_planted_pickle_runs_nowhere_and_no_run_is_lost(
    database_url: str, payload: str, proof: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # DBOS's logger keeps to itself.
    logger = logging.getLogger("dbos")
    logger.addHandler(caplog.handler)
    gate = Gate()

    async def rule(items: list[Any]) -> Any:
        if items[0]["content"] == "under way":
            await gate.stop()
        return [assistant_message("done")]

    engine = Engine([Agent(name="a", model=RuleModel(rule))])
    async with engine.running(url=database_url, worker=False):
        # Queued; left by a dead worker; ended in DBOS's words though not in ours, and put back.
        runs = {}
        for marker in MARKERS:
            for state in ("ENQUEUED", "PENDING", "SUCCESS", "ERROR"):
                run = runs[marker, state] = await engine.start("a", "hi")
                await _plant(engine, payload, marker, f"{run.id}:1")
                await query(
                    engine,
                    "UPDATE dbos.workflow_status SET status = %s, executor_id = 'gone'"
                    " WHERE workflow_uuid = %s",
                    state,
                    f"{run.id}:1",
                )
    await migrate(database_url, system=migrate_dbos)
    kept = DefaultSerializer.deserialize
    async with engine.running(url=database_url):
        with pytest.raises(ConfigurationError, match="nothing is unpickled"):
            DBOSDefaultSerializer.deserialize(payload)
        for (_, state), run in runs.items():
            if state in ("SUCCESS", "ERROR"):
                workflow_id = f"{run.id}:1"
                [row] = await query(
                    engine,
                    "SELECT status, owner_xid FROM dbos.workflow_status WHERE workflow_uuid = %s",
                    workflow_id,
                )
                async with engine.pool.connection() as conn:
                    seen = Seen(workflow_id, row["status"], row["owner_xid"])
                    assert await requeue(conn, [seen]) == [workflow_id]
        for run in runs.values():
            assert (await run.wait(SECONDS)).output == "done"
        # One whose end DBOS is told was written by somebody else, while it was under way.
        run = await engine.start("a", "under way")
        await gate.reached()
        await _plant(engine, payload, "py_pickle", f"{run.id}:1")
        await query(
            engine,
            "UPDATE dbos.workflow_status SET status = 'SUCCESS', owner_xid = NULL"
            " WHERE workflow_uuid = %s",
            f"{run.id}:1",
        )
        gate.open()
        assert (await run.wait(SECONDS)).output == "done"
        # DBOS reads that end, as it would its own.
        await eventually(lambda: _logged(caplog, "nothing is unpickled"))
        assert (await rested(engine, "a", "another")).output == "done"
    logger.removeHandler(caplog.handler)
    assert DefaultSerializer.deserialize is kept
    assert not await asyncio.to_thread(proof.exists)


async def _logged(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    await asyncio.sleep(0)
    return any(
        words in record.getMessage() or words in str(record.exc_info and record.exc_info[1])
        for record in caplog.records
    )
