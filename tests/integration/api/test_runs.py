"""Runs over HTTP: started, read, listed, waited for."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from psycopg import AsyncConnection

from perdure import notify
from perdure.db import Connection, Pool
from perdure.runs.store import NewRun, start_run
from perdure.web import answers
from perdure.worker.due import enqueue_due
from tests.factories import (
    enqueued,
    fetch,
    insert_reply,
    insert_run,
    insert_stop,
)
from tests.integration.api.reading import read, read_list, refused

DEADLINE = 15.0


async def test_a_started_run_is_queued_and_enqueued(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    response = await client.post(
        "/v1/runs",
        json={
            "agent": "support",
            "input": [{"role": "user", "content": "Refund order 42 \U0001f4b8"}],
            "context": {"customer": "c-1"},
            "user_id": "u-1",
            "metadata": {"ticket": {"n": 2**62}},
            "max_turns": 3,
            "priority": 5,
        },
    )
    run = read(answers.Run, response, 202)
    assert response.headers["location"] == f"/v1/runs/{run['id']}"
    assert UUID(run["id"]).version == 7
    assert (run["status"], run["agent"], run["current_agent"]) == ("queued", "support", "support")
    assert run["input"] == [{"role": "user", "content": "Refund order 42 \U0001f4b8"}]
    assert (run["user_id"], run["metadata"]) == ("u-1", {"ticket": {"n": 2**62}})
    assert (run["max_turns"], run["priority"], run["turn"]) == (3, 5, 0)
    assert (run["output"], run["error"], run["finished_at"]) == (None, None, None)
    assert run["interruptions"] == []
    assert run["usage"]["total_tokens"] == 0
    assert run["created_at"].endswith("Z")
    assert datetime.fromisoformat(run["created_at"]) > before
    assert read(answers.Run, await client.get(response.headers["location"])) == run

    run_id = UUID(run["id"])
    assert await enqueued(conn, run_id) == [f"{run_id}:1"]
    row = await fetch(
        conn,
        "SELECT s.status, r.context, w.priority, w.status AS workflow FROM perdure.segments s"
        " JOIN perdure.runs r ON r.id = s.run_id JOIN dbos.workflow_status w"
        " ON w.workflow_uuid = r.id || ':1' WHERE s.run_id = %s",
        run_id,
    )
    assert row["status"] == "queued"
    assert row["context"] == {"customer": "c-1"}
    assert (row["priority"], row["workflow"]) == (5, "ENQUEUED")


async def test_what_is_not_said_has_its_default(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/runs", json={"agent": "sales", "input": "Hello"})
    run = read(answers.Run, response, 202)
    assert (run["input"], run["metadata"], run["user_id"]) == ("Hello", {}, None)
    assert (run["max_turns"], run["priority"]) == (7, 0)


async def test_a_delayed_run_is_scheduled_on_the_database_clock(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    response = await client.post(
        "/v1/runs", json={"agent": "sales", "input": "Hello", "delay_seconds": 90.5}
    )
    run_id = UUID(read(answers.Run, response, 202)["id"])
    assert await enqueued(conn, run_id) == []
    row = await fetch(
        conn,
        "SELECT status, extract(epoch FROM due_at - created_at)::float8 AS delay"
        " FROM perdure.segments WHERE run_id = %s",
        run_id,
    )
    assert row == {"status": "scheduled", "delay": 90.5}


@pytest.mark.parametrize("autocommit", [True, False])
async def test_a_start_joins_its_callers_transaction(
    conn: Connection, database_url: str, autocommit: bool
) -> None:
    new = NewRun(
        tenant_id=UUID("00000000-0000-7000-8000-000000000000"),
        agent="support",
        input="Hello",
        max_turns=1,
    )
    count = "SELECT count(*) AS n FROM perdure.runs WHERE id = ANY(%s)"
    # Rows are plain tuples on a connection of one's own.
    async with await AsyncConnection.connect(database_url, autocommit=autocommit) as own:
        first = await start_run(own, new)
        assert await fetch(conn, count, [first]) == {"n": 1 if autocommit else 0}
        await own.commit()
        assert await fetch(conn, count, [first]) == {"n": 1}
        async with own.transaction(force_rollback=True):
            second = await start_run(own, new)
        await own.commit()
        assert await fetch(conn, count, [second]) == {"n": 0}
    assert await enqueued(conn, first) == [f"{first}:1"]
    assert await enqueued(conn, second) == []


async def test_a_run_is_shown_whole(client: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn, user_id="u-1")
    first, second = await insert_stop(conn, run_id), await insert_stop(conn, run_id)
    await insert_reply(conn, run_id, tokens=10)
    await insert_reply(conn, run_id, tokens=5, superseded=True)
    run = read(answers.Run, await client.get(f"/v1/runs/{run_id}"))
    assert [one["id"] for one in run["interruptions"]] == [str(first.id), str(second.id)]
    shown = run["interruptions"][0]
    assert shown == read(answers.Interruption, await client.get(f"/v1/interruptions/{first.id}"))
    assert shown["tool"]["arguments"] == {"order_id": "42", "cents": 1999}
    assert run["usage"] == {
        "requests": 2,
        "unpriced_requests": 2,
        "input_tokens": 15,
        "cached_input_tokens": 2,
        "cache_write_tokens": 0,
        "output_tokens": 15,
        "reasoning_tokens": 4,
        "total_tokens": 30,
        "cost_usd": None,
    }
    failed = await insert_run(conn, status="failed", error_type="max_turns")
    run = read(answers.Run, await client.get(f"/v1/runs/{failed}"))
    assert run["error"] == {"type": "max_turns", "message": "max_turns"}


async def test_pages_of_runs(client: httpx.AsyncClient, conn: Connection) -> None:
    ids = [str(await insert_run(conn, status="queued")) for _ in range(5)]
    page = read(answers.List[answers.Run], await client.get("/v1/runs?limit=2"))
    assert [row["id"] for row in page["data"]] == [ids[4], ids[3]]
    assert page["has_more"] is True
    rest = await client.get("/v1/runs", params={"limit": 3, "after": page["last_id"]})
    page = read(answers.List[answers.Run], rest)
    assert [row["id"] for row in page["data"]] == [ids[2], ids[1], ids[0]]
    assert page["has_more"] is False
    oldest = await client.get("/v1/runs", params={"order": "asc", "limit": 2, "after": ids[0]})
    assert [row["id"] for row in read_list(answers.Run, oldest)] == [ids[1], ids[2]]
    assert read_list(answers.Run, await client.get(f"/v1/runs?after={ids[0]}")) == []


async def test_filters_of_runs(client: httpx.AsyncClient, conn: Connection) -> None:
    waiting = str(await insert_run(conn, status="interrupted", user_id="alice"))
    done = str(await insert_run(conn, status="completed", agent="sales", user_id="bob"))

    async def found(**params: Any) -> list[str]:
        rows = read_list(answers.Run, await client.get("/v1/runs", params=params))
        return [row["id"] for row in rows]

    assert await found() == [done, waiting]
    assert await found(status="interrupted") == [waiting]
    assert await found(agent="sales") == [done]
    assert await found(user_id="alice", status="interrupted") == [waiting]
    assert await found(user_id="alice", status="completed") == []
    row = await fetch(conn, "SELECT created_at FROM perdure.runs WHERE id = %s", UUID(waiting))
    moment = row["created_at"]
    assert await found(created_after=moment.isoformat()) == [done]
    assert await found(created_before=moment.isoformat()) == []
    later = moment + timedelta(microseconds=1)
    assert waiting in await found(created_before=later.isoformat())
    odd = {"ticket": {"id": "T-1 ☂", "tags": ["a", "b"]}, "by": "alice"}
    new = {"agent": "support", "input": "Look it up.", "metadata": odd}
    marked = read(answers.Run, await client.post("/v1/runs", json=new), 202)["id"]
    assert await found(metadata='{"by": "alice"}') == [marked]
    assert await found(metadata=json.dumps({"ticket": {"id": "T-1 ☂"}})) == [marked]
    assert await found(metadata='{"ticket": {"tags": ["b"]}}', status="queued") == [marked]
    assert await found(metadata='{"ticket": "T-1"}') == []


async def test_a_wait_is_woken_when_the_run_rests(
    client: httpx.AsyncClient, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "FALLBACK_SECONDS", 3600.0)
    run_id = await insert_run(conn, status="running")
    async with asyncio.timeout(DEADLINE):
        waiting = asyncio.create_task(client.get(f"/v1/runs/{run_id}?wait=60"))
        # Looking takes a connection; the wait holds none and leaves nothing to poll for it by.
        while not (await _waits(client, run_id)):
            await conn.execute("SELECT pg_sleep(0.01)")
        async with conn.transaction():
            await conn.execute(
                "UPDATE perdure.runs SET status = 'completed', finished_at = now() WHERE id = %s",
                (run_id,),
            )
            await conn.execute("SELECT pg_notify('perdure_runs', %s)", (str(run_id),))
        run = read(answers.Run, await waiting)
    assert run["status"] == "completed"


async def _waits(client: httpx.AsyncClient, run_id: UUID) -> bool:
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    waiters: notify.Waiters = transport.app.state.api.waiters  # type: ignore[attr-defined]
    return str(run_id) in waiters._events


async def test_a_wait_ends_with_its_time_or_at_once(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    running = await insert_run(conn, status="running")
    resting = await insert_run(conn, status="interrupted")
    async with asyncio.timeout(DEADLINE):
        run = read(answers.Run, await client.get(f"/v1/runs/{running}?wait=0.05"))
        assert run["status"] == "running"
        run = read(answers.Run, await client.get(f"/v1/runs/{resting}?wait=60"))
        assert run["status"] == "interrupted"
        refused(await client.get(f"/v1/runs/{uuid4()}?wait=60"), 404, "not_found")


async def test_runs_of_a_session_wait_for_each_other(
    client: httpx.AsyncClient, conn: Connection, pool: Pool
) -> None:
    start = {"agent": "support", "input": "hi", "session_key": "c", "user_id": "u-1"}
    first = read(answers.Run, await client.post("/v1/runs", json=start), 202)
    second = read(answers.Run, await client.post("/v1/runs", json=start), 202)
    session = first["session_id"]
    assert session is not None
    assert second["session_id"] == session
    # The first one has the turn; the second is not enqueued before it ends.
    assert await enqueued(conn, UUID(first["id"]))
    assert not await enqueued(conn, UUID(second["id"]))
    busy = {**start, "session_key": None, "session_id": session, "when_busy": "reject"}
    problem = refused(await client.post("/v1/runs", json=busy), 409, "invalid_state")
    assert first["id"] in problem["detail"]
    steer = await client.post("/v1/runs", json={**busy, "when_busy": "steer"})
    assert read(answers.Run, steer, 202)["id"] == first["id"]
    listed = read_list(answers.Run, await client.get(f"/v1/runs?session_id={session}"))
    assert [one["id"] for one in listed] == [second["id"], first["id"]]
    # Whoever ends it gives the turn back, and the next in line is enqueued.
    turn = "SELECT active_run_id, waiting_runs FROM perdure.sessions"
    read(answers.Run, await client.post(f"/v1/runs/{first['id']}/cancel"), 202)
    assert await fetch(conn, turn) == {"active_run_id": None, "waiting_runs": 1}
    assert await enqueue_due(pool) == 1
    assert await enqueued(conn, UUID(second["id"]))
    assert await fetch(conn, turn) == {"active_run_id": UUID(second["id"]), "waiting_runs": 0}
    cancel = {**busy, "when_busy": "cancel_previous"}
    third = read(answers.Run, await client.post("/v1/runs", json=cancel), 202)
    assert await enqueued(conn, UUID(third["id"]))
    assert await fetch(conn, turn) == {"active_run_id": UUID(third["id"]), "waiting_runs": 0}
