"""A worker that was paused and taken over goes on: it changes nothing, then works as any other."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from perdure.access.principals import DEFAULT_TENANT
from perdure.runs import store
from perdure.runs.store import NewRun
from tests.crash.nursery import Nursery
from tests.crash.scenario import OUTPUT
from tests.crash.story import Story, story

pytestmark = pytest.mark.asyncio(loop_scope="module")

LET_THE_LEASE_RUN_OUT = """
UPDATE perdure.executors
   SET lease_until = now() - interval '1 second', renewed_at = now() - interval '1 minute'
RETURNING pid
"""
_RECORD = {
    "runs": "SELECT to_jsonb(r) AS row FROM perdure.runs r WHERE id = %(run_id)s",
    **{
        table: f"SELECT to_jsonb(t) AS row FROM perdure.{table} t WHERE run_id = %(run_id)s"
        " ORDER BY to_jsonb(t)::text"
        for table in (
            "segments",
            "run_states",
            "run_items",
            "model_responses",
            "tool_calls",
            "interruptions",
            "decisions",
        )
    },
    "bookings": "SELECT to_jsonb(b) AS row FROM bookings b",
}


async def _record(told: Story) -> dict[str, list[Any]]:
    return {name: await told.rows(query) for name, query in _RECORD.items()}


@pytest.mark.parametrize(
    "place", ["effect look_up", "effect ship", "effect book written", "effect refund"]
)
async def test_a_paused_worker_that_goes_on_after_a_takeover_changes_nothing(
    database_url: str, tmp_path: Path, nursery: Nursery, place: str
) -> None:
    async with story(database_url, tmp_path / "log", nursery) as told:
        await told.worker(f"stop at {place}", 1)
        zombie = told.worker_pid
        if place == "effect refund":
            # Two rests: the first for the approval.
            run = await told.until_rest_or_death()
            assert run is not None
            await told.decide_all(run)
        await nursery.stopped(zombie)
        # Its session stands, and its lock is held.
        assert await told.rows(LET_THE_LEASE_RUN_OUT) == [{"pid": zombie}]
        await told.worker()
        await told.to_the_end()
        run = await told.read()
        assert (run["status"], run["output"]) == ("completed", OUTPUT)
        before = await _record(told)
        assert len(before["bookings"]) == 1

        # The only worker that is left: what it does for the next run it does after what it
        # still wanted to write for the first one.
        os.kill(zombie, signal.SIGCONT)
        first = told.run_id
        async with told.pool.connection() as conn:
            told.run_id = await store.start_run(
                conn, NewRun(tenant_id=DEFAULT_TENANT, agent="triage", input="go", max_turns=20)
            )
        told.worker_pid = zombie
        await told.to_the_end()
        assert (await told.read())["status"] == "completed"

        told.run_id = first
        after = await _record(told)
        assert after.pop("bookings")[: len(before["bookings"])] == before.pop("bookings")
        assert after == before
        assert len(await told.rows("SELECT * FROM bookings")) == 2
        shipped = [line for line in told.events("effect") if line["tool"] == "ship"]
        assert len(shipped) == 2
        # What it learned too late is kept beside the call, whose row it did not change.
        late = await told.rows(
            "SELECT t.tool, e.kind, e.status, e.output ->> 'text' AS output"
            "  FROM perdure.tool_call_evidence e"
            "  JOIN perdure.tool_calls t ON t.id = e.tool_call_id"
            " WHERE e.run_id = %(run_id)s"
        )
        assert {(one["kind"], one["status"]) for one in late} <= {("late_outcome", "succeeded")}
        if place == "effect ship":
            # Of ``ship`` somebody said the very same meanwhile.
            assert [(one["tool"], one["output"]) for one in late] == [("notify", "notified 7")]
