"""Bad requests: each a problem that names the field, and nothing written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from perdure.db import Connection
from perdure.web import answers, session_answers
from perdure.web.app import create_app
from tests.factories import fetch, insert_run, insert_stop
from tests.integration.api.reading import pointers, read, refused

GOOD = {"agent": "support", "input": "Hello"}
MESSAGE = {"role": "user", "content": "Hello"}


@pytest.fixture(autouse=True)
async def nothing_is_written(conn: Connection) -> AsyncIterator[None]:
    yield
    for table in ("runs", "idempotency_keys"):
        query = f"SELECT count(*) AS n FROM perdure.{table} WHERE status_code IS NULL"
        if table == "runs":
            query = "SELECT count(*) AS n FROM perdure.runs WHERE status = 'queued'"
        assert await fetch(conn, query) == {"n": 0}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"agent": None}, "/agent"),
        ({"agent": ""}, "/agent"),
        ({"agent": "nobody"}, "/agent"),
        ({"agent": 7}, "/agent"),
        ({"agent": ["support"]}, "/agent"),
        ({"input": None}, "/input"),
        ({"input": ""}, "/input"),
        ({"input": []}, "/input"),
        ({"input": {"role": "user"}}, "/input"),
        ({"input": 5}, "/input"),
        ({"input": [MESSAGE, "Hello"]}, "/input/1"),
        ({"input": [{"content": "Hello"}]}, "/input/0/role"),
        ({"input": [{**MESSAGE, "role": "root"}]}, "/input/0/role"),
        ({"input": [MESSAGE, {"role": "user"}]}, "/input/1/content"),
        ({"input": [{"role": "user", "content": []}]}, "/input/0/content"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "/input/0/content/0"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "/input/0/content/0"),
        ({"input": [{"type": 7}]}, "/input/0/type"),
        ({"context": {"customer": 7}}, "/context/customer"),
        ({"context": "text"}, "/context"),
        ({"user_id": ""}, "/user_id"),
        ({"user_id": "x" * 256}, "/user_id"),
        ({"user_id": 7}, "/user_id"),
        ({"metadata": []}, "/metadata"),
        ({"metadata": "x"}, "/metadata"),
        ({"max_turns": 0}, "/max_turns"),
        ({"max_turns": -1}, "/max_turns"),
        ({"max_turns": "5"}, "/max_turns"),
        ({"max_turns": 5.5}, "/max_turns"),
        ({"max_turns": True}, "/max_turns"),
        ({"max_turns": 2**40}, "/max_turns"),
        ({"priority": -1}, "/priority"),
        ({"priority": 2**31}, "/priority"),
        ({"priority": None}, "/priority"),
        ({"delay_seconds": -1}, "/delay_seconds"),
        ({"delay_seconds": 1e18}, "/delay_seconds"),
        ({"delay_seconds": "1"}, "/delay_seconds"),
        ({"imput": "Hello"}, "/imput"),
        ({"tenant_id": "x"}, "/tenant_id"),
        ({"metadata": {"a": ["\0"]}}, "/metadata/a/0"),
        ({"metadata": {"a/b~c": "\udc00"}}, "/metadata/a~1b~0c"),
        ({"metadata": {"n": 2**63}}, "/metadata/n"),
        ({"metadata": {"n": float("nan")}}, "/metadata/n"),
        ({"metadata": {"n": float("-inf")}}, "/metadata/n"),
        ({"input": "a\0b"}, "/input"),
        ({"agent": "\ud800"}, "/agent"),
    ],
    ids=str,
)
async def test_a_start_names_its_wrong_field(
    client: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    body = json.dumps({**GOOD, **change}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    response = await client.post("/v1/runs", content=body, headers=headers)
    assert pointers(refused(response, 422, "validation_error")) == [field]


async def test_every_wrong_field_is_named(client: httpx.AsyncClient) -> None:
    body = {"input": "x", "max_turns": 0, "priority": "high", "extra": 1}
    problem = refused(await client.post("/v1/runs", json=body), 422, "validation_error")
    assert sorted(pointers(problem)) == ["/agent", "/extra", "/max_turns", "/priority"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout_seconds", 60),
    ],
)
async def test_what_comes_later_says_so(client: httpx.AsyncClient, field: str, value: Any) -> None:
    response = await client.post("/v1/runs", json={**GOOD, field: value})
    assert pointers(refused(response, 422, "not_supported")) == [f"/{field}"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["/decision"]),
        ({"decision": "maybe"}, ["/decision"]),
        ({"decision": 1}, ["/decision"]),
        ({"decision": "approve"}, ["/digest"]),
        ({"decision": "approve", "digest": 7}, ["/digest"]),
        ({"decision": "reject", "message": ["x"]}, ["/message"]),
        ({"decision": "reject", "message": "x" * 10_001}, ["/message"]),
        ({"decision": "reject", "outcome": "done"}, ["/outcome"]),
        ({"decision": "resolve"}, ["/outcome"]),
        ({"decision": "resolve", "outcome": "gone"}, ["/outcome"]),
        ({"decision": "resolve", "outcome": "abandon", "result": None}, ["/result"]),
        ({"decision": "reject", "reason": "x"}, ["/reason"]),
        ({"decision": "reject", "message": "\0"}, ["/message"]),
        ([], [""]),
        ("reject", [""]),
        (None, [""]),
    ],
    ids=str,
)
async def test_a_decision_names_its_wrong_field(
    client: httpx.AsyncClient, conn: Connection, body: Any, fields: list[str]
) -> None:
    stop = await insert_stop(conn, await insert_run(conn))
    response = await client.post(
        f"/v1/interruptions/{stop.id}/decision",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert pointers(refused(response, 422, "validation_error")) == fields
    shown = read(answers.Interruption, await client.get(f"/v1/interruptions/{stop.id}"))
    assert (shown["status"], shown["decisions"]) == ("pending", [])


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/runs?limit=0", "/query/limit"),
        ("/v1/runs?limit=101", "/query/limit"),
        ("/v1/runs?limit=ten", "/query/limit"),
        ("/v1/runs?limit=" + "9" * 5000, "/query/limit"),
        ("/v1/runs?after=42", "/query/after"),
        ("/v1/runs?order=up", "/query/order"),
        ("/v1/runs?status=asleep", "/query/status"),
        ("/v1/runs?metadata=ticket", "/query/metadata"),
        ("/v1/runs?metadata=%7B%22a%22:NaN%7D", "/query/metadata"),
        ("/v1/runs?metadata=%7B%22a%22:%22%5Cu0000%22%7D", "/query/metadata"),
        ("/v1/runs?metadata=[1]", "/query/metadata"),
        ("/v1/runs?metadata=%7B%7D", "/query/metadata"),
        ("/v1/runs?created_after=yesterday", "/query/created_after"),
        ("/v1/runs?created_before=2026-01-01T00:00:00", "/query/created_before"),
        ("/v1/runs?agent=%00", "/query/agent"),
        ("/v1/runs?user_id=a%00", "/query/user_id"),
        ("/v1/runs?colour=red", "/query/colour"),
        ("/v1/runs?%00=1", "/query/\ufffd"),
        ("/v1/runs/{run}?wait=61", "/query/wait"),
        ("/v1/runs/{run}?wait=-1", "/query/wait"),
        ("/v1/runs/{run}?wait=nan", "/query/wait"),
        ("/v1/runs/{run}?wait=inf", "/query/wait"),
        ("/v1/runs/{run}?wait=soon", "/query/wait"),
        ("/v1/runs/{run}/items?limit=0", "/query/limit"),
        ("/v1/runs/{run}/usage?order=x", "/query/order"),
        ("/v1/interruptions?status=open", "/query/status"),
        ("/v1/interruptions?type=riddle", "/query/type"),
        ("/v1/interruptions?run_id=7", "/query/run_id"),
        ("/v1/usage?group_by=tool", "/query/group_by"),
        ("/v1/usage?group_by=agent,", "/query/group_by"),
        ("/v1/usage?group_by=day&group_by=", "/query/group_by"),
        ("/v1/usage?from=soon", "/query/from"),
        ("/v1/usage?from=2026-02-30", "/query/from"),
        ("/v1/usage?to=2026-01-01T00:00:00", "/query/to"),
        ("/v1/usage?to=1767225600", "/query/to"),
        ("/v1/usage?from=2026-01-02&to=2026-01-01", "/query/from"),
        ("/v1/usage?from=2024-01-01&to=2026-01-01&group_by=day", "/query/from"),
        ("/v1/usage?from=0001-01-01", "/query/from"),
        ("/v1/usage?to=9999-12-31T23:59:59-14:00", "/query/to"),
        ("/v1/usage?limit=1001", "/query/limit"),
        ("/v1/usage?offset=-1", "/query/offset"),
        ("/v1/usage?user_id=", "/query/user_id"),
        ("/v1/usage?agent=%00", "/query/agent"),
        ("/v1/usage?by=agent", "/query/by"),
    ],
)
async def test_a_query_names_its_wrong_value(
    client: httpx.AsyncClient, conn: Connection, path: str, field: str
) -> None:
    response = await client.get(path.format(run=await insert_run(conn)))
    assert pointers(refused(response, 422, "validation_error")) == [field]


@pytest.mark.parametrize(
    "query",
    [
        "agent=%ff%fe",
        "agent=%ED%A0%80",
        "user_id=" + "x" * 10_000,
        "created_after=9999-12-31T23:59:59-14:00",
        "created_before=0001-01-01T00:00:00%2B14:00",
        "after=00000000-0000-0000-0000-000000000000",
    ],
)
async def test_odd_queries_find_nothing(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/v1/runs?{query}")
    assert read(answers.List[answers.Run], response)["data"] == []


async def test_a_start_in_a_session_names_what_is_wrong(client: httpx.AsyncClient) -> None:
    there = read(session_answers.Session, await client.post("/v1/sessions", json={}), 201)["id"]
    for given, pointer in (
        ({"session_id": there, "session_key": "c"}, "/session_key"),
        ({"session_id": "c"}, "/session_id"),
        ({"session_key": ""}, "/session_key"),
        ({"session_key": "x" * 256}, "/session_key"),
        ({"session_key": "c", "when_busy": "wait"}, "/when_busy"),
        ({"session_key": "c", "delay_seconds": 5}, "/delay_seconds"),
    ):
        response = await client.post("/v1/runs", json={**GOOD, **given})
        assert pointers(refused(response, 422, "validation_error")) == [pointer]
    response = await client.post("/v1/runs", json={**GOOD, "session_id": str(uuid4())})
    refused(response, 404, "not_found")
    assert read(answers.List[answers.Run], await client.get("/v1/runs"))["data"] == []


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b'{"agent": ', "application/json", 400, "malformed_json"),
        (b"agent=support", "application/json", 400, "malformed_json"),
        (b"\xff\xfe{\x00}\x00", "application/json", 400, "malformed_json"),
        (b'"\xed\xa0\x80"', "application/json", 400, "malformed_json"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "", 415, "unsupported_media_type"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"{}", "application/json; charset=latin-1", 415, "unsupported_media_type"),
        (b"{}", "application/jsonx", 415, "unsupported_media_type"),
        (b"", "application/json", 422, "validation_error"),
        (b"[" * 100_000, "application/json", 422, "validation_error"),
        (b"[" * 65 + b"]" * 65, "application/json", 422, "validation_error"),
    ],
)
async def test_a_body_that_is_no_json(
    client: httpx.AsyncClient, content: bytes, content_type: str, status: int, code: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    refused(await client.post("/v1/runs", content=content, headers=headers), status, code)


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_a_compressed_body_is_refused(client: httpx.AsyncClient, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    response = await client.post("/v1/runs", content=b"\x1f\x8b", headers=headers)
    refused(response, 415, "unsupported_media_type")


async def test_other_spellings_of_json_are_taken(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn, status="running")
    for content_type in ("application/json; charset=UTF-8", "application/vnd.x+json"):
        headers = {"Content-Type": content_type}
        response = await client.post(f"/v1/runs/{run_id}/cancel", content="{}", headers=headers)
        read(answers.Run, response, 202)


async def test_a_body_where_none_belongs(client: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn, status="running")
    response = await client.post(f"/v1/runs/{run_id}/cancel", json={"reason": "x"})
    assert pointers(refused(response, 422, "validation_error")) == ["/reason"]


async def test_the_size_of_a_body_has_an_end(
    client: httpx.AsyncClient, app: FastAPI, conn: Connection
) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 1024):
            yield b" " * 1024

    room = 1024 * 1024 - len(json.dumps(GOOD))
    fits = json.dumps(GOOD).encode() + b" " * room
    headers = {"Content-Type": "application/json", "Idempotency-Key": "x" * 256}
    for content in (fits + b" ", chunks(2 * 1024 * 1024)):
        response = await client.post("/v1/runs", content=content, headers=headers)
        refused(response, 413, "payload_too_large")
    # It comes past the door; the key is what is refused.
    refused(await client.post("/v1/runs", content=fits, headers=headers), 422, "validation_error")
    api = app.state.api
    small = create_app(
        pool=api.pool, registry=api.registry, waiters=api.waiters, max_body_bytes=1024
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(small), base_url="http://api.test", headers=client.headers
    ) as other:
        response = await other.post("/v1/runs", json={**GOOD, "user_id": "x" * 1024})
        refused(response, 413, "payload_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/runs/", 404, "not_found"),
        ("GET", "/v1/runs/42", 404, "not_found"),
        ("GET", "/v1/runs/%00", 404, "not_found"),
        ("GET", "/v1/runs/%ed%a0%80", 404, "not_found"),
        ("GET", "/v1/runs/" + "x" * 5000, 404, "not_found"),
        ("DELETE", "/v1/runs/42", 404, "not_found"),
        ("POST", "/v1/runs/42/cancel", 404, "not_found"),
        ("PUT", "/v1/runs", 405, "method_not_allowed"),
        ("PATCH", "/v1/runs/42", 405, "method_not_allowed"),
        ("DELETE", "/v1/interruptions", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
    ],
)
async def test_addresses_that_are_none(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path)
    refused(response, status, code)
    if status == 405:
        assert response.headers["allow"]
