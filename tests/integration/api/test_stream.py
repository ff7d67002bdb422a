"""A run's events over HTTP: a real server, clients that read slowly, break off and come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from perdure import notify
from perdure.access.keys import create_key
from perdure.db import Connection, Pool
from perdure.events import hub as hubs
from perdure.web import answers, sse
from tests.integration.api.reading import pointers, read, refused
from tests.integration.api.test_server import DEADLINE, START, served

MANY = 350


@asynccontextmanager
async def _streaming(
    client: httpx.AsyncClient, path: str, **headers: str
) -> AsyncIterator[httpx.Response]:
    async with client.stream("GET", path, headers=headers, timeout=DEADLINE) as response:
        yield response


async def _events(response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a stream, as its specification has them parsed."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        if line:
            fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                event = json.loads(fields["data"])
                assert fields["id"] == str(event["id"])
                assert fields["event"] == event["event"]
                answers.Event.model_validate(event)
                yield event
            fields = {}


async def _add(conn: Connection, run_id: str, n: int) -> None:
    await conn.execute(
        "SELECT perdure.add_event(%s, 'model.completed',"
        "       jsonb_build_object('k', k, 'text', E'\\u2028\\n'))"
        "  FROM generate_series(1, %s) k",
        (run_id, n),
    )


@pytest.fixture
async def there(
    app: FastAPI, conn: Connection, database_url: str
) -> AsyncIterator[httpx.AsyncClient]:
    key = (await create_key(conn)).secret
    async with (
        asyncio.timeout(DEADLINE * 2),
        app.state.api.hub.serving(database_url),
        served(app) as url,
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        yield client


async def _started(client: httpx.AsyncClient) -> str:
    return str(read(answers.Run, await client.post("/v1/runs", json=START), 202)["id"])


async def test_who_comes_back_misses_nothing_and_sees_nothing_twice(
    there: httpx.AsyncClient,
    conn: Connection,
    app: FastAPI,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Notifications alone: who would wait for a look of its own would wait for ever.
    monkeypatch.setattr(notify, "FALLBACK_SECONDS", 3600.0)
    monkeypatch.setattr(hubs, "LINGER_SECONDS", 0.0)
    run_id = await _started(there)
    path = f"/v1/runs/{run_id}/events"
    seen: list[int] = []
    added = 0
    while added < MANY:
        # Broken off in mid-stream each time, with more on its way; then the next part begins.
        async with _streaming(there, path, **{"Last-Event-ID": str(len(seen))}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async with aclosing(_events(response)) as events:
                adding = asyncio.create_task(_add(conn, run_id, 50))
                added += 50
                async for event in events:
                    seen.append(event["id"])
                    if len(seen) >= added - 20:
                        break
                await adding
    await there.post(f"/v1/runs/{run_id}/cancel")
    async with _streaming(there, f"{path}?after={len(seen)}") as response:
        async for event in _events(response):
            seen.append(event["id"])
            last = event["event"]
    assert last == "run.cancelled"
    assert seen == list(range(1, MANY + 3))
    # It is over, and a browser is told not to come back.
    assert (await there.get(path, headers={"Last-Event-ID": str(len(seen))})).status_code == 204

    hub = app.state.api.hub
    while not hub.idle:
        await conn.execute("SELECT pg_sleep(0.01)")


async def test_a_waiting_stream_holds_no_connection_and_says_that_it_is_there(
    there: httpx.AsyncClient, pool: Pool, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    run_id = await _started(there)
    async with _streaming(there, f"/v1/runs/{run_id}/events") as response:
        lines = response.aiter_lines()
        said = [await anext(lines) for _ in range(12)]
        assert said.count(": ") >= 2
        # One of the pool is the test's own.
        stats = pool.get_stats()
        assert stats["pool_size"] - stats["pool_available"] <= 2
        await there.post(f"/v1/runs/{run_id}/cancel")
        rest = [line async for line in lines]
        assert any("run.cancelled" in line for line in rest)


async def test_a_server_that_stops_lets_its_readers_go(
    there: httpx.AsyncClient, app: FastAPI
) -> None:
    run_id = await _started(there)
    async with _streaming(there, f"/v1/runs/{run_id}/events") as response:
        events = _events(response)
        assert (await anext(events))["event"] == "run.queued"
        app.state.api.hub.close()
        assert [event async for event in events] == []


async def test_what_is_refused_is_a_problem_before_the_stream(
    there: httpx.AsyncClient,
) -> None:
    run_id = await _started(there)
    path = f"/v1/runs/{run_id}/events"
    refused(await there.get(f"/v1/runs/{uuid4()}/events"), 404, "not_found")
    refused(await there.get("/v1/runs/x/events"), 404, "not_found")
    refused(await there.get(path, headers={"Authorization": "Bearer no"}), 401, "unauthorized")
    for query, pointer in (
        ("after=-1", "/query/after"),
        ("after=x", "/query/after"),
        (f"after={2**31}", "/query/after"),
        ("limit=0", "/query/limit"),
        ("kind=x", "/query/kind"),
    ):
        response = await there.get(f"{path}?{query}")
        assert pointers(refused(response, 422, "validation_error")) == [pointer]
    for number in ("x", "-1", "1e3", str(2**31), "9" * 5000):
        response = await there.get(path, headers={"Last-Event-ID": number})
        assert pointers(refused(response, 422, "validation_error")) == ["/header/Last-Event-ID"]


async def test_as_a_list(there: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await _started(there)
    await _add(conn, run_id, 30)
    listing = {"Accept": "application/json"}
    path = f"/v1/runs/{run_id}/events"
    first = read(answers.EventList, await there.get(path, headers=listing))
    assert [one["id"] for one in first["data"]] == list(range(1, 21))
    assert first["has_more"]
    rest = read(
        answers.EventList,
        await there.get(f"{path}?after={first['last_id']}&limit=100", headers=listing),
    )
    assert [one["id"] for one in rest["data"]] == list(range(21, 32))
    assert not rest["has_more"]
    assert rest["data"][0]["text"] == "\u2028\n"
