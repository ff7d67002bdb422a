"""Runs over HTTP: cancelled, resumed, deleted."""

from __future__ import annotations

import asyncio
from uuid import UUID

import httpx
import pytest

from perdure import notify
from perdure.db import Connection
from perdure.web import answers
from tests.factories import (
    enqueued,
    fetch,
    insert_call,
    insert_item,
    insert_reply,
    insert_run,
    insert_state,
    insert_stop,
)
from tests.integration.api.reading import read, read_list, refused

DEADLINE = 15.0


@pytest.mark.parametrize("status", ["queued", "interrupted"])
async def test_a_resting_run_is_cancelled_at_once(
    client: httpx.AsyncClient, conn: Connection, status: str
) -> None:
    run_id = await insert_run(conn, status=status)
    stop = await insert_stop(conn, run_id) if status == "interrupted" else None
    run = read(answers.Run, await client.post(f"/v1/runs/{run_id}/cancel"), 202)
    assert run["status"] == "cancelled"
    assert run["cancel_requested_at"] == run["finished_at"] is not None
    assert run["interruptions"] == []
    if stop is not None:
        read_stop = await client.get(f"/v1/interruptions/{stop.id}")
        assert read(answers.Interruption, read_stop)["status"] == "cancelled"
    segment = await fetch(
        conn, "SELECT status, outcome FROM perdure.segments WHERE run_id = %s", run_id
    )
    assert segment["status"] == "rested"
    assert segment["outcome"] == ("cancelled" if status == "queued" else "interrupted")
    again = read(answers.Run, await client.post(f"/v1/runs/{run_id}/cancel"), 200)
    assert again == run


async def test_a_scheduled_run_is_cancelled_at_once(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    response = await client.post(
        "/v1/runs", json={"agent": "sales", "input": "Hello", "delay_seconds": 90}
    )
    location = response.headers["location"]
    run = read(answers.Run, await client.post(f"{location}/cancel", json={}), 202)
    assert run["status"] == "cancelled"
    query = "SELECT status FROM perdure.segments WHERE run_id = %s"
    assert await fetch(conn, query, UUID(run["id"])) == {"status": "rested"}


async def test_a_running_run_is_asked_to_stop(
    client: httpx.AsyncClient, conn: Connection, database_url: str
) -> None:
    run_id = await insert_run(conn, status="running")
    asked: asyncio.Queue[str] = asyncio.Queue()
    async with (
        asyncio.timeout(DEADLINE),
        notify.Listener(database_url, {notify.CANCEL: asked.put_nowait}),
    ):
        assert await asked.get() == ""
        run = read(answers.Run, await client.post(f"/v1/runs/{run_id}/cancel"), 202)
        assert await asked.get() == str(run_id)
        again = read(answers.Run, await client.post(f"/v1/runs/{run_id}/cancel"), 202)
    assert run["status"] == again["status"] == "running"
    assert run["cancel_requested_at"] == again["cancel_requested_at"] is not None


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_a_finished_run_cannot_be_cancelled(
    client: httpx.AsyncClient, conn: Connection, status: str
) -> None:
    run_id = await insert_run(conn, status=status)
    problem = refused(await client.post(f"/v1/runs/{run_id}/cancel"), 409, "invalid_state")
    assert status in problem["detail"]
    assert str(run_id) in problem["detail"]


async def test_a_failed_run_is_resumed(client: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn, status="failed", segment=2)
    await insert_state(conn, run_id, seq=3)
    raised = await insert_call(
        conn, run_id, status="failed", base_seq=3, error={"type": "ValueError", "raised": True}
    )
    answered = await insert_call(
        conn, run_id, status="failed", base_seq=3, error={"type": "error", "raised": False}
    )
    earlier = await insert_call(
        conn, run_id, status="failed", base_seq=2, error={"type": "ValueError", "raised": True}
    )
    run = read(answers.Run, await client.post(f"/v1/runs/{run_id}/resume"), 202)
    assert (run["status"], run["error"], run["finished_at"]) == ("queued", None, None)
    assert await enqueued(conn, run_id) == [f"{run_id}:3"]
    open_segment = (
        "SELECT seq, status FROM perdure.segments WHERE run_id = %s AND status <> 'rested'"
    )
    assert await fetch(conn, open_segment, run_id) == {"seq": 3, "status": "queued"}
    calls = read_list(answers.ToolCall, await client.get(f"/v1/runs/{run_id}/tool_calls"))
    assert {call["id"]: (call["status"], call["error"] is None) for call in calls} == {
        str(raised): ("proposed", True),
        str(answered): ("failed", False),
        str(earlier): ("failed", False),
    }
    problem = refused(await client.post(f"/v1/runs/{run_id}/resume"), 409, "invalid_state")
    assert "queued" in problem["detail"]


async def test_a_run_that_failed_before_its_first_state_is_resumed(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn, status="failed")
    call = await insert_call(
        conn, run_id, status="failed", base_seq=0, error={"type": "ValueError", "raised": True}
    )
    read(answers.Run, await client.post(f"/v1/runs/{run_id}/resume"), 202)
    row = await fetch(conn, "SELECT status FROM perdure.tool_calls WHERE id = %s", call)
    assert row == {"status": "proposed"}


@pytest.mark.parametrize("status", ["queued", "running", "interrupted", "completed", "cancelled"])
async def test_only_a_failed_run_is_resumed(
    client: httpx.AsyncClient, conn: Connection, status: str
) -> None:
    run_id = await insert_run(conn, status=status)
    refused(await client.post(f"/v1/runs/{run_id}/resume"), 409, "invalid_state")
    assert await enqueued(conn, run_id) == []


async def test_twenty_resumes_at_once_enqueue_one_segment(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn, status="failed")
    async with asyncio.timeout(DEADLINE):
        responses = await asyncio.gather(
            *(client.post(f"/v1/runs/{run_id}/resume") for _ in range(20))
        )
    assert sorted(response.status_code for response in responses) == [202, *[409] * 19]
    assert await enqueued(conn, run_id) == [f"{run_id}:2"]


async def test_a_finished_run_is_deleted_with_all_it_left(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn, status="completed")
    stop = await insert_stop(conn, run_id)
    await insert_state(conn, run_id)
    await insert_item(conn, run_id, seq=1, text="Done.", item={"type": "message"})
    await insert_reply(conn, run_id)
    response = await client.delete(f"/v1/runs/{run_id}")
    assert (response.status_code, response.content) == (204, b"")
    for path in ("", "/items", "/state"):
        refused(await client.get(f"/v1/runs/{run_id}{path}"), 404, "not_found")
    refused(await client.get(f"/v1/interruptions/{stop.id}"), 404, "not_found")
    refused(await client.delete(f"/v1/runs/{run_id}"), 404, "not_found")
    for table in ("segments", "run_states", "run_items", "tool_calls", "model_responses"):
        count = f"SELECT count(*) AS n FROM perdure.{table} WHERE run_id = %s"
        assert await fetch(conn, count, run_id) == {"n": 0}


@pytest.mark.parametrize("status", ["queued", "running", "interrupted"])
async def test_an_unfinished_run_is_not_deleted(
    client: httpx.AsyncClient, conn: Connection, status: str
) -> None:
    run_id = await insert_run(conn, status=status)
    refused(await client.delete(f"/v1/runs/{run_id}"), 409, "invalid_state")
    read(answers.Run, await client.get(f"/v1/runs/{run_id}"))
