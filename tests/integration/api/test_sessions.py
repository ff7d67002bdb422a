"""Sessions over HTTP: made, found, listed, changed, branched, deleted; and their items."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx

from perdure.db import Connection
from perdure.sessions.rules import MAX_ITEMS
from perdure.web import answers
from perdure.web.session_answers import FoundItem, Session, SessionItem, SessionList
from tests.factories import fetch, insert_tenant
from tests.integration.api.reading import pointers, read, read_list, refused

ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]

HELLO = {"role": "user", "content": "Where is order 42?"}
REPLY = {"role": "assistant", "content": "It left on Monday."}


async def make(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    return read(Session, await client.post("/v1/sessions", json=fields), 201)


async def say(
    client: httpx.AsyncClient, session: dict[str, Any], *items: Any
) -> list[dict[str, Any]]:
    answer = await client.post(f"/v1/sessions/{session['id']}/items", json={"items": items})
    rows: list[dict[str, Any]] = read(answers.List[SessionItem], answer, 201)["data"]
    return rows


async def words(client: httpx.AsyncClient, session: dict[str, Any]) -> list[str]:
    rows = read_list(SessionItem, await client.get(f"/v1/sessions/{session['id']}/items?limit=100"))
    return [row["text"] for row in rows]


async def test_a_session_from_its_beginning_to_its_end(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    made = await make(
        client, key="order/42", user_id="bob", tags=["a", "b", "a"], metadata={"x": {"y": 1.0}}
    )
    assert (made["key"], made["user_id"], made["tags"]) == ("order/42", "bob", ["a", "b"])
    assert (made["status"], made["depth"], made["last_seq"], made["title"]) == (
        "active",
        0,
        0,
        None,
    )
    assert made["root_session_id"] == made["id"]
    assert made["created_by"]["subject"] == "alice@example.com"

    # Found by key and user, as it is; others' keys are others.
    found: dict[str, Any] = {"session_key": "order/42", "user_id": "bob", "tags": ["c"]}
    assert read(Session, await client.post("/v1/sessions", json=found)) == made
    twice = await asyncio.gather(*(make_any(client, key="new", user_id="eve") for _ in range(8)))
    assert len({row["id"] for row in twice}) == 1
    assert (await make(client, key="order/42"))["id"] != made["id"]

    # Its title is made from the first message, the item comes back as it was.
    url = f"/v1/sessions/{made['id']}"
    metadata = {"sources": ["orders/42"], "selected": "left"}
    wrapped = {"item": REPLY, "token_count": 7, "metadata": metadata, "agent": "support"}
    first, second = await say(client, made, HELLO, {**wrapped, "sender": "Perdita"})
    assert (first["seq"], first["role"], first["user_id"]) == (1, "user", "bob")
    assert (second["agent"], second["sender"], second["token_count"]) == ("support", "Perdita", 7)
    assert (second["metadata"], second["user_id"]) == (metadata, None)
    shown = read(Session, await client.get(url))
    assert (shown["title"], shown["last_seq"]) == ("Where is order 42?", 2)
    assert shown["updated_at"] > made["updated_at"]
    item = {"type": "function_call", "b": 1.0, "a": "é\u2028", "name": "f", "call_id": "c"}
    [call] = await say(client, made, item)
    assert (call["role"], call["text"]) == ("assistant", None)
    got = await client.get(f"{url}/items/{call['id']}")
    assert json.dumps(read(SessionItem, got)["item"]) == json.dumps(item)

    # Pages of items, both ways.
    page = read_list(SessionItem, await client.get(f"{url}/items?limit=2"))
    assert [row["seq"] for row in page] == [1, 2]
    rest = read_list(SessionItem, await client.get(f"{url}/items?after={page[-1]['id']}"))
    assert rest == [call]
    last = read_list(SessionItem, await client.get(f"{url}/items?order=desc&limit=1"))
    assert last == [call]

    # Changed in part; null takes away.
    body = {"title": "Order 42", "rating": 4, "status": "archived", "metadata": {}, "tags": []}
    changed = read(Session, await client.patch(url, json={**body, "system_prompt": "Be brief."}))
    assert {name: changed[name] for name in body} == body
    assert changed["system_prompt"] == "Be brief."
    changed = read(Session, await client.patch(url, json={"rating": None, "title": None}))
    assert (changed["rating"], changed["title"], changed["status"]) == (None, None, "archived")

    # One item less, then others in the place of all.
    assert (await client.delete(f"{url}/items/{first['id']}")).status_code == 204
    refused(await client.delete(f"{url}/items/{first['id']}"), 404, "not_found")
    refused(await client.get(f"{url}/items/{first['id']}"), 404, "not_found")
    put = await client.put(f"{url}/items", json={"items": [HELLO]})
    [only] = read(answers.List[SessionItem], put)["data"]
    assert (only["seq"], await words(client, made)) == (4, ["Where is order 42?"])
    put = await client.put(f"{url}/items", json={"items": []})
    assert read(answers.List[SessionItem], put)["data"] == await words(client, made) == []

    # Deleted, its key is free; erased, it is gone.
    assert (await client.delete(url)).status_code == 204
    for refusal in (
        await client.get(url),
        await client.delete(url),
        await client.get(f"{url}/items"),
    ):
        refused(refusal, 404, "not_found")
    assert (await make(client, key="order/42", user_id="bob"))["id"] != made["id"]
    assert (await client.delete(f"{url}?hard=true")).status_code == 204
    refused(await client.delete(f"{url}?hard=true"), 404, "not_found")
    left = await fetch(
        conn,
        "SELECT (SELECT count(*) FROM perdure.session_items) AS items, (SELECT array_agg(kind"
        " ORDER BY id) FROM perdure.audit_log WHERE subject_type = 'session') AS audit",
    )
    kinds = ["item_removed", "items_replaced", "items_replaced", "deleted", "erased"]
    assert left == {"items": 0, "audit": [f"session.{kind}" for kind in kinds]}


async def make_any(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/sessions", json=fields)
    return read(Session, answer, answer.status_code)


async def test_branches(client: httpx.AsyncClient) -> None:
    root = await make(client, user_id="bob", tags=["t"], system_prompt="Be kind.", group_id="g")
    url = f"/v1/sessions/{root['id']}"
    await say(client, root, *({"role": "user", "content": str(n)} for n in range(1, 5)))
    answer = await client.post(f"{url}/branch", json={"from_seq": 2, "system_prompt": "Be brief."})
    branch = read(Session, answer, 201)
    assert answer.headers["location"] == f"/v1/sessions/{branch['id']}"
    assert (branch["parent_session_id"], branch["depth"], branch["fork_seq"]) == (root["id"], 1, 2)
    assert (branch["title"], branch["system_prompt"], branch["key"]) == ("1", "Be brief.", None)
    assert (branch["user_id"], branch["tags"], branch["group_id"]) == ("bob", ["t"], "g")
    [own] = await say(client, branch, {"role": "user", "content": "other"})
    assert (own["seq"], own["session_id"]) == (3, branch["id"])
    assert await words(client, branch) == ["1", "2", "other"]
    assert await words(client, root) == ["1", "2", "3", "4"]
    whole = read(Session, await client.post(f"{url}/branch"), 201)
    assert await words(client, whole) == ["1", "2", "3", "4"]

    # Neither takes from the other what it reads.
    items = read_list(SessionItem, await client.get(f"{url}/items"))
    there = f"/v1/sessions/{branch['id']}/items"
    assert (await client.delete(f"{there}/{items[0]['id']}")).status_code == 204
    await client.put(f"{url}/items", json={"items": [HELLO]})
    assert await words(client, branch) == ["2", "other"]
    assert await words(client, whole) == ["1", "2", "3", "4"]
    leaf_url = f"/v1/sessions/{branch['id']}/branch"
    leaf = read(Session, await client.post(leaf_url, json={"title": "leaf"}), 201)

    tree = read_list(Session, await client.get(f"/v1/sessions/{whole['id']}/tree"))
    assert [row["id"] for row in tree] == [row["id"] for row in (root, branch, whole, leaf)]
    assert [row["depth"] for row in tree] == [0, 1, 1, 2]
    below = read_list(Session, await client.get(f"/v1/sessions?parent={root['id']}"))
    assert [row["id"] for row in below] == [whole["id"], branch["id"]]

    # What branches read is not erased under them; deleting does not touch them.
    refused(await client.delete(f"{url}?hard=true"), 409, "conflict")
    assert (await client.delete(url)).status_code == 204
    refused(await client.post(f"{url}/branch"), 404, "not_found")
    assert await words(client, leaf) == ["2", "other"]
    tree = read_list(Session, await client.get(f"/v1/sessions/{leaf['id']}/tree?limit=2"))
    assert [row["id"] for row in tree] == [branch["id"], whole["id"]]
    assert (await client.delete(f"{url}?hard=true&cascade=true")).status_code == 204
    assert read_list(Session, await client.get("/v1/sessions")) == []


async def test_lists_and_whose_they_are(
    client: httpx.AsyncClient, client_for: ClientFor, conn: Connection
) -> None:
    made = [
        await make(client, user_id="bob", tags=["x"], group_id="g"),
        await make(client, user_id="bob", tags=["x", "y"]),
        await make(client, user_id="eve", tags=["y"], status="completed"),
        await make(client),
    ]
    for query, expected in (
        ("", [3, 2, 1, 0]),
        ("user_id=bob", [1, 0]),
        ("tag=x", [1, 0]),
        ("tag=x&tag=y", [1]),
        ("status=completed", [2]),
        ("group_id=g", [0]),
        ("user_id=bob&tag=y&status=active", [1]),
        ("order=asc&limit=2", [0, 1]),
        (f"after={made[2]['id']}", [1, 0]),
        (f"parent={made[0]['id']}", []),
    ):
        listed = await client.get(f"/v1/sessions?{query}&include=total_count")
        page = read(SessionList, listed)
        assert [row["id"] for row in page["data"]] == [made[n]["id"] for n in expected], query
        if "after" not in query and "limit" not in query:
            assert page["total_count"] == len(expected)
    assert "total_count" not in (await client.get("/v1/sessions")).json()

    bobs = f"/v1/sessions/{made[0]['id']}"
    [item] = await say(client, made[0], HELLO)
    tenant = await client_for(tenant_id=await insert_tenant(conn, "elsewhere"))
    reader = await client_for("runs:read")
    calls: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("PATCH", "", {"title": "mine"}),
        ("POST", "/branch", {}),
        ("GET", "/tree", None),
        ("GET", "/items", None),
        ("POST", "/items", {"items": [HELLO]}),
        ("PUT", "/items", {"items": [HELLO]}),
        ("GET", f"/items/{item['id']}", None),
        ("DELETE", f"/items/{item['id']}", None),
        ("DELETE", "", None),
        ("DELETE", "?hard=true", None),
    ]
    for method, path, body in calls:
        scoped = f"{bobs}{path}{'&' if '?' in path else '?'}user_id=eve"
        refused(await client.request(method, scoped, json=body), 404, "not_found")
        refused(await tenant.request(method, bobs + path, json=body), 404, "not_found")
        if method != "GET":
            refused(await reader.request(method, bobs + path, json=body), 403, "forbidden")
    assert read(Session, await client.get(f"{bobs}?user_id=bob"))["title"] == "Where is order 42?"
    assert await words(reader, made[0]) == ["Where is order 42?"]
    assert read_list(Session, await tenant.get("/v1/sessions")) == []

    key = {"Idempotency-Key": "once"}
    posted = [
        await client.post(f"{bobs}/items", json={"items": [REPLY]}, headers=key) for _ in range(2)
    ]
    assert posted[0].json() == posted[1].json()
    assert posted[1].headers["idempotent-replayed"] == "true"
    assert await words(client, made[0]) == [HELLO["content"], REPLY["content"]]


async def test_what_is_refused_is_refused_whole(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    session = await make(client, key="k")
    [item] = await say(client, session, HELLO)
    url = f"/v1/sessions/{session['id']}"
    before = await fetch(conn, "SELECT to_jsonb(s)::text AS row FROM perdure.sessions s")
    many = {"items": [HELLO] * (MAX_ITEMS + 1)}
    for method, path, body, pointer in (
        ("POST", "", {"key": ""}, "/key"),
        ("POST", "", {"key": "x" * 256}, "/key"),
        ("POST", "", {"key": "a", "session_key": "b"}, "/session_key"),
        ("POST", "", {"rating": 0}, "/rating"),
        ("POST", "", {"rating": True}, "/rating"),
        ("POST", "", {"status": "gone"}, "/status"),
        ("POST", "", {"tags": ["x" * 101]}, "/tags/0"),
        ("POST", "", {"tags": [str(n) for n in range(51)]}, "/tags"),
        ("POST", "", {"tags": "x"}, "/tags"),
        ("POST", "", {"metadata": []}, "/metadata"),
        ("POST", "", {"user_id": ""}, "/user_id"),
        # Parents are what a branch is made from, and nothing else.
        ("POST", "", {"parent_session_id": session["id"]}, "/parent_session_id"),
        ("PATCH", "/x", {"parent_session_id": session["id"]}, "/parent_session_id"),
        ("PATCH", "/x", {"rating": 6}, "/rating"),
        ("PATCH", "/x", {"status": None}, "/status"),
        ("PATCH", "/x", {"tags": None}, "/tags"),
        ("PATCH", "/x", {"title": "x" * 256}, "/title"),
        ("PATCH", "/x", {"user_id": "eve"}, "/user_id"),
        ("POST", "/x/items", {}, "/items"),
        ("POST", "/x/items", {"items": []}, "/items"),
        ("POST", "/x/items", {"items": {}}, "/items"),
        ("POST", "/x/items", many, "/items"),
        ("PUT", "/x/items", many, "/items"),
        ("POST", "/x/items", {"items": [HELLO, "x"]}, "/items/1"),
        ("POST", "/x/items", {"items": [HELLO, {**HELLO, "role": "critic"}]}, "/items/1/role"),
        ("PUT", "/x/items", {"items": [HELLO, {"content": "x"}]}, "/items/1/role"),
        ("PUT", "/x/items", {"items": [{"role": "user"}]}, "/items/0/content"),
        ("PUT", "/x/items", {"items": [{**HELLO, "content": ["x"]}]}, "/items/0/content/0"),
        ("PUT", "/x/items", {"items": [{"type": 3}]}, "/items/0/type"),
        ("POST", "/x/items", {"items": [{"item": HELLO, "seq": -1}]}, "/items/0/seq"),
        ("POST", "/x/items", {"items": [{"item": {}}]}, "/items/0/item/role"),
        (
            *("POST", "/x/items", {"items": [{"item": HELLO, "token_count": -1}]}),
            "/items/0/token_count",
        ),
        ("POST", "/x/items", {"items": [{"item": HELLO, "metadata": 1}]}, "/items/0/metadata"),
        ("POST", "/x/items", {"items": [{"item": HELLO, "agent": ""}]}, "/items/0/agent"),
        ("POST", "/x/branch", {"from_seq": -1}, "/from_seq"),
        ("POST", "/x/branch", {"from_seq": 2}, "/from_seq"),
        ("POST", "/x/branch", {"from_seq": 2**31}, "/from_seq"),
        ("POST", "/x/branch", {"from_seq": 1.5}, "/from_seq"),
        ("DELETE", "/x?cascade=true", None, "/query/cascade"),
        ("GET", "?status=gone", None, "/query/status"),
        ("GET", "?include=everything", None, "/query/include/0"),
        ("GET", "?limit=101", None, "/query/limit"),
        ("GET", "?parent=x", None, "/query/parent"),
        ("GET", f"/x/items?after={uuid4()}", None, "/query/after"),
    ):
        where = "/v1/sessions" + path.replace("/x", f"/{session['id']}", 1)
        answer = await client.request(method, where, json=body)
        problem = refused(answer, 422, "validation_error")
        assert pointers(problem)[0].startswith(pointer), (method, path, body, problem)
    for path in (f"/v1/sessions/{uuid4()}", "/v1/sessions/x", f"{url}/items/{uuid4()}"):
        refused(await client.get(path), 404, "not_found")
    assert before == await fetch(conn, "SELECT to_jsonb(s)::text AS row FROM perdure.sessions s")
    assert await words(client, session) == [item["text"]]


async def test_what_was_said_is_found_again(
    client: httpx.AsyncClient, client_for: ClientFor, conn: Connection
) -> None:
    def user(text: str) -> dict[str, Any]:
        return {"role": "user", "content": text}

    bob = await make(client, user_id="bob", tags=["billing"])
    eve = await make(client, user_id="eve")
    first, second, hostile = await say(
        *(client, bob),
        user("Where are my orders of copper wire?"),
        user("Refund the order, the ordered copper was broken copper, all copper"),
        user("<b onclick='alert()'>copper & tin</b> \ue001copper\ue002 \ue000"),
    )
    [hers] = await say(client, eve, user("No copper for me"))
    answer = await client.post(f"/v1/sessions/{bob['id']}/branch", json={"from_seq": 2})
    branch = read(Session, answer, 201)
    [own] = await say(client, branch, user("Brass instead of copper"))

    async def found(**query: Any) -> list[dict[str, Any]]:
        return read_list(FoundItem, await client.get("/v1/search", params=query))

    everything = await found(q="copper")
    assert {row["id"] for row in everything} == {
        *(first["id"], second["id"], hostile["id"], hers["id"], own["id"])
    }
    assert everything[0]["id"] == second["id"]
    ranks = [row["rank"] for row in everything]
    assert ranks == sorted(ranks, reverse=True)
    # Words are found in other forms, phrases as they are, and less what is not wanted.
    for query, expected in (
        ({"q": "ordering"}, [second, first]),
        ({"q": '"copper wire"'}, [first]),
        ({"q": "copper -broken", "user_id": "bob"}, [own, hostile, first]),
        ({"q": "brass or tin"}, [own, hostile]),
        ({"q": "copper", "tag": "billing", "session_id": bob["id"]}, [hostile, second, first]),
        ({"q": "copper", "session_id": branch["id"]}, [own, second, first]),
        ({"q": "copper", "user_id": "eve"}, [hers]),
        ({"q": "copper", "created_after": hers["created_at"]}, [own, hers]),
        ({"q": "copper", "created_before": second["created_at"]}, [first]),
        ({"q": "the"}, []),
        ({"q": "zinc"}, []),
        ({"q": "'):* & | ! <-> \\"}, []),
    ):
        assert {row["id"] for row in await found(**query)} == {row["id"] for row in expected}, query

    shown = {row["id"]: row for row in everything}
    assert "<mark>copper</mark> wire" in shown[first["id"]]["snippet"]
    snippet = shown[hostile["id"]]["snippet"]
    assert "<b" not in snippet
    assert "&amp; tin" in snippet
    assert snippet.count("<mark>copper</mark>") == snippet.count("mark>") / 2 == 2

    paged: list[dict[str, Any]] = []
    while page := await found(q="copper", limit=2, **({"after": paged[-1]["id"]} if paged else {})):
        paged += page
    assert [row["id"] for row in paged] == [row["id"] for row in everything]

    # What is removed, deleted, or another tenant's is not found.
    await client.delete(f"/v1/sessions/{bob['id']}/items/{second['id']}")
    await client.delete(f"/v1/sessions/{eve['id']}")
    assert {row["id"] for row in await found(q="copper")} == {first["id"], hostile["id"], own["id"]}
    assert {row["id"] for row in await found(q="copper", session_id=branch["id"])} == {
        *(first["id"], second["id"], own["id"])
    }
    tenant = await client_for(tenant_id=await insert_tenant(conn, "elsewhere"))
    assert read_list(FoundItem, await tenant.get("/v1/search?q=copper")) == []
    refused(await client.get(f"/v1/search?q=x&session_id={eve['id']}"), 404, "not_found")
    for query in ({}, {"q": ""}, {"q": "x" * 501}, {"q": "x", "after": "y"}):
        refused(await client.get("/v1/search", params=query), 422, "validation_error")

    # In another language the words are others.
    await conn.execute("SELECT perdure.set_search_language(id, 'simple') FROM perdure.tenants")
    assert await found(q="ordering") == []
    assert [row["id"] for row in await found(q="brass")] == [own["id"]]
