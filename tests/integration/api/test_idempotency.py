"""The same POST twice: one effect, one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from perdure.db import Connection
from perdure.idempotency import purge_expired
from perdure.web import answers
from tests.factories import enqueued, fetch, insert_run, insert_stop, insert_tenant
from tests.integration.api.reading import pointers, read, refused

DEADLINE = 60.0

ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]

START = {"agent": "support", "input": "Refund order 42", "metadata": {"a": 1, "b": 2}}


def key(text: str) -> dict[str, str]:
    return {"Idempotency-Key": text}


def same(first: httpx.Response, again: httpx.Response) -> None:
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers.get("location") == first.headers.get("location")
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


async def runs(conn: Connection) -> int:
    row = await fetch(conn, "SELECT count(*) AS n FROM perdure.runs")
    count: int = row["n"]
    return count


async def test_a_repeated_start_starts_once(client: httpx.AsyncClient, conn: Connection) -> None:
    first = await client.post("/v1/runs", json=START, headers=key("k"))
    run = read(answers.Run, first, 202)
    await conn.execute("UPDATE perdure.runs SET status = 'running'")
    again = await client.post("/v1/runs", json=START, headers=key("k"))
    same(first, again)
    # Another spelling of the same JSON is the same request.
    spelt = b'{ "metadata":{"b":2,"a":1},"input":"Refund order \\u0034\\u0032","agent":"support"}'
    again = await client.post(
        "/v1/runs", content=spelt, headers={**key("k"), "Content-Type": "application/json"}
    )
    same(first, again)
    assert await runs(conn) == 1
    other = await client.post("/v1/runs", json=START, headers=key("k2"))
    assert read(answers.Run, other, 202)["id"] != run["id"]


async def test_another_body_is_a_conflict(client: httpx.AsyncClient, conn: Connection) -> None:
    await client.post("/v1/runs", json=START, headers=key("k"))
    for body in ({**START, "input": "Other"}, {**START, "priority": 1}):
        response = await client.post("/v1/runs", json=body, headers=key("k"))
        refused(response, 409, "idempotency_conflict")
    assert await runs(conn) == 1


async def test_twenty_repeats_at_once_start_one_run(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    async with asyncio.timeout(DEADLINE):
        responses = await asyncio.gather(
            *(client.post("/v1/runs", json=START, headers=key("k")) for _ in range(20))
        )
    assert {response.status_code for response in responses} == {202}
    assert len({response.content for response in responses}) == 1
    replayed = [response.headers.get("idempotent-replayed") for response in responses]
    assert sorted(map(str, replayed)) == ["None", *["true"] * 19]
    assert await runs(conn) == 1


async def test_every_post_takes_a_key(client: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id)
    failed = await insert_run(conn, status="failed")
    for path, body in (
        (f"/v1/interruptions/{stop.id}/decision", {"decision": "approve", "digest": stop.digest}),
        (f"/v1/runs/{failed}/resume", None),
        (f"/v1/runs/{run_id}/cancel", None),
    ):
        # One key serves several routes.
        first = await client.post(path, json=body, headers=key("k"))
        assert first.status_code in (200, 202), first.text
        same(first, await client.post(path, json=body, headers=key("k")))
    assert await enqueued(conn, failed) == [f"{failed}:2"]


async def test_a_conflict_is_an_answer_too(client: httpx.AsyncClient, conn: Connection) -> None:
    stop = await insert_stop(conn, await insert_run(conn))
    path = f"/v1/interruptions/{stop.id}/decision"
    body = {"decision": "approve", "digest": "sha256:" + "0" * 64}
    first = await client.post(path, json=body, headers=key("k"))
    refused(first, 409, "digest_mismatch")
    same(first, await client.post(path, json=body, headers=key("k")))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"agent": "nobody", "input": "x"}, 422, "validation_error"),
        ({"agent": "support", "input": ""}, 422, "validation_error"),
        ({"agent": "support", "input": "x", "timeout_seconds": 5}, 422, "not_supported"),
    ],
)
async def test_a_refused_request_leaves_the_key_free(
    client: httpx.AsyncClient, conn: Connection, body: dict[str, Any], status: int, code: str
) -> None:
    refused(await client.post("/v1/runs", json=body, headers=key("k")), status, code)
    read(answers.Run, await client.post("/v1/runs", json=START, headers=key("k")), 202)
    assert await runs(conn) == 1


async def test_a_key_is_a_tenants_own(client_for: ClientFor, conn: Connection) -> None:
    ours, also_ours = await client_for(), await client_for()
    theirs = await client_for(tenant_id=await insert_tenant(conn, "other"))
    first = await ours.post("/v1/runs", json=START, headers=key("k"))
    same(first, await also_ours.post("/v1/runs", json=START, headers=key("k")))
    other = await theirs.post("/v1/runs", json=START, headers=key("k"))
    assert read(answers.Run, other, 202)["id"] != first.json()["id"]
    # A role is asked for again at each replay.
    reader = await client_for("runs:read")
    refused(await reader.post("/v1/runs", json=START, headers=key("k")), 403, "forbidden")


async def test_a_key_is_kept_for_24_hours(client: httpx.AsyncClient, conn: Connection) -> None:
    first = await client.post("/v1/runs", json=START, headers=key("k"))
    age = "UPDATE perdure.idempotency_keys SET expires_at = expires_at - interval %s"
    await conn.execute(age.replace("%s", "'23 hours 59 minutes'").encode())
    assert await purge_expired(conn) == 0
    same(first, await client.post("/v1/runs", json=START, headers=key("k")))
    await conn.execute(age.replace("%s", "'2 minutes'").encode())
    second = await client.post("/v1/runs", json={**START, "input": "New"}, headers=key("k"))
    assert read(answers.Run, second, 202)["id"] != first.json()["id"]
    await conn.execute(age.replace("%s", "'25 hours'").encode())
    assert await purge_expired(conn) == 1


@pytest.mark.parametrize("given", ["", "x" * 256, "tab\there"])
async def test_a_key_that_is_none_is_refused(
    client: httpx.AsyncClient, conn: Connection, given: str
) -> None:
    response = await client.post("/v1/runs", json=START, headers=key(given))
    problem = refused(response, 422, "validation_error")
    assert pointers(problem) == ["/headers/Idempotency-Key"]
    assert await runs(conn) == 0


async def test_the_longest_key(client: httpx.AsyncClient) -> None:
    for text in ("x" * 255, "ü" * 255):
        headers = [(b"idempotency-key", text.encode("latin-1"))]
        first = await client.post("/v1/runs", json=START, headers=headers)
        assert first.status_code == 202, first.text
        same(first, await client.post("/v1/runs", json=START, headers=headers))


async def test_a_failure_keeps_neither_key_nor_run(
    client: httpx.AsyncClient,
    conn: Connection,
    app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(agent: str, context: Any) -> Any:
        raise RuntimeError("a mistake of ours")

    with monkeypatch.context() as patch:
        patch.setattr(app.state.api.registry, "check_start", broken)
        response = await client.post("/v1/runs", json=START, headers=key("k"))
    problem = refused(response, 500, "internal_error")
    assert response.headers["x-request-id"] in problem["detail"]
    assert "a mistake of ours" not in response.text
    assert "a mistake of ours" in caplog.text
    assert await runs(conn) == 0
    read(answers.Run, await client.post("/v1/runs", json=START, headers=key("k")), 202)
