"""``/v1/budgets``, and budgets of runs over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from perdure.access.keys import find_or_make_tenant
from perdure.db import Connection
from perdure.web import answers
from perdure.web.budget_answers import Budget
from tests.factories import insert_reply, insert_run
from tests.integration.api.conftest import ClientFor
from tests.integration.api.reading import pointers, read, read_list, refused

USER: dict[str, Any] = {
    "scope": "user",
    "user_id": "u-1",
    "period": "month",
    "cost_usd": "2.50",
    "total_tokens": 1000,
    "name": "Ada's",
}


@pytest.fixture
async def admin(client_for: ClientFor) -> httpx.AsyncClient:
    return await client_for("admin", subject="root")


async def test_the_life_of_budgets(
    admin: httpx.AsyncClient, client_for: ClientFor, client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn, user_id="u-1")
    await insert_reply(conn, run_id, tokens=10)
    response = await admin.post("/v1/budgets", json=USER, headers={"Idempotency-Key": "one"})
    made = read(Budget, response, 201)
    assert response.headers["location"] == f"/v1/budgets/{made['id']}"
    assert (made["cost_usd"], made["total_tokens"]) == ("2.50", 1000)
    # What was spent this month counts; of its price nobody knows.
    assert (made["spent_usd"], made["spent_tokens"], made["unpriced_requests"]) == ("0", 20, 1)
    assert made["starts_at"] < made["created_at"] < made["ends_at"]
    again = await admin.post("/v1/budgets", json=USER, headers={"Idempotency-Key": "one"})
    assert again.json() == response.json()
    refused(await admin.post("/v1/budgets", json=USER), 409, "invalid_state")
    total = read(Budget, await admin.post("/v1/budgets", json=USER | {"period": "total"}), 201)
    assert total["starts_at"] is None
    tenant = {"scope": "tenant", "total_tokens": 5}
    everybody = read(Budget, await admin.post("/v1/budgets", json=tenant), 201)

    listed = read_list(Budget, await client.get("/v1/budgets"))
    assert [one["id"] for one in listed] == [everybody["id"], total["id"], made["id"]]
    for query, found in (
        ({"user_id": "u-1"}, [total["id"], made["id"]]),
        ({"scope": "tenant"}, [everybody["id"]]),
        ({"agent": "u-1"}, []),
        ({"limit": 1, "after": everybody["id"]}, [total["id"]]),
    ):
        page = read_list(Budget, await client.get("/v1/budgets", params=query))
        assert [one["id"] for one in page] == found
    two = await client.get("/v1/budgets", params={"user_id": "u", "agent": "a"})
    assert pointers(refused(two, 422, "validation_error")) == ["/scope"]

    path = f"/v1/budgets/{made['id']}"
    changed = read(Budget, await admin.patch(path, json={"cost_usd": 3}))
    # The limits take the place of both there were.
    assert (changed["cost_usd"], changed["total_tokens"], changed["name"]) == ("3", None, "Ada's")
    named = read(Budget, await admin.patch(path, json={"name": "Other"}))
    assert (named["cost_usd"], named["name"]) == ("3", "Other")
    assert read(Budget, await client.get(path)) == named
    assert (await admin.delete(path)).status_code == 204
    refused(await client.get(path), 404, "not_found")
    kinds = await (
        await conn.execute(
            "SELECT kind FROM perdure.audit_log WHERE kind LIKE 'budget.%' ORDER BY id"
        )
    ).fetchall()
    assert [one["kind"].removeprefix("budget.") for one in kinds] == [
        *("created", "created", "created", "changed", "changed", "deleted"),
    ]

    other = await find_or_make_tenant(conn, "other")
    theirs = await client_for("admin", tenant_id=other)
    assert read_list(Budget, await theirs.get("/v1/budgets")) == []
    there = f"/v1/budgets/{total['id']}"
    refused(await theirs.get(there), 404, "not_found")
    refused(await theirs.patch(there, json={"name": "x"}), 404, "not_found")
    refused(await theirs.delete(there), 404, "not_found")
    for method, body in (("POST", USER), ("PATCH", {"name": "x"}), ("DELETE", None)):
        where = "/v1/budgets" if method == "POST" else there
        refused(await client.request(method, where, json=body), 403, "forbidden")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scope": "user", "total_tokens": 1}, "/user_id"),
        ({"scope": "session", "total_tokens": 1}, "/session_id"),
        ({"scope": "tenant", "total_tokens": 1, "agent": "a"}, "/agent"),
        ({"scope": "run", "total_tokens": 1}, "/scope"),
        ({"scope": "tenant"}, ""),
        ({"scope": "tenant", "cost_usd": "much"}, "/cost_usd"),
        ({"scope": "tenant", "cost_usd": "-1"}, "/cost_usd"),
        ({"scope": "tenant", "cost_usd": "NaN"}, "/cost_usd"),
        ({"scope": "tenant", "cost_usd": "1e-13"}, "/cost_usd"),
        ({"scope": "tenant", "cost_usd": "1e400"}, "/cost_usd"),
        ({"scope": "tenant", "total_tokens": -1}, "/total_tokens"),
        ({"scope": "tenant", "total_tokens": 2**63 - 1}, "/total_tokens"),
        ({"scope": "tenant", "total_tokens": 1, "period": "week"}, "/period"),
    ],
)
async def test_a_budget_that_is_none_is_refused(
    admin: httpx.AsyncClient, conn: Connection, body: dict[str, Any], field: str
) -> None:
    problem = refused(await admin.post("/v1/budgets", json=body), 422, "validation_error")
    assert pointers(problem) == [field]
    assert await (await conn.execute("SELECT FROM perdure.budgets")).fetchall() == []


async def test_a_run_has_its_budget(client: httpx.AsyncClient, conn: Connection) -> None:
    start = {"agent": "support", "input": "hi"}
    body = start | {"budget": {"cost_usd": 0.1, "total_tokens": 5}}
    run = read(answers.Run, await client.post("/v1/runs", json=body), 202)
    assert run["budget"] == {"cost_usd": "0.1", "total_tokens": 5}
    assert read(answers.Run, await client.get(f"/v1/runs/{run['id']}"))["budget"] == run["budget"]
    for wrong, field in (
        ({}, "/budget"),
        ({"cost_usd": "x"}, "/budget/cost_usd"),
        ({"total_tokens": 1.5}, "/budget/total_tokens"),
        ({"tokens": 1}, "/budget/tokens"),
    ):
        response = await client.post("/v1/runs", json=start | {"budget": wrong})
        assert pointers(refused(response, 422, "validation_error")) == [field]
    refused(await client.get(f"/v1/budgets/{uuid4()}"), 404, "not_found")
    plain = read(answers.Run, await client.post("/v1/runs", json=start), 202)
    assert plain["budget"] is None
