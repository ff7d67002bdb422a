"""``/v1/operations``: what tools changed, listed per session, run and target."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx

from perdure.db import Connection, uuid7
from perdure.web.operation_answers import Operation
from perdure.web.session_answers import Session
from tests.factories import insert_call, insert_run, insert_tenant
from tests.integration.api.reading import pointers, read, read_list, refused

ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]


async def operated(
    conn: Connection, run_id: UUID, kind: str, target: str, previous: Any = None, new: Any = None
) -> str:
    operation_id = uuid7()
    call_id = await insert_call(conn, run_id, status="succeeded", tool="plan")
    await conn.execute(
        "INSERT INTO perdure.operations (id, run_id, tool_call_id, tenant_id, kind, target,"
        " previous, new) SELECT %s, id, %s, tenant_id, %s, %s, %s::jsonb, %s::jsonb"
        " FROM perdure.runs WHERE id = %s",
        (operation_id, call_id, kind, target, json.dumps(previous), json.dumps(new), run_id),
    )
    return str(operation_id)


async def test_what_tools_changed(
    client: httpx.AsyncClient, client_for: ClientFor, conn: Connection
) -> None:
    elsewhere = await insert_tenant(conn, "elsewhere")
    session = read(Session, await client.post("/v1/sessions", json={}), 201)["id"]
    first = await insert_run(conn, status="completed", user_id="bob")
    second = await insert_run(conn, status="completed")
    theirs = await insert_run(conn, tenant_id=elsewhere, status="completed")
    await conn.execute("UPDATE perdure.runs SET session_id = %s WHERE id = %s", (session, second))
    made = [
        await operated(conn, first, "CREATE", "todo/1", None, {"n": 1}),
        await operated(conn, first, "UPDATE", "todo/1", {"n": 1}, {"n": 2}),
        await operated(conn, second, "DELETE", "todo/1", {"n": 2}),
        await operated(conn, second, "CREATE", "todo/2"),
    ]
    await operated(conn, theirs, "CREATE", "todo/1")

    one = read(Operation, await client.get(f"/v1/operations/{made[1]}"))
    shown = {name: one[name] for name in ("run_id", "session_id", "user_id", "tool", "agent")}
    assert shown == {
        "run_id": str(first),
        "session_id": None,
        "user_id": "bob",
        "tool": "plan",
        "agent": "support",
    }
    assert one["diff"] == [{"op": "replace", "path": "/n", "previous": 1, "new": 2}]
    moment = one["created_at"]
    for query, expected in (
        ("", [3, 2, 1, 0]),
        ("order=asc&limit=2", [0, 1]),
        (f"after={made[2]}", [1, 0]),
        (f"run_id={first}", [1, 0]),
        (f"session_id={session}", [3, 2]),
        (f"session_id={session}&target=todo/2", [3]),
        (f"session_id={uuid4()}", []),
        ("target=todo/1", [2, 1, 0]),
        ("kind=CREATE", [3, 0]),
        ("user_id=bob&kind=UPDATE", [1]),
        (f"created_after={moment}", [3, 2]),
        (f"created_before={moment}&run_id={first}", [0]),
        (f"run_id={theirs}", []),
    ):
        rows = read_list(Operation, await client.get(f"/v1/operations?{query}"))
        assert [row["id"] for row in rows] == [made[n] for n in expected], query

    tenant = await client_for(tenant_id=elsewhere)
    decider = await client_for("decisions:write")
    for who, path, status, code in (
        (tenant, f"/{made[0]}", 404, "not_found"),
        (client, f"/{made[0]}?user_id=eve", 404, "not_found"),
        (client, "/nonsense", 404, "not_found"),
        (client, f"/{uuid4()}", 404, "not_found"),
        (decider, "", 403, "forbidden"),
        (decider, f"/{made[0]}", 403, "forbidden"),
    ):
        refused(await who.get(f"/v1/operations{path}"), status, code)
    for query, pointer in (
        ("run_id=x", "/query/run_id"),
        ("target=", "/query/target"),
        ("limit=0", "/query/limit"),
        ("tool=plan", "/query/tool"),
        ("created_after=2026-01-01T00:00:00", "/query/created_after"),
    ):
        problem = refused(await client.get(f"/v1/operations?{query}"), 422, "validation_error")
        assert pointers(problem) == [pointer]
