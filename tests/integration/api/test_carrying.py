"""Sessions taken along and brought elsewhere, as lines of JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI

from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.db import Connection
from perdure.sessions import carried
from perdure.sessions.items import append
from perdure.sessions.rules import NewItem
from perdure.sessions.store import change_session
from perdure.web import answers, state
from perdure.web.session_answers import Session, SessionImport, SessionItem
from tests.factories import fetch, insert_run, insert_tenant
from tests.integration.api.reading import pointers, read, refused

ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]
Line = dict[str, Any]

LINES = {"Content-Type": "application/x-ndjson"}
AWKWARD = {"role": "user", "content": "\0é\ud800\u2028\ue000", "b": 1.0, "a": 1e300, "n": 10**30}


async def make(client: httpx.AsyncClient, **fields: Any) -> str:
    made = read(Session, await client.post("/v1/sessions", json=fields), 201)
    return str(made["id"])


async def say(client: httpx.AsyncClient, session: str, *items: Any) -> None:
    given = [{"role": "user", "content": one} if isinstance(one, str) else one for one in items]
    answer = await client.post(f"/v1/sessions/{session}/items", json={"items": given})
    read(answers.List[SessionItem], answer, 201)


async def branch(client: httpx.AsyncClient, session: str, from_seq: int, **fields: Any) -> str:
    body = {"from_seq": from_seq, **fields}
    made = read(Session, await client.post(f"/v1/sessions/{session}/branch", json=body), 201)
    return str(made["id"])


async def remove(client: httpx.AsyncClient, session: str, *numbers: int) -> None:
    items = await said(client, session)
    for number in numbers:
        [id_] = [one["id"] for one in items if one["seq"] == number]
        answer = await client.delete(f"/v1/sessions/{session}/items/{id_}")
        assert answer.status_code == 204


async def said(client: httpx.AsyncClient, session: str) -> list[Line]:
    answer = await client.get(f"/v1/sessions/{session}/items?limit=100")
    rows: list[Line] = read(answers.List[SessionItem], answer)["data"]
    return rows


async def exported(client: httpx.AsyncClient, **query: Any) -> list[Line]:
    answer = await client.get("/v1/sessions/export", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.content.splitlines()]
    end = lines.pop()
    kinds = [line["object"] for line in lines]
    assert end == {
        "object": "end",
        "sessions": kinds.count("session"),
        "items": kinds.count("item"),
    }
    return lines


async def bring(client: httpx.AsyncClient, lines: Any, **query: Any) -> httpx.Response:
    body = lines if isinstance(lines, bytes) else written(lines)
    return await client.post("/v1/sessions/import", content=body, headers=LINES, params=query)


def written(lines: list[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def became(answer: httpx.Response) -> dict[str, str]:
    done = read(SessionImport, answer, 201)
    assert done["session_count"] == len(done["sessions"])
    return {one["from"]: one["id"] for one in done["sessions"]}


def content(rows: list[Line]) -> list[str]:
    """All that is an item's own, its bytes too."""
    rest = ("seq", "role", "sender", "text", "item", "agent", "token_count", "metadata")
    return [json.dumps([row[name] for name in (*rest, "created_at")]) for row in rows]


async def a_tree(client: httpx.AsyncClient, conn: Connection) -> dict[str, str]:
    """Removals above and below, a deleted session in the middle, and what only a branch reads."""
    here: dict[str, Any] = {"tenant_id": DEFAULT_TENANT, "by": program_principal("tests")}
    root = await make(client, key="order/42", user_id="bob", group_id="g")
    await say(client, root, "1")
    # As the SDK's sessions may have it; the door of the API would not let it in.
    await append(conn, **here, session_id=UUID(root), items=[NewItem(AWKWARD)])
    await say(client, root, {"item": {"role": "user", "content": "3"}, "agent": "a"}, "4")
    middle = await branch(client, root, 3, title="middle")
    await say(client, middle, "m4", "m5")
    leaf = await branch(client, middle, 4)
    await remove(client, middle, 2)
    late = await branch(client, middle, 5)
    await say(client, late, {"item": {"role": "assistant", "content": "l6"}, "token_count": 3})
    await remove(client, root, 1, 4)
    await remove(client, middle, 4)
    more = {"tags": ["t"], "metadata": {"x": [1.0, "\0"]}, "system_prompt": "\ud800\0", "rating": 4}
    await change_session(conn, **here, session_id=UUID(late), changes=more)
    return {"root": root, "middle": middle, "leaf": leaf, "late": late}


