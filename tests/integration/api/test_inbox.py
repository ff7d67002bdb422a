"""The page of what waits: the same until something changes, and told when it does."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from perdure import notify
from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Connection
from perdure.notify import Waiters
from perdure.web import answers
from tests.engine_support import eventually
from tests.factories import insert_run, insert_stop, insert_tenant
from tests.integration.api.reading import pointers, read_list, refused

SECONDS = 20


async def test_a_page_is_given_again_when_it_has_changed_and_not_before(
    client: httpx.AsyncClient,
    conn: Connection,
    waiters: Waiters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A notification or nothing: looking again by itself would take too long.
    monkeypatch.setattr(notify, "FALLBACK_SECONDS", 2.0 * SECONDS)
    path = "/v1/interruptions"
    empty = await client.get(path)
    etag = empty.headers["etag"]
    assert (await client.get(path)).headers["etag"] == etag
    for seconds in (0, 0.1):
        same = await client.get(path, params={"wait": seconds}, headers={"If-None-Match": etag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    # Without a page to compare with there is nothing to wait for.
    assert (await client.get(path, params={"wait": 30})).status_code == 200

    async def next_page(known: str) -> httpx.Response:
        async with asyncio.timeout(SECONDS):
            return await client.get(
                path, params={"wait": 2 * SECONDS}, headers={"If-None-Match": known}
            )

    async def waits() -> bool:
        return str(DEFAULT_TENANT) in waiters._events

    waiting = asyncio.create_task(next_page(etag))
    await eventually(waits)
    # What happens to another tenant wakes nobody here.
    other = await insert_tenant(conn, "other")
    await insert_stop(conn, await insert_run(conn, tenant_id=other))
    stop = await insert_stop(conn, await insert_run(conn))
    opened = await waiting
    assert [one["id"] for one in read_list(answers.Interruption, opened)] == [str(stop.id)]

    waiting = asyncio.create_task(next_page(opened.headers["etag"]))
    await eventually(waits)
    await client.post(f"{path}/{stop.id}/decision", json={"decision": "reject"})
    closed = await waiting
    assert read_list(answers.Interruption, closed) == []
    assert closed.headers["etag"] == etag
    for wrong in ("-1", "61", "nan", "x"):
        answer = await client.get(path, params={"wait": wrong})
        assert pointers(refused(answer, 422, "validation_error")) == ["/query/wait"]
