"""Who may do what: keys, roles, tenants, and this machine's own user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI, Request

from perdure.access import keys
from perdure.access.keys import authenticate, create_key, find_or_make_tenant, list_keys, revoke_key
from perdure.access.principals import DEFAULT_TENANT, Principal, Role
from perdure.db import Connection, Pool
from perdure.errors import InvalidRequestError, NotFoundError, UnauthorizedError
from perdure.notify import Waiters
from perdure.runs.registry import Registry
from perdure.web import answers
from perdure.web.app import create_app
from tests.factories import (
    enqueued,
    fetch,
    insert_call,
    insert_item,
    insert_run,
    insert_state,
    insert_stop,
    insert_tenant,
)
from tests.integration.api.reading import read, read_list, refused

ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]

START = {"agent": "support", "input": "Refund order 42"}
DECISION = {"decision": "reject"}


async def test_a_key_is_shown_once_and_kept_as_a_digest(conn: Connection) -> None:
    made = await create_key(conn, name="ci", subject="bob@example.com")
    assert made.secret.startswith("pdr_")
    assert len(made.secret) == len("pdr_") + 43
    assert made.secret not in repr(made)
    assert made.api_key.hint == made.secret[:8]
    stored = await fetch(conn, "SELECT k::text AS row FROM perdure.api_keys k")
    assert made.secret not in stored["row"]
    principal = await authenticate(conn, made.secret)
    assert principal == Principal(
        "service_key",
        str(made.api_key.id),
        "bob@example.com",
        DEFAULT_TENANT,
        frozenset({Role.RUNS_READ, Role.RUNS_WRITE, Role.DECISIONS_WRITE}),
    )


async def test_keys_are_listed_and_revoked(conn: Connection) -> None:
    first, second = await create_key(conn, name="a"), await create_key(conn, roles=["admin"])
    revoked = await revoke_key(conn, first.api_key.id)
    assert revoked.revoked_at is not None
    assert (await revoke_key(conn, first.api_key.id)).revoked_at == revoked.revoked_at
    assert await list_keys(conn) == [revoked, second.api_key]
    with pytest.raises(UnauthorizedError, match="revoked"):
        await authenticate(conn, first.secret)
    other = await insert_tenant(conn, "other")
    assert await list_keys(conn, tenant_id=other) == []
    with pytest.raises(NotFoundError):
        await revoke_key(conn, second.api_key.id, tenant_id=other)
    await authenticate(conn, second.secret)


@pytest.mark.parametrize("roles", [[], ["runs:read", "root"], ["ADMIN"]])
async def test_unknown_roles_are_refused(conn: Connection, roles: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match="role"):
        await create_key(conn, roles=roles)
    assert await list_keys(conn) == []


async def test_use_is_noted_once_a_minute(conn: Connection) -> None:
    made = await create_key(conn)
    moment = "SELECT last_used_at FROM perdure.api_keys"
    assert (await fetch(conn, moment))["last_used_at"] is None
    await authenticate(conn, made.secret)
    first = (await fetch(conn, moment))["last_used_at"]
    await authenticate(conn, made.secret)
    assert (await fetch(conn, moment))["last_used_at"] == first
    await conn.execute("UPDATE perdure.api_keys SET last_used_at = now() - interval '61 seconds'")
    await authenticate(conn, made.secret)
    assert (await fetch(conn, moment))["last_used_at"] >= first


async def test_recognising_waits_for_nobody(conn: Connection, pool: Pool) -> None:
    made = await create_key(conn)
    async with asyncio.timeout(10), conn.transaction(), pool.connection() as other:
        await authenticate(conn, made.secret)
        await authenticate(other, made.secret)


async def test_a_tenant_is_found_or_made(conn: Connection, pool: Pool) -> None:
    assert await find_or_make_tenant(conn, "default") == DEFAULT_TENANT

    async def find() -> UUID:
        async with pool.connection() as one:
            return await find_or_make_tenant(one, "acme")

    assert len(set(await asyncio.gather(*(find() for _ in range(8))))) == 1
    with pytest.raises(InvalidRequestError):
        await find_or_make_tenant(conn, "a\0b")


CALLS = [
    ("GET", "/v1/runs", {"runs:read"}),
    ("POST", "/v1/runs", {"runs:write"}),
    ("GET", "/v1/runs/{run}", {"runs:read"}),
    ("GET", "/v1/runs/{run}/items", {"runs:read"}),
    ("GET", "/v1/runs/{run}/tool_calls", {"runs:read"}),
    ("GET", "/v1/runs/{run}/checkpoints", {"runs:read"}),
    ("GET", "/v1/runs/{run}/usage", {"runs:read"}),
    ("GET", "/v1/runs/{run}/state", {"runs:read"}),
    ("GET", "/v1/usage", {"runs:read"}),
    ("GET", "/v1/interruptions", {"runs:read", "decisions:write"}),
    ("GET", "/v1/interruptions/{stop}", {"runs:read", "decisions:write"}),
    ("POST", "/v1/interruptions/{stop}/decision", {"decisions:write"}),
    ("GET", "/v1/runs/{run}/inputs", {"runs:read"}),
    ("POST", "/v1/runs/{run}/input", {"runs:write"}),
    ("POST", "/v1/runs/{run}/cancel", {"runs:write"}),
    ("POST", "/v1/runs/{failed}/resume", {"runs:write"}),
    ("DELETE", "/v1/runs/{done}", {"runs:write"}),
]


@pytest.mark.parametrize(("method", "path", "roles"), CALLS)
async def test_each_call_asks_for_its_role(
    client_for: ClientFor,
    stranger: httpx.AsyncClient,
    conn: Connection,
    method: str,
    path: str,
    roles: set[str],
) -> None:
    run_id = await insert_run(conn)
    await insert_state(conn, run_id)
    stop = await insert_stop(conn, run_id)
    path = path.format(
        run=run_id,
        stop=stop.id,
        failed=await insert_run(conn, status="failed"),
        done=await insert_run(conn, status="completed"),
    )
    bodies = {"runs": START, "input": {"input": "Wait."}, "decision": DECISION}
    body = bodies.get(path.rpartition("/")[2])

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.request(method, path, json=body if method == "POST" else None)

    response = await ask(stranger)
    refused(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    for role in ("runs:read", "runs:write", "decisions:write"):
        if role not in roles:
            problem = refused(await ask(await client_for(role)), 403, "forbidden")
            assert all(needed in problem["detail"] for needed in roles)
    # `admin` implies the others; what it does comes last, as it may end the run.
    for role in (*sorted(roles)[:-1], "admin"):
        assert (await ask(await client_for(role))).status_code < 300


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic {key}", "{key}", "Bearer {key}x", "Bearer pdr_é"]
)
async def test_what_is_no_key(stranger: httpx.AsyncClient, conn: Connection, header: str) -> None:
    key = (await create_key(conn)).secret
    value = header.format(key=key).encode("latin-1")
    response = await stranger.get("/v1/runs", headers=[(b"authorization", value)])
    refused(response, 401, "unauthorized")
    good = await stranger.get("/v1/runs", headers={"Authorization": f"bearer  {key} "})
    assert good.status_code == 200


async def test_a_revoked_key_is_refused_at_once(
    stranger: httpx.AsyncClient, conn: Connection
) -> None:
    made = await create_key(conn)
    headers = {"Authorization": f"Bearer {made.secret}"}
    assert (await stranger.get("/v1/runs", headers=headers)).status_code == 200
    await revoke_key(conn, made.api_key.id)
    refused(await stranger.get("/v1/runs", headers=headers), 401, "unauthorized")


async def test_only_health_is_open(stranger: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        assert read(answers.Health, await stranger.get(path)) == {"status": "ok"}
    for path in ("/docs", "/openapi.json", "/v1/agents"):
        refused(await stranger.get(path), 401, "unauthorized")
    assert (await client.get("/docs")).status_code == 200
    assert (await client.get("/openapi.json")).json()["info"]["title"] == "Perdure"


async def test_a_tenant_sees_its_own_and_nothing_else(
    client_for: ClientFor, conn: Connection
) -> None:
    theirs = await insert_tenant(conn, "theirs")
    us, them = await client_for("admin"), await client_for("admin", tenant_id=theirs)
    run_id = await insert_run(conn, status="interrupted")
    failed = await insert_run(conn, status="failed")
    stop = await insert_stop(conn, run_id)
    await insert_state(conn, run_id)
    await insert_item(conn, run_id, seq=1, text="ours", item={})
    await insert_call(conn, run_id, status="proposed")
    own = await insert_run(conn, tenant_id=theirs)
    before = (await us.get(f"/v1/runs/{run_id}")).json()

    listed = read_list(answers.Run, await them.get("/v1/runs"))
    assert [run["id"] for run in listed] == [str(own)]
    assert read_list(answers.Interruption, await them.get("/v1/interruptions")) == []
    in_run = await them.get("/v1/interruptions", params={"run_id": str(run_id)})
    assert read_list(answers.Interruption, in_run) == []
    nothing = {await _missing(them, "GET", f"/v1/runs/{uuid4()}")}
    for method, path in [
        ("GET", f"/v1/runs/{run_id}"),
        ("GET", f"/v1/runs/{run_id}?wait=60"),
        *[
            ("GET", f"/v1/runs/{run_id}/{kind}")
            for kind in ("items", "inputs", "tool_calls", "checkpoints", "usage", "state")
        ],
        ("POST", f"/v1/runs/{run_id}/cancel"),
        ("POST", f"/v1/runs/{failed}/resume"),
        ("DELETE", f"/v1/runs/{failed}"),
        ("GET", f"/v1/interruptions/{stop.id}"),
    ]:
        nothing.add(await _missing(them, method, path))
    body = {"decision": "approve", "digest": stop.digest}
    response = await them.post(f"/v1/interruptions/{stop.id}/decision", json=body)
    refused(response, 404, "not_found")
    response = await them.post(f"/v1/runs/{run_id}/input", json={"input": "Wait."})
    refused(response, 404, "not_found")
    # Nothing tells another's object from one that is not there.
    assert len({text.replace("interruption", "run") for text in nothing}) == 1
    assert (await us.get(f"/v1/runs/{run_id}")).json() == before
    assert await enqueued(conn, run_id) == await enqueued(conn, failed) == []


async def _missing(client: httpx.AsyncClient, method: str, path: str) -> str:
    detail: str = refused(await client.request(method, path), 404, "not_found")["detail"]
    id = path.split("/")[3].partition("?")[0]
    return detail.replace(id, "ID")


@pytest.fixture
async def local(
    pool: Pool, registry: Registry, waiters: Waiters
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(pool=pool, registry=registry, waiters=waiters, loopback_only=True)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8484"
    ) as client:
        yield client


async def test_this_machines_user_needs_no_key(local: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id)
    response = await local.post(f"/v1/interruptions/{stop.id}/decision", json=DECISION)
    decided = read(answers.Interruption, response)
    assert decided["decision"]["by"] == {"type": "local", "id": None, "subject": "local user"}
    for host in ("localhost:8484", "[::1]:8484", "127.0.0.1"):
        origin = {"Host": host, "Origin": f"http://{host}"}
        assert (await local.get("/v1/runs", headers=origin)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/runs", "/healthz", "/docs", "/nowhere"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example.com"},
        {"Host": "rebound.example.com:8484"},
        {"Host": "192.0.2.1:8484"},
        {"Host": ""},
        {"Origin": "https://example.com"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8484"},
        {"Origin": "file://127.0.0.1:8484"},
        {"Origin": "http://["},
    ],
    ids=lambda headers: str(headers),
)
async def test_strangers_pages_are_refused(
    local: httpx.AsyncClient, conn: Connection, headers: dict[str, str], path: str
) -> None:
    refused(await local.get(path, headers=headers), 403, "forbidden")
    refused(await local.post("/v1/runs", json=START, headers=headers), 403, "forbidden")
    assert await fetch(conn, "SELECT count(*) AS n FROM perdure.runs") == {"n": 0}


async def test_no_page_may_read_answers(
    local: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    for one in (local, client):
        response = await one.options("/v1/runs", headers={"Access-Control-Request-Method": "GET"})
        assert not [name for name in response.headers if name.startswith("access-control")]
        refused(response, 405, "method_not_allowed")


async def test_a_host_application_says_who_asks(
    pool: Pool, registry: Registry, waiters: Waiters, conn: Connection
) -> None:
    async def recognise(request: Request) -> Principal:
        user = request.headers.get("x-user")
        if user is None:
            raise UnauthorizedError("Log in first.")
        roles = frozenset({Role.RUNS_READ, Role.RUNS_WRITE})
        return Principal("user", user, f"{user}@example.com", DEFAULT_TENANT, roles)

    host = FastAPI()
    api = create_app(pool=lambda: pool, registry=registry, waiters=waiters, authenticate=recognise)
    host.mount("/agents", api)
    stop = await insert_stop(conn, await insert_run(conn))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(host), base_url="http://host.test"
    ) as client:
        refused(await client.get("/agents/v1/runs"), 401, "unauthorized")
        headers = {"X-User": "carol"}
        response = await client.post("/agents/v1/runs", json=START, headers=headers)
        read(answers.Run, response, 202)
        assert response.headers["location"].startswith("/agents/v1/runs/")
        read(answers.Run, await client.get(response.headers["location"], headers=headers))
        path = f"/agents/v1/interruptions/{stop.id}/decision"
        refused(await client.post(path, json=DECISION, headers=headers), 403, "forbidden")
        servers = (await client.get("/agents/openapi.json", headers=headers)).json()["servers"]
        assert servers == [{"url": "/agents"}]


def test_the_longest_key_is_longer_than_any_key() -> None:
    assert len(keys.PREFIX) + 43 < keys._LONGEST_KEY
