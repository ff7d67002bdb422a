"""People erased over HTTP."""

from __future__ import annotations

from typing import Any

import httpx

from perdure.access.keys import find_or_make_tenant
from perdure.db import Connection
from tests.integration.api.conftest import ClientFor


async def test_an_administrator_erases_a_user_of_their_tenant(
    client_for: ClientFor, conn: Connection
) -> None:
    acme = await find_or_make_tenant(conn, "acme")
    here, there = await client_for("admin"), await client_for("admin", tenant_id=acme)
    for client in (here, there):
        body = {"agent": "support", "input": "xylophone", "user_id": "a/b", "session_key": "s"}
        assert (await client.post("/v1/runs", json=body)).status_code == 202
    path = "/v1/users/a/b"
    writer = await client_for("runs:read", "runs:write")
    assert (await writer.delete(path)).status_code == 403
    refused = await here.delete(path)
    assert refused.status_code == 409
    assert "1 run(s) have not ended" in refused.json()["detail"]
    assert (await here.delete(f"{path}?shared=maybe")).status_code == 422
    assert (await here.delete(f"/v1/users/{'x' * 256}")).status_code == 422

    erased = await _erase(here, f"{path}?cancel=true")
    assert (erased["cancelled"], erased["user_id"]) == (1, "a/b")
    assert erased["removed"].items() >= {"runs": 1, "sessions": 1}.items()
    assert (await _erase(here, path))["removed"] == {}
    assert (await here.get("/v1/runs")).json()["data"] == []
    # Another tenant's user of the same name is another one.
    [left] = (await there.get("/v1/runs")).json()["data"]
    assert left["user_id"] == "a/b"


async def _erase(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.delete(path)
    assert answer.status_code == 200, answer.text
    erased: dict[str, Any] = answer.json()
    return erased