async def test_a_tree_reads_elsewhere_as_it_did(
    client: httpx.AsyncClient, client_for: ClientFor, conn: Connection
) -> None:
    tree = await a_tree(client, conn)
    other = await make(client, user_id="eve")
    gone = await make(client, user_id="bob")
    await client.delete(f"/v1/sessions/{gone}")
    tenant = await client_for(tenant_id=await insert_tenant(conn, "elsewhere"), subject="carol")

    async def compare(ids: dict[str, str], to: httpx.AsyncClient) -> None:
        for old, new in ids.items():
            there = await said(to, new)
            assert content(there) == content(await said(client, old))
            assert {row["session_id"] for row in there} <= set(ids.values())

    # All of it, into another tenant.
    lines = await exported(client, user_id="bob")
    of = [line["id"] for line in lines if line["object"] == "session"]
    assert of == [tree["root"], tree["middle"], *of[2:]]
    assert set(of) == set(tree.values())
    ids = became(await bring(tenant, lines))
    await compare(ids, tenant)
    new = {name: ids[old] for name, old in tree.items()}
    for name, old in tree.items():
        mine = read(Session, await client.get(f"/v1/sessions/{old}"))
        theirs = read(Session, await tenant.get(f"/v1/sessions/{new[name]}"))
        assert theirs["created_by"]["subject"] == theirs["updated_by"]["subject"] == "carol"
        own = ("id", "root_session_id", "parent_session_id", "created_by", "updated_by")
        assert theirs == mine | {field: theirs[field] for field in own}
    # It goes on there as it would here: what is removed above is not taken from branches.
    for to, where in ((tenant, new), (client, tree)):
        await remove(to, where["root"], 2)
    await compare(ids, tenant)
    # What was said is found where it is.
    [found] = (await tenant.get("/v1/search?q=m5&session_id=" + new["late"])).json()["data"]
    assert found["session_id"] == new["middle"]

    # Some of it: who is without their parent has all they read; what nobody reads stays here.
    for chosen in (["late"], ["middle", "leaf", "late"], ["root"], ["leaf", "late"]):
        lines = await exported(client, session_id=[tree[name] for name in chosen])
        await compare(became(await bring(tenant, lines, user_id=str(uuid4()))), tenant)
    alone = [line["item"] for line in (await exported(client, session_id=tree["root"]))[1:]]
    assert [item["content"] for item in alone] == ["3"]
    # A deleted parent is one that does not go along.
    await client.delete(f"/v1/sessions/{tree['middle']}")
    lines = await exported(client, user_id="bob")
    assert {line["parent_session_id"] for line in lines if "parent_session_id" in line} == {None}
    ids = became(await bring(tenant, lines, user_id="again"))
    assert ids.keys() == {tree["root"], tree["leaf"], tree["late"]}
    await compare(ids, tenant)

    for query, expected in (
        ({"group_id": "g", "tag": "t"}, {tree["late"]}),
        ({"status": "archived"}, set[str]()),
        ({"user_id": "eve"}, {other}),
    ):
        lines = await exported(client, **query)
        assert {one["id"] for one in lines if one["object"] == "session"} == expected
    assert await exported(await client_for(tenant_id=await insert_tenant(conn, "void"))) == []


async def test_lines_written_by_hand(client: httpx.AsyncClient, conn: Connection) -> None:
    here = await insert_run(conn)
    elsewhere = await insert_run(conn, tenant_id=await insert_tenant(conn, "elsewhere"))
    hello, reply = {"role": "user", "content": "Hello"}, {"type": "reasoning", "summary": []}
    lines: list[Line] = [
        {"object": "session", "id": "a", "user_id": "bob"},
        {"object": "item", "session_id": "a", "item": hello, "run_id": str(here)},
        {"object": "item", "session_id": "a", "item": reply, "run_id": str(elsewhere)},
        {"object": "session", "id": "b", "user_id": "bob", "parent_session_id": "a", "title": None},
        {"object": "item", "session_id": "b", "item": hello, "created_at": "2026-01-31T12:00:00Z"},
    ]
    body = b"\r\n\n".join(json.dumps(line).encode() for line in lines)
    headers = {**LINES, "Idempotency-Key": "once"}
    answer = await client.post("/v1/sessions/import", content=body, headers=headers)
    again = await client.post("/v1/sessions/import", content=body, headers=headers)
    assert (again.content, again.headers["idempotent-replayed"]) == (answer.content, "true")
    other = await client.post("/v1/sessions/import", content=body + b"\n", headers=headers)
    refused(other, 409, "idempotency_conflict")
    ids = became(answer)
    a, b = [read(Session, await client.get(f"/v1/sessions/{ids[name]}")) for name in "ab"]
    assert (a["title"], a["last_seq"], a["user_id"]) == ("Hello", 2, "bob")
    assert (b["title"], b["last_seq"], b["fork_seq"], b["depth"]) == (None, 3, 2, 1)
    rows = await said(client, b["id"])
    assert [(row["seq"], row["user_id"], row["run_id"]) for row in rows] == [
        *((1, "bob", str(here)), (2, None, None), (3, "bob", None)),
    ]
    assert rows[2]["created_at"] == "2026-01-31T12:00:00.000000Z"


