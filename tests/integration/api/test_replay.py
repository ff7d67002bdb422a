"""Replays and diffs over HTTP: what is refused, whose they are, pages. Nothing runs here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from perdure.db import Connection
from perdure.runs.replay import MAX_MESSAGES
from perdure.web import answers
from perdure.web.replay_answers import Replay, SessionDiff
from perdure.web.session_answers import Session, SessionItem
from tests.factories import fetch, insert_tenant
from tests.integration.api.reading import pointers, read, refused

ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def reply(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


async def make(client: httpx.AsyncClient, *items: Any) -> str:
    made = read(Session, await client.post("/v1/sessions", json={"user_id": "bob"}), 201)
    url = f"/v1/sessions/{made['id']}"
    await say(client, url, *items)
    return url


async def say(client: httpx.AsyncClient, url: str, *items: Any) -> None:
    for start in range(0, len(items), 1000):
        body = {"items": items[start : start + 1000]}
        read(answers.List[SessionItem], await client.post(f"{url}/items", json=body), 201)


async def test_what_is_refused_and_whose_a_replay_is(
    client: httpx.AsyncClient, client_for: ClientFor, conn: Connection
) -> None:
    url = await make(client, user("1"), reply("2"), user("3"), {"role": "system", "content": "4"})
    empty = await make(client)
    body: dict[str, Any] = {"agent": "support"}
    for where, given, status, named in (
        (url, {}, 422, ["/agent"]),
        (url, {"agent": "nobody"}, 422, ["/agent"]),
        (url, body | {"model": "nowhere/model"}, 422, ["/model"]),
        (url, body | {"model": ""}, 422, ["/model"]),
        (url, body | {"tools": "ledger"}, 422, ["/tools"]),
        (url, body | {"title": ""}, 422, ["/title"]),
        (url, body | {"context": {"customer": 1}}, 422, ["/context/customer"]),
        (url, body | {"unknown": 1}, 422, ["/unknown"]),
        (url, body | {"from_seq": 0}, 422, ["/from_seq"]),
        (url, body | {"from_seq": -1}, 422, ["/from_seq"]),
        (url, body | {"from_seq": 5}, 422, ["/from_seq"]),
        (url, body | {"to_seq": 5}, 422, ["/to_seq"]),
        (url, body | {"from_seq": 3, "to_seq": 2}, 422, ["/to_seq"]),
        (url, body | {"from_seq": 2, "to_seq": 2}, 422, ["/from_seq"]),
        (url, body | {"from_seq": 4}, 422, ["/from_seq"]),
        (empty, body, 422, ["/from_seq"]),
        (f"{url}x", body, 404, None),
    ):
        problem = refused(
            await client.post(f"{where}/replay", json=given),
            status,
            "validation_error" if status == 422 else "not_found",
        )
        assert named is None or pointers(problem) == named, given

    tenant = await client_for(tenant_id=await insert_tenant(conn, "elsewhere"))
    reader = await client_for("runs:read")
    refused(await client.post(f"{url}/replay?user_id=eve", json=body), 404, "not_found")
    refused(await tenant.post(f"{url}/replay", json=body), 404, "not_found")
    refused(await reader.post(f"{url}/replay", json=body), 403, "forbidden")
    left = await fetch(
        conn,
        "SELECT (SELECT count(*) FROM perdure.runs) AS runs,"
        " (SELECT count(*) FROM perdure.sessions) AS sessions",
    )
    assert left == {"runs": 0, "sessions": 2}

    # Asked for again with its key it is the same replay.
    key = {"Idempotency-Key": "once"}
    made = [
        read(
            Replay,
            await client.post(f"{url}/replay?user_id=bob", json=body | {"to_seq": 2}, headers=key),
            202,
        )
        for _ in range(2)
    ]
    assert made[0] == made[1]
    [run] = made[0]["runs"]
    assert (run["input"], run["user_id"], run["max_turns"]) == ([user("1")], "bob", 7)
    assert run["status"] == "queued"

    branch = f"/v1/sessions/{made[0]['session']['id']}"
    other = await make(client, user("1"))
    for where, query, status, who in (
        (branch, "user_id=eve", 404, client),
        (branch, "", 404, tenant),
        (f"{url}x", "", 404, client),
        (branch, f"with={branch[13:]}", 422, client),
        (branch, f"with={other[13:]}", 422, client),
        (branch, "with=nonsense", 422, client),
        (branch, f"with={run['id']}", 404, client),
        (url, "", 422, client),
        (branch, "after=-1", 422, client),
        (branch, "limit=101", 422, client),
    ):
        answer = await who.get(f"{where}/diff?{query}")
        problem = refused(answer, status, "not_found" if status == 404 else "validation_error")
        if "with" in query and status == 422:
            assert pointers(problem) == ["/query/with"]
    await client.delete(url)
    refused(await client.get(f"{branch}/diff"), 404, "not_found")
    refused(await client.post(f"{url}/replay", json=body), 404, "not_found")


async def test_a_long_conversation_is_replayed_in_ranges(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    turns = [one for n in range(MAX_MESSAGES + 1) for one in (user(f"q{n}"), reply(f"a{n}"))]
    url = await make(client, *turns)
    body: dict[str, Any] = {"agent": "sales"}
    problem = refused(await client.post(f"{url}/replay", json=body), 422, "validation_error")
    assert pointers(problem) == ["/to_seq"]
    assert "before item 401" in problem["detail"]
    content = read(Replay, await client.post(f"{url}/replay", json=body | {"to_seq": 400}), 202)
    assert [run["replays_seq"] for run in content["runs"]] == list(range(1, 401, 2))
    turned = await fetch(
        conn,
        "SELECT count(*) FILTER (WHERE s.status = 'queued') AS first,"
        " count(*) FILTER (WHERE s.due_at = 'infinity') AS others"
        " FROM perdure.segments s",
    )
    assert turned == {"first": 1, "others": MAX_MESSAGES - 1}
    found: list[Any] = []
    while True:
        after = f"&after={found[-1]['number']}" if found else ""
        page = await client.get(f"/v1/sessions/{content['session']['id']}/diff?limit=100{after}")
        shown = read(SessionDiff, page)
        found += shown["turns"]
        if not shown["has_more"]:
            break
    assert [turn["number"] for turn in found] == list(range(1, MAX_MESSAGES + 2))
    assert [turn["input"]["same"] for turn in found] == [True] * MAX_MESSAGES + [False]


async def test_sessions_beside_each_other(client: httpx.AsyncClient) -> None:
    root = await make(client, user("1"), reply("2"))
    left, right = [
        read(Session, await client.post(f"{root}/branch", json={"from_seq": seq}), 201)["id"]
        for seq in (2, 1)
    ]
    call = {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "c1"}
    await say(client, f"/v1/sessions/{left}", reply("mid"), user("hi"), reply("a b  c\n"), call)
    await say(client, f"/v1/sessions/{right}", reply("two"), user("hi"), reply("a x b c\n"))
    await say(client, f"/v1/sessions/{right}", user("more"), user("and more"), reply("d"))
    path = f"/v1/sessions/{right}/diff?with={left}"
    found = read(SessionDiff, await client.get(path))
    assert (found["fork_seq"], found["base"]["id"], found["has_more"]) == (1, left, False)
    start, asked, more = found["turns"]
    assert (start["number"], start["base"]["text"], start["session"]["text"]) == (
        0,
        "2\nmid",
        "two",
    )
    assert asked["input"] == {"base": "hi", "session": "hi", "same": True}
    assert not asked["same"]
    assert asked["changes"] == [
        {"op": "equal", "base": "a", "session": "a"},
        {"op": "insert", "base": "", "session": " x"},
        {"op": "equal", "base": " b  c\n", "session": " b c\n"},
    ]
    assert (more["base"], more["input"]["session"]) == (None, "more\nand more")
    assert more["changes"] == [{"op": "insert", "base": "", "session": "d"}]
    page = read(SessionDiff, await client.get(f"{path}&limit=1"))
    assert ([turn["number"] for turn in page["turns"]], page["has_more"]) == ([0], True)
    page = read(SessionDiff, await client.get(f"{path}&limit=1&after=1"))
    assert ([turn["number"] for turn in page["turns"]], page["has_more"]) == ([2], False)

    # The same, but for ids, is the same; with a branch's parent what came after the fork.
    same = read(Session, await client.post(f"/v1/sessions/{right}/branch"), 201)["id"]
    found = read(SessionDiff, await client.get(f"/v1/sessions/{same}/diff"))
    assert (found["fork_seq"], found["turns"]) == (7, [])
    twin = read(Session, await client.post(f"{root}/branch", json={"from_seq": 1}), 201)["id"]
    await say(client, f"/v1/sessions/{twin}", reply("2"))
    [turn] = read(SessionDiff, await client.get(f"/v1/sessions/{twin}/diff"))["turns"]
    assert turn["same"]
