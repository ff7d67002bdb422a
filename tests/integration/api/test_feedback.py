"""Feedback over HTTP: given, replaced, listed, summed up, deleted with what it is on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx

from perdure.access.principals import DEFAULT_TENANT, local_principal
from perdure.db import Connection
from perdure.feedback.store import MAX_COMMENT
from perdure.runs import store as runs
from perdure.sessions import items
from perdure.sessions.rules import NewItem
from perdure.web.feedback_answers import Feedback, FeedbackSummaries
from perdure.web.session_answers import Session, SessionItem
from tests.factories import fetch, insert_item, insert_run, insert_tenant
from tests.integration.api.reading import pointers, read, read_list, refused

ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]


async def give(client: httpx.AsyncClient, status: int = 201, **fields: Any) -> dict[str, Any]:
    return read(Feedback, await client.post("/v1/feedback", json=fields), status)


async def run_of(conn: Connection, version: str | None, **fields: Any) -> str:
    run_id = await insert_run(conn, status="completed", **fields)
    await conn.execute(
        "UPDATE perdure.runs SET agent_version = %s WHERE id = %s", (version, run_id)
    )
    return str(run_id)


async def session_with(
    client: httpx.AsyncClient, conn: Connection, run_id: str | None, **fields: Any
) -> tuple[str, str]:
    """A session with one item of a run; returns their ids."""
    session = read(Session, await client.post("/v1/sessions", json=fields), 201)
    [item] = await items.append(
        conn,
        tenant_id=DEFAULT_TENANT,
        session_id=UUID(session["id"]),
        items=[
            NewItem(
                {"role": "assistant", "content": "It left on Monday."},
                agent="desk",
                run_id=None if run_id is None else UUID(run_id),
            )
        ],
        by=local_principal(),
    )
    return session["id"], item["id"]


async def test_feedback_from_its_beginning_to_its_end(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await run_of(conn, "v1", user_id="bob")
    session_id, item_id = await session_with(client, conn, run_id, user_id="bob")
    answer = await client.post(
        "/v1/feedback",
        json={
            "run_id": run_id,
            "rating": 4,
            "type": "accuracy",
            "comment": "Nearly \U0001f642",
            "user_id": "bob",
        },
    )
    on_run = read(Feedback, answer, 201)
    assert answer.headers["location"] == f"/v1/feedback/{on_run['id']}"
    shown = {name: on_run[name] for name in ("run_id", "item_id", "rating", "liked", "comment")}
    assert shown == {
        "run_id": run_id,
        "item_id": None,
        "rating": 4,
        "liked": None,
        "comment": "Nearly \U0001f642",
    }
    assert (on_run["agent"], on_run["agent_version"]) == ("support", "v1")
    assert read(Feedback, await client.get(f"/v1/feedback/{on_run['id']}")) == on_run

    # On what it said: the run, the session and the agent are the item's.
    on_item = await give(client, item_id=item_id, liked=False, user_id="bob")
    assert (on_item["item_id"], on_item["run_id"]) == (item_id, run_id)
    assert on_item["session_id"] == session_id
    assert (on_item["rating"], on_item["liked"], on_item["type"]) == (None, False, "other")
    assert (on_item["agent"], on_item["agent_version"]) == ("desk", "v1")
    row = await insert_item(conn, UUID(run_id), seq=1, text="x", item={})
    of_run = await give(client, item_id=str(row), rating=1, comment="")
    assert (of_run["item_id"], of_run["run_id"], of_run["comment"]) == (str(row), run_id, None)

    # Said again it is replaced, whole; another type, another user, nobody are others.
    again = await give(client, 200, run_id=run_id, liked=True, type="accuracy", user_id="bob")
    assert (again["id"], again["created_at"]) == (on_run["id"], on_run["created_at"])
    assert (again["rating"], again["liked"], again["comment"]) == (None, True, None)
    assert again["updated_at"] > on_run["updated_at"]
    others = [
        await give(client, run_id=run_id, rating=2, user_id="bob"),
        await give(client, run_id=run_id, rating=2, type="accuracy"),
    ]
    assert (await give(client, 200, run_id=run_id, rating=3, type="accuracy"))["rating"] == 3
    assert len({one["id"] for one in (on_run, on_item, of_run, *others)}) == 5

    # A POST that is sent twice counts once.
    key = {"Idempotency-Key": "once"}
    body = {"run_id": run_id, "rating": 5, "type": "relevance"}
    posted = [await client.post("/v1/feedback", json=body, headers=key) for _ in range(2)]
    assert [one.status_code for one in posted] == [201, 201]
    assert posted[0].json() == posted[1].json()
    assert posted[1].headers["idempotent-replayed"] == "true"

    # It goes with what it is on.
    assert (await client.delete(f"/v1/feedback/{others[0]['id']}")).status_code == 204
    refused(await client.get(f"/v1/feedback/{others[0]['id']}"), 404, "not_found")
    refused(await client.delete(f"/v1/feedback/{others[0]['id']}"), 404, "not_found")
    await runs.delete_run(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run_id))
    [left] = read_list(Feedback, await client.get("/v1/feedback"))
    assert left == {**on_item, "run_id": None}
    assert (await client.delete(f"/v1/sessions/{session_id}?hard=true")).status_code == 204
    assert read_list(Feedback, await client.get("/v1/feedback")) == []


async def test_lists_and_sums(client: httpx.AsyncClient, conn: Connection) -> None:
    first = await run_of(conn, "v1", user_id="bob")
    second = await run_of(conn, "v2")
    session_id, item_id = await session_with(client, conn, second)
    await conn.execute(
        "UPDATE perdure.runs SET session_id = %s WHERE id = %s", (session_id, second)
    )
    made = [
        await give(client, run_id=first, rating=1, type="accuracy", user_id="bob"),
        await give(client, run_id=first, rating=4, user_id="bob"),
        await give(client, run_id=second, rating=5, type="accuracy", user_id="eve"),
        await give(client, run_id=second, liked=True, user_id="bob"),
        await give(client, item_id=item_id, liked=False, user_id="eve"),
    ]
    moment = made[2]["created_at"]
    for query, expected in (
        ("", [4, 3, 2, 1, 0]),
        ("order=asc&limit=2", [0, 1]),
        (f"after={made[2]['id']}", [1, 0]),
        (f"run_id={first}", [1, 0]),
        (f"run_id={second}", [4, 3, 2]),
        (f"item_id={item_id}", [4]),
        (f"session_id={session_id}", [4, 3, 2]),
        (f"session_id={session_id}&user_id=bob", [3]),
        (f"session_id={uuid4()}", []),
        ("type=accuracy", [2, 0]),
        ("agent=desk", [4]),
        ("agent_version=v1", [1, 0]),
        ("min_rating=4", [2, 1]),
        ("min_rating=2&max_rating=4", [1]),
        ("liked=false", [4]),
        (f"created_after={moment}", [4, 3]),
        (f"created_before={moment}", [1, 0]),
    ):
        rows = read_list(Feedback, await client.get(f"/v1/feedback?{query}"))
        assert rows == [made[n] for n in expected], query

    async def summary(query: str = "") -> list[dict[str, Any]]:
        answer = await client.get(f"/v1/feedback/summary?{query}")
        rows: list[dict[str, Any]] = read(FeedbackSummaries, answer)["data"]
        return rows

    def sums(count: int, average: float | None, likes: int, dislikes: int, *ratings: int) -> Any:
        return {
            "object": "feedback_summary",
            "count": count,
            "average_rating": average,
            "likes": likes,
            "dislikes": dislikes,
            "ratings": {str(n): ratings.count(n) for n in range(1, 6)},
        }

    assert await summary() == [
        {"agent": "desk", "version": "v2", **sums(1, None, 0, 1)},
        {"agent": "support", "version": "v2", **sums(2, 5.0, 1, 0, 5)},
        {"agent": "support", "version": "v1", **sums(2, 2.5, 0, 0, 1, 4)},
    ]
    assert await summary("group_by=type&agent=support") == [
        {"type": "other", **sums(2, 4.0, 1, 0, 4)},
        {"type": "accuracy", **sums(2, 3.0, 0, 0, 1, 5)},
    ]
    assert len(await summary("group_by=agent&group_by=version&group_by=type")) == 5
    assert await summary(f"group_by=agent&from={moment}&user_id=bob") == [
        {"agent": "support", **sums(1, None, 1, 0)}
    ]
    assert await summary(f"to={made[0]['created_at']}") == []


async def test_what_is_refused_and_whose_it_is(
    client: httpx.AsyncClient, client_for: ClientFor, conn: Connection
) -> None:
    run_id = await run_of(conn, None, user_id="bob")
    session_id, item_id = await session_with(client, conn, None, user_id="bob")
    branch = await client.post(f"/v1/sessions/{session_id}/branch", json={})
    for body, pointer in (
        ({"rating": 4}, "/run_id"),
        ({"run_id": run_id, "item_id": item_id, "rating": 4}, "/item_id"),
        ({"run_id": "x", "rating": 4}, "/run_id"),
        ({"run_id": run_id}, "/rating"),
        ({"run_id": run_id, "rating": 4, "liked": True}, "/liked"),
        ({"run_id": run_id, "rating": 0}, "/rating"),
        ({"run_id": run_id, "rating": 6}, "/rating"),
        ({"run_id": run_id, "rating": 4.5}, "/rating"),
        ({"run_id": run_id, "rating": True}, "/rating"),
        ({"run_id": run_id, "liked": 1}, "/liked"),
        ({"run_id": run_id, "rating": 4, "type": "style"}, "/type"),
        ({"run_id": run_id, "rating": 4, "comment": "x" * (MAX_COMMENT + 1)}, "/comment"),
        ({"run_id": run_id, "rating": 4, "comment": "\0"}, "/comment"),
        ({"run_id": run_id, "rating": 4, "user_id": ""}, "/user_id"),
        ({"run_id": run_id, "rating": 4, "stars": 4}, "/stars"),
    ):
        problem = refused(await client.post("/v1/feedback", json=body), 422, "validation_error")
        assert pointers(problem) == [pointer], body
    for path, pointer in (
        ("?min_rating=0", "/query/min_rating"),
        ("?type=style", "/query/type"),
        ("?run_id=x", "/query/run_id"),
        ("?limit=101", "/query/limit"),
        ("?stars=4", "/query/stars"),
        ("/summary?group_by=day", "/query/group_by/0"),
        ("/summary?from=monday", "/query/from"),
        ("/summary?from=2026-01-01T00:00:00", "/query/from"),
    ):
        problem = refused(await client.get(f"/v1/feedback{path}"), 422, "validation_error")
        assert pointers(problem) == [pointer], path

    tenant = await client_for(tenant_id=await insert_tenant(conn, "elsewhere"))
    reader = await client_for("runs:read")
    for target in ({"run_id": run_id}, {"item_id": item_id}):
        for who, user, status, code in (
            (client, {"user_id": "eve"}, 404, "not_found"),
            (tenant, {}, 404, "not_found"),
            (tenant, {"user_id": "bob"}, 404, "not_found"),
            (reader, {}, 403, "forbidden"),
        ):
            body = {**target, "rating": 4, **user}
            refused(await who.post("/v1/feedback", json=body), status, code)
    for target in ({"run_id": str(uuid4())}, {"item_id": str(uuid4())}):
        refused(await client.post("/v1/feedback", json={**target, "rating": 4}), 404, "not_found")
    assert await fetch(conn, "SELECT count(*) AS n FROM perdure.feedback") == {"n": 0}

    given = await give(client, run_id=run_id, rating=4, user_id="bob")
    url = f"/v1/feedback/{given['id']}"
    for refusal in (
        await client.get(f"{url}?user_id=eve"),
        await client.delete(f"{url}?user_id=eve"),
        await tenant.get(url),
        await tenant.delete(url),
        await client.get("/v1/feedback/nonsense"),
    ):
        refused(refusal, 404, "not_found")
    refused(await reader.delete(url), 403, "forbidden")
    assert read(Feedback, await reader.get(f"{url}?user_id=bob")) == given
    assert read_list(Feedback, await tenant.get("/v1/feedback")) == []
    assert read(FeedbackSummaries, await tenant.get("/v1/feedback/summary"))["data"] == []

    # The longest there is, of what takes most room; and of many at once one is there.
    longest = "\ue000" * MAX_COMMENT
    assert (await give(client, run_id=run_id, rating=1, comment=longest))["comment"] == longest
    body = {"run_id": run_id, "rating": 2, "type": "relevance"}
    many = await asyncio.gather(*(client.post("/v1/feedback", json=body) for _ in range(8)))
    assert sorted(one.status_code for one in many) == [*[200] * 7, 201]
    assert len({one.json()["id"] for one in many}) == 1

    # What a session has no more is judged where a branch reads it, and keeps what was said of it.
    on_item = await give(client, item_id=item_id, rating=5)
    assert (await client.delete(f"/v1/sessions/{session_id}/items/{item_id}")).status_code == 204
    assert (await client.delete(f"/v1/sessions/{session_id}")).status_code == 204
    assert (await give(client, 200, item_id=item_id, rating=4))["id"] == on_item["id"]
    branch_id = read(Session, branch, 201)["id"]
    assert read_list(SessionItem, await client.get(f"/v1/sessions/{branch_id}/items"))
    assert (await client.delete(f"/v1/sessions/{branch_id}")).status_code == 204
    answer = await client.post("/v1/feedback", json={"item_id": item_id, "rating": 1})
    refused(answer, 404, "not_found")
