"""The API behind a real server, and in front of a database that is away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import FastAPI

from perdure import notify
from perdure.access.keys import create_key
from perdure.db import Connection, Pool, open_pool
from perdure.notify import Waiters
from perdure.runs.registry import Registry
from perdure.web import answers, state
from perdure.web.app import create_app
from tests.conftest import Server, database_of
from tests.factories import fetch, insert_run
from tests.integration.api.reading import read, refused

DEADLINE = 30.0

START = {"agent": "support", "input": "Refund order 42"}


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve ``app`` on a free port of this machine and give its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        serving = asyncio.create_task(server.serve([listening]))
        host, port = listening.getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
async def key(conn: Connection) -> str:
    return (await create_key(conn)).secret


async def test_a_run_is_started_and_waited_for(
    app: FastAPI, conn: Connection, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "FALLBACK_SECONDS", 3600.0)
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        asyncio.timeout(DEADLINE),
        served(app) as url,
        httpx.AsyncClient(base_url=url, headers=headers) as client,
    ):
        started = await client.post("/v1/runs", json=START, headers={"Idempotency-Key": "k"})
        run = read(answers.Run, started, 202)
        waiting = asyncio.create_task(client.get(f"/v1/runs/{run['id']}?wait=60", timeout=60))
        while run["id"] not in app.state.api.waiters._events:
            await conn.execute("SELECT pg_sleep(0.01)")
        cancelled = await client.post(f"/v1/runs/{run['id']}/cancel")
        read(answers.Run, cancelled, 202)
        assert read(answers.Run, await waiting)["status"] == "cancelled"
        replayed = await client.post("/v1/runs", json=START, headers={"Idempotency-Key": "k"})
        assert replayed.content == started.content
        assert replayed.headers["idempotent-replayed"] == "true"
        deleted = await client.delete(f"/v1/runs/{run['id']}")
        assert (deleted.status_code, deleted.content) == (204, b"")
        assert deleted.headers["x-request-id"]


async def test_a_body_without_end_is_cut_off(app: FastAPI, conn: Connection, key: str) -> None:
    async with asyncio.timeout(DEADLINE), served(app) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST /v1/runs HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(17):
            writer.write(chunk)
        await writer.drain()
        # The answer comes although the body goes on.
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()
        writer.close()
    assert await fetch(conn, "SELECT count(*) AS n FROM perdure.runs") == {"n": 0}


async def test_who_leaves_while_waiting_leaves_nothing(
    app: FastAPI, conn: Connection, key: str, pool: Pool
) -> None:
    run_id = await insert_run(conn, status="running")
    waiters: Waiters = app.state.api.waiters
    async with asyncio.timeout(DEADLINE), served(app) as url:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET /v1/runs/{run_id}?wait=60 HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {key}\r\n\r\n".encode()
        )
        while str(run_id) not in waiters._events:
            await conn.execute("SELECT pg_sleep(0.01)")
        writer.close()
        # The wait holds no connection of the pool: all of them can be had at once.
        async with asyncio.TaskGroup() as group:
            together = asyncio.Barrier(pool.max_size - 1)
            for _ in range(pool.max_size - 1):
                group.create_task(_borrow(pool, together))
        await conn.execute("UPDATE perdure.runs SET status = 'interrupted'")
        await conn.execute("SELECT pg_notify('perdure_runs', %s)", (str(run_id),))
        while str(run_id) in waiters._events:
            await conn.execute("SELECT pg_sleep(0.01)")


async def _borrow(pool: Pool, together: asyncio.Barrier) -> None:
    async with pool.connection():
        await together.wait()


async def test_a_database_that_goes_away_and_comes_back(
    database_url: str,
    server: Server,
    registry: Registry,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "CONNECTION_SECONDS", 0.2)
    name = database_of(database_url)
    headers = {"Authorization": f"Bearer {key}"}
    async with asyncio.timeout(DEADLINE), await open_pool(database_url, 1, 4) as pool:
        app = create_app(pool=pool, registry=registry, waiters=Waiters())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://api.test", headers=headers
        ) as client:
            assert (await client.get("/v1/runs")).status_code == 200
            with psycopg.connect(server.url, autocommit=True) as admin:
                admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    (name,),
                )
                for method, path in (
                    ("GET", "/v1/runs"),
                    ("POST", "/v1/runs"),
                    ("GET", "/readyz"),
                    ("GET", "/metrics"),
                ):
                    response = await client.request(method, path, json=START)
                    refused(response, 503, "unavailable")
                    assert int(response.headers["retry-after"]) >= 1
                assert (await client.get("/healthz")).status_code == 200
                admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
            while (response := await client.get("/readyz")).status_code != 200:
                refused(response, 503, "unavailable")
            assert (await client.get("/metrics")).status_code == 200
            read(answers.Run, await client.post("/v1/runs", json=START), 202)


async def test_a_database_that_is_not_migrated(empty_database_url: str, registry: Registry) -> None:
    async with await open_pool(empty_database_url, 1, 2) as pool:
        app = create_app(pool=pool, registry=registry, waiters=Waiters(), loopback_only=True)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client:
            for path in ("/readyz", "/metrics", "/v1/runs"):
                problem = refused(await client.get(path), 503, "unavailable")
                assert "perdure migrate" in problem["detail"]


async def test_a_pool_with_nothing_left(
    app: FastAPI, client: httpx.AsyncClient, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "CONNECTION_SECONDS", 0.05)
    holding = asyncio.Event()
    held = asyncio.Barrier(pool.max_size)

    async def hold() -> None:
        async with pool.connection():
            await held.wait()
            await holding.wait()

    # One more connection than these is held by the test itself.
    tasks = [asyncio.create_task(hold()) for _ in range(pool.max_size - 1)]
    async with asyncio.timeout(DEADLINE):
        await held.wait()
        response = await client.get("/v1/runs")
        refused(response, 503, "unavailable")
        assert response.headers["retry-after"] == "1"
        holding.set()
        await asyncio.gather(*tasks)
        assert (await client.get("/v1/runs")).status_code == 200
