"""Messages to a run over HTTP: accepted, listed, refused."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from perdure import notify
from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Connection
from perdure.events import read_events
from perdure.runs import inputs
from perdure.web import answers
from tests.factories import fetch, insert_run
from tests.integration.api.reading import pointers, read, read_list, refused

DEADLINE = 15.0
PARTS = [
    {"type": "input_text", "text": "Look: "},
    {"type": "input_image", "image_url": "https://example.com/a.png"},
]


async def test_a_message_is_accepted_once_told_and_listed(
    client: httpx.AsyncClient, conn: Connection, database_url: str
) -> None:
    run_id = await insert_run(conn, status="running")
    path = f"/v1/runs/{run_id}/input"
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with (
        asyncio.timeout(DEADLINE),
        notify.Listener(database_url, {notify.INPUT: heard.put_nowait}),
    ):
        assert await heard.get() == ""
        added: list[dict[str, Any]] = []
        for given in ("Wait.", [{"type": "message", "role": "user", "content": PARTS}]):
            key = {"Idempotency-Key": str(len(added))}
            first = await client.post(path, json={"input": given}, headers=key)
            again = await client.post(path, json={"input": given}, headers=key)
            assert (again.status_code, again.content) == (202, first.content)
            added.append(read(answers.Input, first, 202))
            assert await heard.get() == str(run_id)
        assert heard.empty()
    problem = await client.post(path, json={"input": "Go."}, headers={"Idempotency-Key": "0"})
    refused(problem, 409, "idempotency_conflict")
    listed = read_list(answers.Input, await client.get(f"{path}s"))
    assert listed == added
    assert [one["input"] for one in listed] == [
        [{"role": "user", "content": "Wait."}],
        [{"type": "message", "role": "user", "content": PARTS}],
    ]
    for one in listed:
        assert one["added_by"]["type"] == "service_key"
        assert (one["status"], one["given_at"], one["checkpoint"]) == ("pending", None, None)
    page = {"limit": 1, "after": listed[0]["id"]}
    rest = await client.get(f"{path}s", params=page)
    assert read_list(answers.Input, rest) == listed[1:]
    log = (await read_events(conn, tenant_id=DEFAULT_TENANT, run_id=run_id)).events
    told = [one.data for one in log if one.event == "input.added"]
    assert [one["input_id"] for one in told] == [one["id"] for one in listed]
    assert [one["text"] for one in told] == ["Wait.", "Look: "]
    assert told[0]["by"] == listed[0]["added_by"]
    audited = await fetch(
        conn, "SELECT count(*) AS n FROM perdure.audit_log WHERE kind = 'run.input_added'"
    )
    assert audited["n"] == 2
    # What was said goes with the run.
    await conn.execute("UPDATE perdure.runs SET status = 'cancelled', finished_at = now()")
    listed = read_list(answers.Input, await client.get(f"{path}s"))
    assert {(one["status"], one["reason"]) for one in listed} == {("not_given", "run_cancelled")}
    assert (await client.delete(f"/v1/runs/{run_id}")).status_code == 204
    assert (await fetch(conn, "SELECT count(*) AS n FROM perdure.run_inputs"))["n"] == 0


def _user(content: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content, **more}]


BAD: list[tuple[Any, str]] = [
    ({}, "/input"),
    ({"input": None}, "/input"),
    ({"input": ""}, "/input"),
    ({"input": []}, "/input"),
    ({"input": 7}, "/input"),
    ({"input": "a\0b"}, "/input"),
    ({"input": {"role": "user", "content": "x"}}, "/input"),
    ({"input": "x", "role": "user"}, "/role"),
    ({"input": ["x"]}, "/input/0"),
    ({"input": [*_user("x"), {"role": "assistant", "content": "x"}]}, "/input/1/role"),
    ({"input": [{"role": "system", "content": "x"}]}, "/input/0/role"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "/input/0/type"),
    ({"input": _user("x", status="completed")}, "/input/0/status"),
    ({"input": _user("")}, "/input/0/content"),
    ({"input": _user([])}, "/input/0/content"),
    ({"input": _user(["x"])}, "/input/0/content/0"),
    ({"input": _user([{"type": "output_text", "text": "x"}])}, "/input/0/content/0"),
    ({"input": _user([{"type": "input_text"}])}, "/input/0/content/0/text"),
]


async def test_what_is_no_message_is_refused_whole(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn, status="running")
    path = f"/v1/runs/{run_id}/input"
    for body, pointer in BAD:
        problem = refused(await client.post(path, json=body), 422, "validation_error")
        assert pointers(problem) == [pointer], body
    large = {"input": "x" * (1 << 20)}
    refused(await client.post(path, json=large), 413, "payload_too_large")
    assert read_list(answers.Input, await client.get(f"{path}s")) == []


async def test_which_runs_take_messages(
    client: httpx.AsyncClient, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MOST_WAITING", 2)
    for status in ("queued", "running", "interrupted"):
        run_id = await insert_run(conn, status=status)
        for _ in range(2):
            read(answers.Input, await _say(client, run_id), 202)
        problem = refused(await _say(client, run_id), 409, "invalid_state")
        assert "2 messages wait for it already" in problem["detail"]
        run = read(answers.Run, await client.get(f"/v1/runs/{run_id}"))
        assert run["status"] == status
    for status in ("completed", "failed", "cancelled"):
        run_id = await insert_run(conn, status=status)
        problem = refused(await _say(client, run_id), 409, "invalid_state")
        assert f"is {status} and cannot be given a message" in problem["detail"]
    run_id = await insert_run(conn, status="running")
    await client.post(f"/v1/runs/{run_id}/cancel")
    problem = refused(await _say(client, run_id), 409, "invalid_state")
    assert "is being cancelled" in problem["detail"]
    refused(await client.get(f"/v1/runs/{UUID(int=0)}/inputs"), 404, "not_found")


async def _say(client: httpx.AsyncClient, run_id: UUID) -> httpx.Response:
    return await client.post(f"/v1/runs/{run_id}/input", json={"input": "Wait."})
