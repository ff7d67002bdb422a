"""``/v1/audit``, and where a decision came from."""

from __future__ import annotations

import httpx
from fastapi import FastAPI

from perdure.access.keys import create_key
from perdure.db import Connection
from perdure.web.answers import AuditEntry, List
from tests.factories import insert_run, insert_stop, insert_tenant
from tests.integration.api.conftest import ClientFor


async def test_administrators_read_who_decided_from_where(
    app: FastAPI, conn: Connection, client: httpx.AsyncClient, client_for: ClientFor
) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id)
    secret = (await create_key(conn, subject="alice@example.com")).secret
    # Whatever the request itself says of where it comes from.
    transport = httpx.ASGITransport(app, client=("203.0.113.7", 4711))
    headers = {"Authorization": f"Bearer {secret}", "X-Forwarded-For": "198.51.100.1"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://api.test", headers=headers
    ) as alice:
        answer = await alice.post(
            f"/v1/interruptions/{stop.id}/decision",
            json={"decision": "approve", "digest": stop.digest},
        )
    assert answer.json()["decision"]["source"] == "api 203.0.113.7"

    admin = await client_for("admin", subject="root@example.com")
    assert (await client.get("/v1/audit")).status_code == 403
    listed = await admin.get(
        "/v1/audit", params={"run_id": str(run_id), "actor": "alice@example.com"}
    )
    [entry] = List[AuditEntry].model_validate(listed.json()).data
    assert entry.kind == "interruption.decided"
    assert entry.actor is not None
    assert (entry.actor.type, entry.actor.subject) == ("service_key", "alice@example.com")
    assert (entry.source, entry.subject.id) == ("api 203.0.113.7", str(stop.id))
    assert entry.shown_digest == entry.executed_digest == stop.digest
    assert entry.details is not None
    assert entry.details["tool"]["name"] == "refund"

    first = (await admin.get("/v1/audit", params={"kind": "key.created", "limit": 1})).json()
    assert (len(first["data"]), first["has_more"]) == (1, True)
    rest = await admin.get("/v1/audit", params={"kind": "key.created", "after": first["last_id"]})
    assert all(one["id"] < first["last_id"] for one in rest.json()["data"])
    for wrong in ({"who": "alice"}, {"kind": "a\0"}, {"actor": "a\0"}, {"run_id": "1"}):
        assert (await admin.get("/v1/audit", params=wrong)).status_code == 422, wrong
    stranger = await client_for("admin", tenant_id=await insert_tenant(conn, "acme"))
    [own] = (await stranger.get("/v1/audit")).json()["data"]
    assert own["kind"] == "key.created"