async def test_what_is_wrong_is_named_and_nothing_is_written(
    client: httpx.AsyncClient,
    client_for: ClientFor,
    app: FastAPI,
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = await make(client, key="k", user_id="bob")
    session: Line = {"object": "session", "id": "a", "last_seq": 2, "version": 1}
    branch_: Line = {"object": "session", "id": "b", "parent_session_id": "a", "fork_seq": 1}
    item: Line = {"object": "item", "session_id": "a", "item": AWKWARD}
    hole = {"version": 1, "from_seq": 1, "to_seq": 1}
    deep = b"[" * 100_000
    before = await counted(conn)
    for lines, pointer in (
        ([b"{", session], "/lines/1"),
        ([session, b"\xff"], "/lines/2"),
        ([session, deep], "/lines/2"),
        ([session, b"", b"[]"], "/lines/3/object"),
        ([{"object": "run"}], "/lines/1/object"),
        ([{"object": "session"}], "/lines/1/id"),
        ([session, session], "/lines/2/id"),
        ([{**session, "colour": "red"}], "/lines/1/colour"),
        ([{**session, "key": ""}], "/lines/1/key"),
        ([{**session, "user_id": "\0"}], "/lines/1/user_id"),
        ([{**session, "title": "x" * 256}], "/lines/1/title"),
        ([{**session, "system_prompt": 1}], "/lines/1/system_prompt"),
        ([{**session, "tags": "t"}], "/lines/1/tags"),
        ([{**session, "tags": [""]}], "/lines/1/tags/0"),
        ([{**session, "metadata": []}], "/lines/1/metadata"),
        ([{**session, "status": "gone"}], "/lines/1/status"),
        ([{**session, "rating": 6}], "/lines/1/rating"),
        ([{**session, "created_at": "2026-01-31"}], "/lines/1/created_at"),
        ([{**session, "fork_seq": 1}], "/lines/1/fork_seq"),
        ([session, {**branch_, "parent_session_id": "b"}], "/lines/2/parent_session_id"),
        ([branch_, session], "/lines/1/parent_session_id"),
        ([session, {**branch_, "fork_seq": 3}], "/lines/2/fork_seq"),
        ([session, {**branch_, "fork_version": 2}], "/lines/2/fork_version"),
        ([session, {**branch_, "last_seq": 0}], "/lines/2/last_seq"),
        ([session, {**branch_, "holes": [1]}], "/lines/2/holes/0"),
        ([session, {**branch_, "holes": [{**hole, "to_seq": 2}]}], "/lines/2/holes/0/to_seq"),
        ([session, {**branch_, "holes": [hole, hole]}], "/lines/2/holes/1"),
        ([session, {**branch_, "holes": [hole], "version": 0}], "/lines/2/holes"),
        ([item], "/lines/1/session_id"),
        ([session, branch_, item], "/lines/3/session_id"),
        ([session, {**item, "item": "Hello"}], "/lines/2/item"),
        ([session, {**item, "item": {"role": "root"}}], "/lines/2/item/role"),
        ([session, {**item, "seq": -1}], "/lines/2/seq"),
        ([session, item, {**item, "seq": 1}], "/lines/3/seq"),
        ([session, item, item, item], "/lines/4/seq"),
        ([session, {**item, "removed_version": 2}], "/lines/2/removed_version"),
        ([session, {**item, "token_count": 1.5}], "/lines/2/token_count"),
        ([session, {**item, "run_id": "r"}], "/lines/2/run_id"),
        ([session, {**item, "metadata": {"n": float("nan")}}], "/lines/2"),
        ([session, json.dumps(item).replace("1e+300", "1e999").encode()], "/lines/2/item"),
        ([session, {"object": "end", "sessions": 2}], "/lines/2/sessions"),
        ([session, {"object": "end"}, session], "/lines/3"),
        ([{**session, "key": "n"}, {**session, "id": "c", "key": "n"}], "/lines/2/key"),
        (bring(client, [], on_conflict="overwrite"), "/query/on_conflict"),
        (client.get("/v1/sessions/export?session_id=x"), "/query/session_id/0"),
    ):
        if isinstance(lines, list):
            parts = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]
            lines = bring(client, b"\n".join(parts))
        problem = refused(await lines, 422, "validation_error")
        assert pointers(problem) == [pointer], problem

    # A key that is taken, and what is left out if one says so.
    tree = [
        {**session, "key": "k", "user_id": "bob"},
        item,
        branch_,
        {**branch_, "id": "c", "parent_session_id": "b"},
        {**session, "id": "d", "key": "k"},
    ]
    problem = refused(await bring(client, tree), 409, "conflict")
    assert problem["pointer"] == "/lines/1/key"
    assert there in problem["detail"]
    assert await counted(conn) == before
    done = read(SessionImport, await bring(client, tree, on_conflict="skip"), 201)
    assert [one["from"] for one in done["sessions"]] == ["d"]
    assert [(one["from"], one["id"]) for one in done["skipped"]] == [
        *(("a", there), ("b", None), ("c", None))
    ]
    assert (done["item_count"], done["skipped_count"]) == (0, 3)
    before = await counted(conn)

    # Other ways in, other people.
    for headers in ({"Content-Type": "application/json"}, {**LINES, "Content-Encoding": "gzip"}):
        answer = await client.post("/v1/sessions/import", content=b"{}", headers=headers)
        refused(answer, 415, "unsupported_media_type")
    tenant = await client_for(tenant_id=await insert_tenant(conn, "elsewhere"))
    for who in (client, tenant):
        missing = await who.get(f"/v1/sessions/export?session_id={uuid4()}&session_id={there}")
        refused(missing, 404, "not_found")
    reader = await client_for("runs:read")
    refused(await bring(reader, tree), 403, "forbidden")

    # Beyond what it may have, said ahead or found out.
    monkeypatch.setattr(carried, "MAX_SESSIONS", 300)
    chain = [session, *({**branch_, "id": str(n)} for n in range(2, 302))]
    for lines, most, pointer in (
        ([session, {**session, "id": "x" * 200}], 200, "/lines/2"),
        ([session, b" " * 300], 200, "/lines/2"),
        (
            [{**one, "parent_session_id": None, "fork_seq": None} for one in chain],
            999,
            "/lines/301",
        ),
        (
            [
                session,
                *({**one, "parent_session_id": before["id"]} for before, one in pairwise(chain)),
            ],
            *(999, "/lines/258/parent_session_id"),
        ),
    ):
        monkeypatch.setattr(carried, "MAX_LINE_BYTES", most)
        body = b"\n".join(
            one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines
        )
        problem = refused(await bring(client, body), 422, "validation_error")
        assert pointers(problem) == [pointer]
    # Only this call is read as it comes.
    answer = await client.patch("/v1/sessions/import", content=b"{", headers=LINES)
    refused(answer, 415, "unsupported_media_type")
    app.state.api = replace(app.state.api, settings=replace(app.state.api.settings, **SMALL))

    async def chunks() -> AsyncIterator[bytes]:
        yield written([session])
        for _ in range(3):
            yield b" " * 1024

    for content_ in (b" " * 3000, chunks()):
        answer = await client.post("/v1/sessions/import", content=content_, headers=LINES)
        refused(answer, 413, "payload_too_large")
    assert await counted(conn) == before


