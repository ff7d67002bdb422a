"""Grants over HTTP: given with a decision, listed, revoked; and which calls one covers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from perdure.access.principals import DEFAULT_TENANT, local_principal
from perdure.db import Connection, Pool
from perdure.interruptions.grants.store import Asked, Use, revoke, use_grants
from perdure.times import rfc3339
from perdure.web import answers
from tests.engine_support import SECONDS, eventually
from tests.factories import REFUND_SCHEMA, Stop, fetch, insert_run, insert_stop, insert_tenant
from tests.integration.api.reading import pointers, read, read_list, refused

ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]

ARGUMENTS = {"order_id": "42", "cents": 1999}
HOUR = 3600


async def approve(client: httpx.AsyncClient, stop: Stop, remember: Any = None) -> httpx.Response:
    body = {"decision": "approve", "digest": stop.digest, "remember": remember}
    return await client.post(f"/v1/interruptions/{stop.id}/decision", json=body)


async def give(
    client: httpx.AsyncClient,
    conn: Connection,
    *,
    scope: str = "agent",
    until: Any = HOUR,
    user_id: str | None = None,
    run_id: UUID | None = None,
    **rest: Any,
) -> dict[str, Any]:
    """A grant given with the approval of a call with ``ARGUMENTS``."""
    run_id = run_id or await insert_run(conn, user_id=user_id)
    stop = await insert_stop(conn, run_id, arguments=ARGUMENTS)
    remember = {"scope": scope, "until": until, **rest}
    decided = read(answers.Interruption, await approve(client, stop, remember))
    given = decided["decision"]["remember"]
    return read(answers.UsedGrant, await client.get(f"/v1/grants/{given}"))


async def test_what_is_given(client: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn, user_id="bob")
    stop, plain = await insert_stop(conn, run_id), await insert_stop(conn, run_id)
    decided = read(
        answers.Interruption, await approve(client, stop, {"scope": "user", "until": HOUR})
    )
    without = read(answers.Interruption, await approve(client, plain))
    assert without["decision"]["remember"] is None
    [grant] = read_list(answers.Grant, await client.get("/v1/grants"))
    assert grant["id"] == decided["decision"]["remember"]
    assert (grant["agent"], grant["tool"]) == ("support", "refund")
    assert (grant["scope"], grant["scope_id"]) == ("user", "bob")
    assert (grant["arguments"], grant["when"]) == (ARGUMENTS, None)
    assert grant["granted_by"]["subject"] == "alice@example.com"
    assert set(grant["granted_by"]) == {"type", "id", "subject"}
    assert (grant["run_id"], grant["interruption_id"]) == (str(run_id), str(stop.id))
    assert grant["decision_id"] == decided["decision"]["id"]
    assert (grant["active"], grant["revoked_at"], grant["revoked_by"]) == (True, None, None)
    lasts = await fetch(
        conn,
        "SELECT extract(epoch FROM until - created_at)::float AS seconds FROM perdure.grants",
    )
    assert lasts == {"seconds": HOUR}
    shown = read(answers.UsedGrant, await client.get(f"/v1/grants/{grant['id']}"))
    assert shown == {**grant, "uses": 0, "last_used_at": None}
    assert read_list(answers.GrantUse, await client.get(f"/v1/grants/{grant['id']}/uses")) == []

    until = datetime.now(timezone(timedelta(hours=2))) + timedelta(days=30)
    conditional = await give(client, conn, until=until.isoformat(), when={"/cents": {"lte": 5000}})
    assert conditional["until"] == rfc3339(until)
    assert (conditional["scope_id"], conditional["arguments"]) == ("support", None)
    assert (conditional["when"], conditional["arguments_digest"]) == (
        {"/cents": {"lte": 5000}},
        None,
    )


async def test_what_is_refused_leaves_the_question_open(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id)
    doubt = await insert_stop(conn, run_id, type="uncertain_effect")
    pair = await insert_stop(conn, run_id)
    own = await insert_stop(conn, run_id)
    await conn.execute("UPDATE perdure.interruptions SET required = 2 WHERE id = %s", (pair.id,))
    await conn.execute(
        "UPDATE perdure.interruptions SET rules = '{\"requester_may_decide\": false}'"
        " WHERE id = %s",
        (own.id,),
    )
    run = {"scope": "run", "until": HOUR}
    for which, body, code, pointer in (
        (stop, {"remember": {"scope": "run"}}, "validation_error", "/remember/until"),
        (
            stop,
            {"remember": {"scope": "run", "until": "2020-01-01T00:00:00Z"}},
            "validation_error",
            "/remember/until",
        ),
        (
            stop,
            {"remember": {"scope": "run", "until": "9000-01-01T00:00:00Z"}},
            "validation_error",
            "/remember/until",
        ),
        (stop, {"remember": {"scope": "user", "until": 1}}, "validation_error", "/remember/scope"),
        (
            stop,
            {"remember": {"scope": "session", "until": 1}},
            "validation_error",
            "/remember/scope",
        ),
        (
            stop,
            {"remember": {**run, "when": {"/cents": {"lte": "5", "gt": True}}}},
            "validation_error",
            "/remember/when/~1cents/gt",
        ),
        (stop, {"remember": {**run, "when": {}}}, "validation_error", "/remember/when"),
        (stop, {"remember": True}, "validation_error", "/remember"),
        (stop, {"decision": "reject", "remember": run}, "validation_error", "/remember"),
        (
            doubt,
            {"decision": "resolve", "outcome": "done", "remember": run},
            "validation_error",
            "/remember",
        ),
        (pair, {"remember": run}, "validation_error", "/remember"),
        (own, {"remember": run}, "validation_error", "/remember"),
    ):
        sent = {"decision": "approve", **body}
        if sent["decision"] == "approve":
            sent["digest"] = which.digest
        answer = await client.post(f"/v1/interruptions/{which.id}/decision", json=sent)
        assert pointers(refused(answer, 422, code)) == [pointer], body
    counted = await fetch(
        conn,
        "SELECT (SELECT count(*) FROM perdure.grants) AS grants,"
        " (SELECT count(*) FROM perdure.decisions) AS decisions,"
        " (SELECT count(*) FROM perdure.interruptions WHERE status = 'pending') AS pending",
    )
    assert counted == {"grants": 0, "decisions": 0, "pending": 4}


async def test_a_batch_gives_all_its_grants_or_none(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    stops = [await insert_stop(conn, run_id) for _ in range(2)]

    async def decide(*until: Any) -> httpx.Response:
        decisions = [
            {
                "interruption_id": str(stop.id),
                "decision": "approve",
                "digest": stop.digest,
                "remember": {"scope": "run", "until": end},
            }
            for stop, end in zip(stops, until, strict=True)
        ]
        return await client.post("/v1/decisions", json={"decisions": decisions})

    for wrong in (0, "2020-01-01T00:00:00Z"):
        answer = refused(await decide(HOUR, wrong), 422, "validation_error")
        assert pointers(answer) == ["/decisions/1/remember/until"]
    assert read_list(answers.Grant, await client.get("/v1/grants")) == []
    decided = read_list(answers.Interruption, await decide(HOUR, HOUR))
    given = {one["decision"]["remember"] for one in decided}
    listed = read_list(answers.Grant, await client.get("/v1/grants"))
    assert (len(given), {one["id"] for one in listed}) == (2, given)


async def test_lists_and_filters(client: httpx.AsyncClient, conn: Connection) -> None:
    first = await give(client, conn)
    second = await give(client, conn, scope="run", when={"/cents": {"lt": 1}})
    third = await give(client, conn, scope="user", user_id="bob")
    await conn.execute("UPDATE perdure.grants SET tool = 'pay' WHERE id = %s", (first["id"],))
    over = await give(client, conn)
    await conn.execute(
        "UPDATE perdure.grants SET created_at = now() - interval '2 h', until = now()"
        " WHERE id = %s",
        (over["id"],),
    )
    revoked = read(answers.UsedGrant, await client.post(f"/v1/grants/{second['id']}/revoke"))
    assert revoked["active"] is False
    for query, found in (
        ({}, [third, first]),
        ({"order": "asc"}, [first, third]),
        ({"limit": 1}, [third]),
        ({"after": third["id"]}, [first]),
        ({"active": "false"}, [over, second]),
        ({"tool": "pay"}, [first]),
        ({"agent": "support", "scope": "user"}, [third]),
        ({"agent": "sales"}, []),
        ({"run_id": second["run_id"]}, []),
        ({"run_id": second["run_id"], "active": False}, [second]),
    ):
        rows = read_list(answers.Grant, await client.get("/v1/grants", params=query))
        assert [row["id"] for row in rows] == [one["id"] for one in found], query
    assert pointers(refused(await client.get("/v1/grants?scope=all"), 422, "validation_error")) == [
        "/query/scope"
    ]


async def test_revoking_is_done_once_by_who_may(
    client: httpx.AsyncClient, client_for: ClientFor, conn: Connection
) -> None:
    grant = await give(client, conn)
    path = f"/v1/grants/{grant['id']}"
    reader = await client_for("runs:read")
    starter = await client_for("runs:write")
    decider = await client_for("decisions:write", subject="carol@example.com")
    stranger = await client_for(tenant_id=await insert_tenant(conn, "other"))
    for asking, allowed in ((reader, 200), (decider, 200), (starter, 403), (stranger, 404)):
        for what in (path, f"{path}/uses"):
            assert (await asking.get(what)).status_code == allowed
    refused(await reader.post(f"{path}/revoke"), 403, "forbidden")
    refused(await stranger.post(f"{path}/revoke"), 404, "not_found")
    assert read_list(answers.Grant, await stranger.get("/v1/grants")) == []
    refused(await client.get(f"/v1/grants/{uuid4()}"), 404, "not_found")
    refused(await client.post("/v1/grants/nonsense/revoke"), 404, "not_found")
    refused(await client.post(f"{path}/revoke", json={"why": "x"}), 422, "validation_error")
    assert (await client.get(path)).json()["active"] is True
    revoked = read(answers.UsedGrant, await decider.post(f"{path}/revoke"))
    assert revoked["revoked_by"]["subject"] == "carol@example.com"
    again = read(answers.UsedGrant, await client.post(f"{path}/revoke"))
    assert again == revoked
    admin = await client_for("admin")
    audit = read_list(answers.AuditEntry, await admin.get("/v1/audit?order=asc"))
    told = [one for one in audit if one["subject"] == {"type": "grant", "id": grant["id"]}]
    assert [(one["kind"], one["actor"]["subject"]) for one in told] == [
        ("grant.created", grant["granted_by"]["subject"]),
        ("grant.revoked", "carol@example.com"),
    ]


async def test_a_grant_outlives_its_run_without_its_arguments(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    grant = await give(client, conn)
    await use(conn, await insert_run(conn))
    await conn.execute("DELETE FROM perdure.runs")
    left = read(answers.UsedGrant, await client.get(f"/v1/grants/{grant['id']}"))
    assert left == {**grant, "arguments": None}


async def use(
    conn: Connection, run_id: UUID, *, hold: asyncio.Event | None = None, **asks: Any
) -> list[Use]:
    """Ask to approve a call of a run as a rest would; ``hold`` keeps the transaction open."""
    asked = {
        "agent": "support",
        "tool": "refund",
        "schema": REFUND_SCHEMA,
        "arguments": ARGUMENTS,
        "required": 1,
        "rules": "{}",
        **asks,
    }
    async with conn.transaction():
        await conn.execute("SELECT FROM perdure.runs WHERE id = %s FOR UPDATE", (run_id,))
        stop = await insert_stop(conn, run_id)
        await conn.execute(
            "UPDATE perdure.interruptions SET required = %s, rules = %s::jsonb WHERE id = %s",
            (asked["required"], asked["rules"], stop.id),
        )
        used = await use_grants(
            conn,
            run_id=run_id,
            asked=[
                Asked(stop.id, *(asked[name] for name in ("agent", "tool", "schema", "arguments")))
            ],
        )
        if hold is not None:
            async with asyncio.timeout(SECONDS):
                await hold.wait()
    return used


async def test_what_a_grant_covers(client: httpx.AsyncClient, conn: Connection) -> None:
    exact = await give(client, conn)
    mine = await insert_run(conn, user_id="bob")
    by_run = await give(client, conn, scope="run", run_id=mine, when={"/order_id": {"eq": "run"}})
    by_user = await give(
        client, conn, scope="user", user_id="bob", when={"/order_id": {"eq": "user"}}
    )
    below = await give(
        client, conn, when={"/cents": {"lte": 500}, "/order_id": {"not_in": ["user", "run"]}}
    )
    anybodys, others = await insert_run(conn), await insert_run(conn, user_id="eve")
    elsewhere = await insert_run(conn, tenant_id=await insert_tenant(conn, "other"))
    another_schema = {**REFUND_SCHEMA, "required": ["cents"]}
    table: list[tuple[UUID, dict[str, Any], Any]] = [
        (anybodys, {}, exact),
        (others, {}, exact),
        (anybodys, {"arguments": {"cents": 1999.0, "order_id": "42"}}, exact),
        (anybodys, {"arguments": '{"cents":1999,"order_id":"42"}'}, exact),
        (anybodys, {"schema": {**reversed_items(REFUND_SCHEMA)}}, exact),
        (anybodys, {"arguments": {**ARGUMENTS, "cents": 2000}}, None),
        (anybodys, {"arguments": {**ARGUMENTS, "cents": "1999"}}, None),
        (anybodys, {"arguments": {**ARGUMENTS, "note": None}}, None),
        (anybodys, {"arguments": "[1999]"}, None),
        (anybodys, {"tool": "refund_all"}, None),
        (anybodys, {"agent": "sales"}, None),
        (anybodys, {"schema": another_schema}, None),
        (anybodys, {"schema": None}, None),
        (anybodys, {"required": 2}, None),
        (anybodys, {"rules": '{"requester_may_decide": false}'}, None),
        (anybodys, {"rules": '{"deciders": {"groups": ["finance"]}}'}, None),
        (anybodys, {"rules": '{"deciders": null, "policy": "p"}'}, exact),
        # Whoever gave it is alice, with a key that may decide.
        (anybodys, {"rules": '{"deciders": {"roles": ["decisions:write"]}}'}, exact),
        (anybodys, {"rules": '{"deciders": {"roles": ["admin"]}}'}, None),
        (anybodys, {"rules": '{"deciders": {"subjects": ["alice@example.com"]}}'}, exact),
        (anybodys, {"rules": '{"deciders": {"subjects": ["bob@example.com"]}}'}, None),
        (elsewhere, {}, None),
        (mine, {"arguments": {"order_id": "run"}}, by_run),
        (others, {"arguments": {"order_id": "run"}}, None),
        (mine, {"arguments": {"order_id": "user"}}, by_user),
        (others, {"arguments": {"order_id": "user"}}, None),
        (anybodys, {"arguments": {"order_id": "user"}}, None),
        (others, {"arguments": {"order_id": "7", "cents": 500}}, below),
        (others, {"arguments": {"order_id": "7", "cents": 501}}, None),
        (others, {"arguments": {"cents": 500}}, None),
    ]
    for number, (run_id, asks, grant) in enumerate(table):
        used = [one.by.id for one in await use(conn, run_id, **asks)]
        assert used == ([] if grant is None else [grant["id"]]), (number, asks)
    uses = read_list(answers.GrantUse, await client.get(f"/v1/grants/{exact['id']}/uses"))
    expected = [run_id for run_id, _, grant in table if grant is exact]
    assert [one["run_id"] for one in reversed(uses)] == [str(run_id) for run_id in expected]
    assert {one["grant_id"] for one in uses} == {exact["id"]}
    page = await client.get(f"/v1/grants/{exact['id']}/uses", params={"limit": 2, "order": "asc"})
    assert read_list(answers.GrantUse, page) == list(reversed(uses))[:2]
    shown = read(answers.UsedGrant, await client.get(f"/v1/grants/{exact['id']}"))
    assert (shown["uses"], shown["last_used_at"]) == (len(expected), uses[0]["at"])


def reversed_items(value: dict[str, Any]) -> dict[str, Any]:
    return {name: value[name] for name in reversed(value)}


async def test_a_grant_that_is_over_or_revoked_covers_nothing(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    revoked = await give(client, conn)
    over = await give(client, conn, when={"/cents": {"gt": 0}})
    assert [one.by.id for one in await use(conn, run_id)] == [revoked["id"]]
    await client.post(f"/v1/grants/{revoked['id']}/revoke")
    assert [one.by.id for one in await use(conn, run_id)] == [over["id"]]
    await conn.execute(
        "UPDATE perdure.grants SET created_at = now() - interval '2 h', until = now()"
        " WHERE id = %s",
        (over["id"],),
    )
    assert await use(conn, run_id) == []


async def waiting(conn: Connection) -> Any:
    cursor = await conn.execute(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'"
    )
    return await cursor.fetchone()


@pytest.mark.parametrize("first", ["use", "revocation"])
async def test_of_a_use_and_a_revocation_at_once_the_first_wins(
    client: httpx.AsyncClient, conn: Connection, pool: Pool, first: str
) -> None:
    grant = await give(client, conn)
    grant_id, run_id = UUID(grant["id"]), await insert_run(conn)
    hold = asyncio.Event()

    async def revoking(held: asyncio.Event | None) -> None:
        async with pool.connection() as other, other.transaction():
            by = local_principal()
            assert await revoke(other, tenant_id=DEFAULT_TENANT, grant_id=grant_id, by=by)
            revoked.set()
            if held is not None:
                await held.wait()

    async def using(held: asyncio.Event | None) -> list[Use]:
        async with pool.connection() as other:
            return await use(other, run_id, hold=held)

    revoked = asyncio.Event()
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        if first == "use":
            use_task = tasks.create_task(using(hold))
            await eventually(lambda: _locked(conn, grant_id))
            tasks.create_task(revoking(None))
        else:
            tasks.create_task(revoking(hold))
            await revoked.wait()
            use_task = tasks.create_task(using(None))
        await eventually(lambda: waiting(conn))
        hold.set()
    assert len(use_task.result()) == (1 if first == "use" else 0)
    shown = read(answers.UsedGrant, await client.get(f"/v1/grants/{grant_id}"))
    assert shown["uses"] == (1 if first == "use" else 0)
    assert shown["active"] is False
    if first == "use":
        assert shown["last_used_at"] < shown["revoked_at"]


async def _locked(conn: Connection, grant_id: UUID) -> bool:
    """Whether somebody holds a lock on the grant that a revocation would wait for."""
    async with conn.transaction():
        cursor = await conn.execute(
            "SELECT FROM perdure.grants WHERE id = %s FOR NO KEY UPDATE SKIP LOCKED", (grant_id,)
        )
        return await cursor.fetchone() is None
