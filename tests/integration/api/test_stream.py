"""Events over HTTP: a real server, clients that read slowly, are cut off and come back."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from perdure import notify
from perdure.access.keys import create_key, revoke_key
from perdure.cli.open_files import allow_many_connections
from perdure.db import Connection, Pool
from perdure.events import Hub
from perdure.events import hub as hubs
from perdure.notify import READERS, Listener, Waiters
from perdure.runs.registry import Registry
from perdure.web import answers, sse
from perdure.web.app import create_app
from tests.browser import CHROMIUM, browser
from tests.factories import fetch, insert_tenant
from tests.integration.api.conftest import ClientFor
from tests.integration.api.reading import pointers, read, refused
from tests.integration.api.test_server import DEADLINE, START, served
from tests.loopback.api import serving
from tests.loopback.cutting import cutting
from tests.sse_support import Follower, add

MANY = 350
_LISTENING = (
    "SELECT count(*) AS n FROM pg_stat_activity"
    " WHERE application_name = 'perdure-listener' AND datname = current_database()"
)


@pytest.fixture
async def key(conn: Connection) -> str:
    return (await create_key(conn)).secret


@pytest.fixture
async def there(
    app: FastAPI, key: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    # Who is not told waits too long.
    monkeypatch.setattr(notify, "FALLBACK_SECONDS", 3600.0)
    monkeypatch.setattr(hubs, "LINGER_SECONDS", 0.0)
    async with (
        asyncio.timeout(DEADLINE * 2),
        app.state.api.hub.serving(database_url),
        served(app) as url,
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        yield client


@pytest.fixture
def hub(app: FastAPI) -> Hub:
    found: Hub = app.state.api.hub
    return found


async def _started(client: httpx.AsyncClient) -> str:
    return str(read(answers.Run, await client.post("/v1/runs", json=START), 202)["id"])


async def _until_idle(hub: Hub, conn: Connection, listening: int) -> None:
    """Wait until nothing is held for anybody."""
    while not hub.idle or (await fetch(conn, _LISTENING))["n"] > listening:
        await conn.execute("SELECT pg_sleep(0.01)")


async def test_who_comes_back_misses_nothing_and_sees_nothing_twice(
    there: httpx.AsyncClient, conn: Connection, hub: Hub
) -> None:
    run_id = await _started(there)
    listening = (await fetch(conn, _LISTENING))["n"]
    reader = Follower(there, f"/v1/runs/{run_id}/events")
    added = 0
    while added < MANY:
        # Broken off in mid-stream each time, with more on its way; then the next part begins.
        adding = asyncio.create_task(add(conn, run_id, 50))
        added += 50
        await reader.until(added - 20)
        await adding
    await there.post(f"/v1/runs/{run_id}/cancel")
    await reader.until(10_000)
    assert reader.ids == list(range(1, MANY + 3))
    assert reader.seen[-1]["event"] == "run.cancelled"
    # It was over, and a browser was told not to come back.
    assert reader.over
    await _until_idle(hub, conn, listening)


async def test_through_cuts_a_restart_and_the_loss_of_what_wakes_readers(
    pool: Pool,
    registry: Registry,
    waiters: Waiters,
    key: str,
    database_url: str,
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy cuts each connection at a random place; the server is killed, and another one comes.

    Of four readers two follow a run and two all runs; what they were given in all is the log.
    """
    monkeypatch.setattr(notify, "FALLBACK_SECONDS", 3600.0)
    rng = random.Random(5)  # noqa: S311
    new_app = partial(create_app, pool=pool, registry=registry, waiters=waiters)
    first, second = new_app(), new_app()
    async with (
        asyncio.timeout(DEADLINE * 2),
        first.state.api.hub.serving(database_url),
        second.state.api.hub.serving(database_url),
        serving(first) as one,
        serving(second) as two,
        cutting(one.port, lambda: rng.randrange(200, 9000)) as proxy,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{proxy.port}",
            headers={"Authorization": f"Bearer {key}"},
            limits=httpx.Limits(max_keepalive_connections=0),
        ) as client,
        httpx.AsyncClient(base_url=two.url, headers=client.headers) as straight,
    ):
        run_id, other = [await _started(straight) for _ in range(2)]
        start = await straight.get("/v1/events", headers={"Accept": "application/json"})
        position = read(answers.AllEventsList, start)["last_id"]
        of_one = [Follower(client, f"/v1/runs/{run_id}/events") for _ in range(2)]
        of_all = [Follower(client, "/v1/events", last=position) for _ in range(2)]
        # The run's own first event came before the position.
        reading = [
            *(asyncio.create_task(one.until(MANY + 1)) for one in of_one),
            *(asyncio.create_task(one.until(MANY + 50)) for one in of_all),
        ]
        await add(conn, run_id, MANY // 2)
        proxy.target = two.port
        await one.kill()
        await add(conn, other, 50)
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'perdure-listener' AND datname = current_database()"
        )
        await add(conn, run_id, MANY - MANY // 2)
        await asyncio.gather(*reading)
        assert proxy.cuts > 20
        for reader in of_one:
            assert reader.ids == list(range(1, MANY + 2))
        for reader in of_all:
            for run, last in ((run_id, MANY + 1), (other, 51)):
                ids = [event["id"] for event in reader.seen if event["run_id"] == run]
                assert ids == list(range(2, last + 1))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
async def test_the_event_source_of_a_browser(
    pool: Pool,
    registry: Registry,
    waiters: Waiters,
    database_url: str,
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It comes back by itself from each cut, and stays away when all was said."""
    monkeypatch.setattr(sse, "RETRY_MS", 20)
    rng = random.Random(6)  # noqa: S311
    app = create_app(pool=pool, registry=registry, waiters=waiters, loopback_only=True)
    async with (
        asyncio.timeout(DEADLINE * 2),
        app.state.api.hub.serving(database_url),
        serving(app) as api,
        cutting(api.port, lambda: rng.randrange(2000, 9000)) as proxy,
        httpx.AsyncClient(base_url=api.url) as client,
        browser(tmp_path) as page,
    ):
        run_id = await _started(client)
        address = f"http://127.0.0.1:{proxy.port}"
        await page.open(f"{address}/healthz")
        await page.run(
            f"""
            seen = [], all = []
            source = new EventSource("{address}/v1/runs/{run_id}/events")
            for (const kind of ["run.queued", "tool.completed", "run.cancelled"])
                source.addEventListener(kind, event => seen.push(JSON.parse(event.data).id))
            every = new EventSource("{address}/v1/events?kind=tool")
            every.addEventListener("tool.completed", event => all.push(JSON.parse(event.data).id))
            new Promise(done => every.onopen = done)
            """
        )
        await add(conn, run_id, MANY)
        await client.post(f"/v1/runs/{run_id}/cancel")
        over = "source.readyState == EventSource.CLOSED && all.length >= " + str(MANY)
        await page.run(f"new Promise(done => setInterval(() => {{ if ({over}) done() }}, 10))")
        assert await page.run("seen") == list(range(1, MANY + 3))
        assert await page.run("all") == list(range(2, MANY + 2))
        assert proxy.cuts > 10


async def test_closed_tabs_leave_nothing(
    there: httpx.AsyncClient, conn: Connection, hub: Hub, key: str, database_url: str
) -> None:
    # As the server does: a thousand connections have two ends here.
    allow_many_connections()
    told: list[str] = []
    async with asyncio.timeout(DEADLINE * 4), Listener(database_url, {READERS: told.append}):
        assert told == [""]
        await _open_and_close(there, conn, hub, key)
        # Writers were told that somebody reads, and not by everybody.
        assert 2 <= len(told) <= 4


async def _open_and_close(there: httpx.AsyncClient, conn: Connection, hub: Hub, key: str) -> None:
    runs = [await _started(there) for _ in range(10)]
    listening = (await fetch(conn, _LISTENING))["n"]
    tasks = len(asyncio.all_tasks())
    url = there.base_url
    tabs: list[asyncio.StreamWriter] = []

    async def open_tab(n: int) -> None:
        path = "/v1/events" if n % 20 == 0 else f"/v1/runs/{runs[n % 10]}/events"
        reader, writer = await asyncio.open_connection(url.host, url.port)
        tabs.append(writer)
        head = f"GET {path} HTTP/1.1\r\nHost: {url.host}\r\nAuthorization: Bearer {key}\r\n\r\n"
        writer.write(head.encode())
        await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"retry: ")

    for n in range(0, 1000, 50):
        await asyncio.gather(*(open_tab(k) for k in range(n, n + 50)))
    while hub._readers < 1000:
        await conn.execute("SELECT pg_sleep(0.01)")
    assert len(hub._topics) == 10
    assert (await fetch(conn, _LISTENING))["n"] == listening + 1
    for tab in tabs:
        tab.transport.abort()
    await _until_idle(hub, conn, listening)
    while len(asyncio.all_tasks()) > tasks:
        await conn.execute("SELECT pg_sleep(0.01)")


async def test_a_reader_that_does_not_read_costs_a_page_and_keeps_nobody(
    there: httpx.AsyncClient, conn: Connection, key: str
) -> None:
    run_id = await _started(there)
    path = f"/v1/runs/{run_id}/events"
    loop = asyncio.get_running_loop()
    last = 61 * 50 + 2
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await loop.sock_connect(slow, (there.base_url.host, there.base_url.port))
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
        await loop.sock_sendall(slow, head.encode())
        quick = Follower(there, path)
        reading = asyncio.create_task(quick.until(10_000))
        tracemalloc.start()
        try:
            write = (
                "SELECT perdure.add_event(%s, 'tool.completed', jsonb_build_object('output',"
                "       repeat('x', 8000))) FROM generate_series(1, 50)"
            )
            await conn.execute(write, (run_id,))
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(60):
                await conn.execute(write, (run_id,))
                quick.seen.clear()
            await there.post(f"/v1/runs/{run_id}/cancel")
            await reading
            assert quick.seen[-1]["id"] == last
            quick.seen.clear()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # 24 MB were written, which would be twice that here; it has a page and what is on the way.
        assert after - before < 8_000_000
        # It reads at last: all is there, from the table.
        rest, ids = b"", list[int]()
        while not ids or ids[-1] < last:
            part = await loop.sock_recv(slow, 1 << 20)
            assert part, f"it was cut off after event {ids[-1:]}"
            *lines, rest = (rest + part).split(b"\n")
            ids += [int(line[4:]) for line in lines if line.startswith(b"id: ")]
        assert ids == list(range(1, last + 1))


async def test_a_waiting_stream_holds_no_connection_and_says_that_it_is_there(
    there: httpx.AsyncClient, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    run_id = await _started(there)
    async with (
        # Its lines come for as long as nothing is amiss: they are no sign that it gets anywhere.
        asyncio.timeout(DEADLINE),
        there.stream("GET", f"/v1/runs/{run_id}/events", timeout=DEADLINE) as of_one,
        there.stream("GET", "/v1/events?kind=run.cancelled", timeout=DEADLINE) as of_all,
    ):
        lines = of_one.aiter_lines()
        said = [await anext(lines) for _ in range(12)]
        assert said.count(": ") >= 2
        # Where it stands moves on although nothing that is wanted happens.
        others = of_all.aiter_lines()
        positions: set[str] = set()
        while len(positions) < 2:
            await _started(there)
            line = await anext(others)
            positions |= {line} if line.startswith("id: ") else set()
        # One of the pool is the test's own.
        stats = pool.get_stats()
        assert stats["pool_size"] - stats["pool_available"] <= 2
        await there.post(f"/v1/runs/{run_id}/cancel")
        assert any("run.cancelled" in line for line in [line async for line in lines])
        async for line in others:
            if line.startswith("data: "):
                assert run_id in line
                break


async def test_who_follows_ends_with_the_run_or_the_server(
    there: httpx.AsyncClient, hub: Hub, client_for: ClientFor, conn: Connection
) -> None:
    failed = await _started(there)
    path = f"/v1/runs/{failed}/events"
    await there.post(f"/v1/runs/{failed}/cancel")
    # A failed run that is resumed goes on: who follows it then sees it deleted in mid-stream.
    await add(conn, failed, 1, "run.queued")
    reader = Follower(there, path)
    async with aclosing(reader.visit()) as events:
        assert [(await anext(events))["event"] for _ in range(3)][-1] == "run.queued"
        assert (await there.delete(f"/v1/runs/{failed}")).status_code == 204
        assert [event async for event in events] == []
    assert "deleted" in refused(await there.get(path), 410, "gone")["detail"]
    listing = {"Accept": "application/json"}
    refused(await there.get(path, headers=listing), 410, "gone")
    tenant_id = await insert_tenant(conn, "other")
    refused(await (await client_for(tenant_id=tenant_id)).get(path), 404, "not_found")

    run_id = await _started(there)
    of_one, of_all = Follower(there, f"/v1/runs/{run_id}/events"), Follower(there, "/v1/events")
    async with aclosing(of_one.visit()) as one, aclosing(of_all.visit()) as every:
        assert (await anext(one))["event"] == "run.queued"
        waiting = asyncio.create_task(anext(every))
        while not of_all.last:
            await conn.execute("SELECT pg_sleep(0.01)")
        await add(conn, run_id, 1)
        assert (await waiting)["run_id"] == run_id
        assert (await anext(one))["id"] == 2
        hub.close()
        assert [event async for event in one] == []
        assert [event async for event in every] == []


async def test_all_runs_of_a_tenant_and_no_others(
    there: httpx.AsyncClient, conn: Connection, client_for: ClientFor
) -> None:
    run_id = await _started(there)
    tenant_id = await insert_tenant(conn, "other")
    stranger = await client_for(tenant_id=tenant_id)
    listing = {"Accept": "application/json"}

    async def listed(query: str = "", client: httpx.AsyncClient = there) -> dict[str, Any]:
        return read(answers.AllEventsList, await client.get(f"/v1/events{query}", headers=listing))

    start = await listed()
    assert (start["data"], start["has_more"], start["first_id"]) == ([], False, None)
    await add(conn, run_id, 5)
    await add(conn, run_id, 2, "model.delta")
    await add(conn, run_id, 5, "run.started")
    sales = await there.post("/v1/runs", json={**START, "agent": "sales", "user_id": "u"})
    after = f"?after={start['last_id']}"
    # Pages of every size give the same.
    for limit in (1, 3, 5, 100):
        seen: list[tuple[str, int]] = []
        page = {"last_id": start["last_id"], "has_more": True}
        while page["has_more"]:
            page = await listed(f"?after={page['last_id']}&limit={limit}")
            seen += [(one["run_id"], one["id"]) for one in page["data"]]
        mine = [n for run, n in seen if run == run_id]
        assert mine == [2, 3, 4, 5, 6, 9, 10, 11, 12, 13]
        assert [run for run, _ in seen if run != run_id] == [sales.json()["id"]]
    for query, count in (
        *(("&kind=run", 6), ("&kind=run.started&kind=tool", 10), ("&agent=sales", 1)),
        *(("&user_id=u", 1), ("&user_id=u&kind=tool", 0), ("&agent=support&kind=run.queued", 0)),
    ):
        assert len((await listed(f"{after}{query}"))["data"]) == count, query
    assert (await listed(after, stranger))["data"] == []
    # A stream that begins there goes on with what comes, by the same filters.
    reader = Follower(there, "/v1/events?kind=run&agent=support", last=start["last_id"])
    reading = asyncio.create_task(reader.until(7))
    while len(reader.seen) < 5:
        await conn.execute("SELECT pg_sleep(0.01)")
    await add(conn, sales.json()["id"], 3, "run.started")
    await add(conn, run_id, 3)
    await add(conn, run_id, 2, "run.started")
    await reading
    assert reader.ids == [9, 10, 11, 12, 13, 17, 18]


async def test_what_is_refused_is_a_problem_before_the_stream(
    there: httpx.AsyncClient, client_for: ClientFor
) -> None:
    run_id = await _started(there)
    path = f"/v1/runs/{run_id}/events"
    refused(await there.get(f"/v1/runs/{uuid4()}/events"), 404, "not_found")
    refused(await there.get("/v1/runs/x/events"), 404, "not_found")
    decider = await client_for("decisions:write")
    for one in (path, "/v1/events"):
        headers = {"Authorization": "Bearer no"}
        refused(await there.get(one, headers=headers), 401, "unauthorized")
        refused(await decider.get(one), 403, "forbidden")
    for query, pointer in (
        ("after=-1", "/query/after"),
        ("after=x", "/query/after"),
        (f"after={2**31}", "/query/after"),
        ("limit=0", "/query/limit"),
        ("kind=x", "/query/kind"),
    ):
        for one in (path, "/v1/events"):
            response = await there.get(f"{one}?{query}")
            assert pointers(refused(response, 422, "validation_error")) == [pointer]
    for number in ("x", "-1", "1e3", str(2**31), "9" * 5000):
        for one in (path, "/v1/events"):
            response = await there.get(one, headers={"Last-Event-ID": number})
            assert pointers(refused(response, 422, "validation_error")) == ["/header/Last-Event-ID"]
    for query in ("kind=model.delta", "kind=run&kind=tools"):
        response = await there.get(f"/v1/events?{query}")
        assert pointers(refused(response, 422, "validation_error")) == ["/query/kind"]
    response = await there.get("/v1/events?session_id=x")
    assert pointers(refused(response, 422, "validation_error")) == ["/query/session_id"]
    # Of a database that was restored from an older copy, or of another one.
    response = await there.get(f"/v1/events?after={10**15}.0")
    assert "ahead of this database" in refused(response, 422, "validation_error")["detail"]


async def test_as_a_list(there: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await _started(there)
    await add(conn, run_id, 30)
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
    assert rest["data"][0]["text"].startswith("\u2028\n")


async def test_a_stream_ends_when_its_key_is_revoked(
    there: httpx.AsyncClient, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "ALLOWED_SECONDS", 0.0)
    other = await create_key(conn)
    run = await _started(there)
    headers = {"Authorization": f"Bearer {other.secret}"}
    for path in (f"/v1/runs/{run}/events", "/v1/events"):
        async with there.stream("GET", path, headers=headers) as answer:
            pieces = answer.aiter_text()
            await anext(pieces)
            await revoke_key(conn, other.api_key.id)
            await add(conn, run, 1, "agent.started")
            # What was under way may come; then it is over.
            assert "agent.started" not in "".join([piece async for piece in pieces])
        answer = await there.get(path, headers=headers)
        assert answer.status_code == 401
        other = await create_key(conn)
        headers = {"Authorization": f"Bearer {other.secret}"}


async def test_a_stream_ends_when_its_users_token_is_revoked(
    there: httpx.AsyncClient, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "ALLOWED_SECONDS", 0.0)
    made = (await there.post("/v1/user_sessions", json={"user_id": "alice"})).json()
    mine = {"Authorization": f"Bearer {made['token']}"}
    body = {"agent": "support", "input": "Hi"}
    run = (await there.post("/v1/runs", json=body, headers=mine)).json()["id"]
    async with there.stream("GET", f"/v1/runs/{run}/events", headers=mine) as answer:
        pieces = answer.aiter_text()
        await anext(pieces)
        assert (await there.delete("/v1/user_sessions?user_id=alice")).status_code == 200
        await add(conn, run, 1, "agent.started")
        assert "agent.started" not in "".join([piece async for piece in pieces])