SMALL: dict[str, Any] = {"max_import_bytes": 2048}


async def counted(conn: Connection) -> Any:
    return await fetch(
        conn,
        "SELECT (SELECT count(*) FROM perdure.sessions) AS sessions,"
        " (SELECT count(*) FROM perdure.session_items) AS items,"
        " (SELECT count(*) FROM perdure.idempotency_keys) AS keys",
    )


async def test_a_few_at_a_time(
    client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "CONNECTION_SECONDS", 0.01)
    api = app.state.api
    async with api.carrying(), api.carrying():
        for answer in (await client.get("/v1/sessions/export"), await bring(client, [])):
            refused(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "30"
    assert await exported(client) == []


async def test_who_breaks_off_leaves_nothing(
    client: httpx.AsyncClient, app: FastAPI, conn: Connection
) -> None:
    lines = [
        {"object": "session", "id": "a"},
        *({"object": "item", "session_id": "a", "item": AWKWARD} for _ in range(2000)),
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/sessions/import",
        "query_string": b"",
        "headers": [
            (b"authorization", client.headers["authorization"].encode()),
            (b"content-type", b"application/x-ndjson"),
        ],
    }
    sent: list[Any] = []
    messages = [
        {"type": "http.request", "body": written(lines), "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert messages == []
    assert await counted(conn) == {"sessions": 0, "items": 0, "keys": 0}

    # Nor does a reader who goes hold on to anything.
    ids = became(await bring(client, lines))
    gone = asyncio.Event()

    async def read_a_little(message: Any) -> None:
        if message["type"] == "http.response.body":
            gone.set()
            raise OSError

    async def wait() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    out = {**scope, "method": "GET", "path": "/v1/sessions/export"}
    # More often than there are connections.
    for _ in range(20):
        with suppress(OSError):
            await app(out, wait, read_a_little)
    assert ids.keys() == {"a"}
    assert len(await exported(client)) == 2001
