"""``/v1/agents``: what agents there are, their versions, what differs, what nobody uses."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from agents import Agent

from perdure.access.keys import find_or_make_tenant
from perdure.catalogue.registering import register
from perdure.db import Connection, Pool
from perdure.runs.registry import Registry
from perdure.web import agent_answers as shown
from tests.catalogue_support import SECRET, everything
from tests.integration.api.conftest import ClientFor
from tests.integration.api.reading import pointers, read, read_list, refused


@pytest.fixture
async def builds(pool: Pool) -> list[Registry]:
    """Two builds, one after the other: other instructions, a tool less, the tools turned round."""
    first = everything("Be kind.")
    tools = everything().agents["desk/refunds"].tools
    second = everything("Be brief.\x1b[2J", tools=[tools[2], tools[1], tools[0], *tools[4:]])
    for build in (first, second):
        await register(pool, build.catalogue)
    return [first, second]


async def test_agents_are_listed_and_read(
    client: httpx.AsyncClient, client_for: ClientFor, conn: Connection, builds: list[Registry]
) -> None:
    listed = read_list(shown.Agent, await client.get("/v1/agents", params={"order": "asc"}))
    assert {one["name"]: one["version"] for one in listed} == builds[1].versions
    page = await client.get("/v1/agents", params={"limit": 2, "order": "asc"})
    assert page.json()["has_more"]
    rest = await client.get(
        "/v1/agents", params={"order": "asc", "after": page.json()["last_id"], "limit": 2}
    )
    assert [*page.json()["data"], *rest.json()["data"]] == listed

    desk = read(shown.AgentWhole, await client.get("/v1/agents/desk/refunds"))
    assert desk == (await client.get("/v1/agents/desk%2Frefunds")).json()
    assert desk["definition"] == builds[1].catalogue.agents["desk/refunds"].definition
    old, new = (build.versions["desk/refunds"] for build in builds)
    assert [(one["version"], one["current"]) for one in desk["versions"]] == [
        (new, True),
        (old, False),
    ]
    path = "/v1/agents/desk/refunds/versions"
    versions = read_list(shown.AgentVersionSummary, await client.get(path))
    assert [one["version"] for one in versions] == [new, old]
    assert read_list(
        shown.AgentVersionSummary, await client.get(path, params={"after": versions[0]["id"]})
    ) == [versions[1]]
    whole = read(shown.AgentVersion, await client.get(f"{path}/{old}"))
    assert whole["definition"]["instructions"] == "Be kind."
    assert whole["replaced_at"] is not None
    assert SECRET not in str(whole)
    assert {one["name"] for one in whole["agents"]} == {"front", "scribe"}

    # Code has no tenant: whoever may read runs, of whatever tenant, reads it.
    other = await client_for(tenant_id=await find_or_make_tenant(conn, "other"))
    assert (await other.get("/v1/agents/desk/refunds")).json() == desk
    for url in ("/v1/agents", "/v1/agents/front", path, "/v1/agents/front/diff"):
        refused(await (await client_for("runs:write")).get(url), 403, "forbidden")
    for url in (
        *("/v1/agents/nobody", "/v1/agents/nobody/versions", f"{path}/000000000000"),
        *(f"/v1/agents/nobody/versions/{old}", "/v1/agents/nobody/diff", "/v1/agents/%00"),
        *("/v1/agents/desk/refunds/diff?from=nothing", "/v1/agents/front/prune"),
    ):
        refused(await client.get(url), 404, "not_found")
    for query, field in (
        ("limit=0", "/query/limit"),
        ("after=x", "/query/after"),
        ("who=me", "/query/who"),
        ("deleted=maybe", "/query/deleted"),
    ):
        problem = refused(await client.get(f"/v1/agents?{query}"), 422, "validation_error")
        assert pointers(problem) == [field]


async def test_what_differs(client: httpx.AsyncClient, pool: Pool, builds: list[Registry]) -> None:
    found = read(shown.AgentDiff, await client.get("/v1/agents/desk/refunds/diff"))
    old, new = (build.versions["desk/refunds"] for build in builds)
    assert (found["from"], found["to"]) == (old, new)
    assert {(one["op"], one["path"]) for one in found["steps"]} == {
        ("replace", "/definition/instructions"),
        ("remove", "/definition/tools/note"),
    }
    assert [one["change"] for one in found["agents"]] == ["reaches others"]
    back = read(
        shown.AgentDiff,
        await client.get("/v1/agents/desk/refunds/diff", params={"from": new, "to": old}),
    )
    assert {one["op"] for one in back["steps"]} == {"replace", "add"}
    front = (await client.get("/v1/agents/front/diff")).json()
    assert front["steps"] == []
    assert front["agents"] == [
        {"name": "desk/refunds", "change": "changed", "from": old, "to": new}
    ]
    same = (await client.get("/v1/agents/front/diff", params={"from": front["to"]})).json()
    assert (same["from"], same["to"]) == (front["to"], front["from"])
    # An order alone is a difference too, and an agent that is gone.
    tools = everything().agents["desk/refunds"].tools
    turned = everything("Be brief.\x1b[2J", tools=[*tools[4:], *tools[:3]])
    await register(pool, turned.catalogue)
    found = (await client.get("/v1/agents/desk/refunds/diff")).json()
    [step] = found["steps"]
    assert step["path"] == "/definition/order of tools"
    assert step["new"][-3:] == ["refund", "look_up", "write"]
    await register(pool, Registry(roots=[Agent("front"), Agent("a"), Agent("a/diff")]).catalogue)
    gone = (await client.get("/v1/agents/front/diff")).json()["agents"]
    assert [(one["name"], one["change"]) for one in gone] == [
        ("desk/refunds", "removed"),
        ("scribe", "removed"),
    ]
    names = {one["name"] for one in (await client.get("/v1/agents")).json()["data"]}
    assert names == {"front", "a", "a/diff"}
    all_of_them = (await client.get("/v1/agents?deleted=true")).json()["data"]
    assert {one["name"] for one in all_of_them if one["deleted_at"]} == {"desk/refunds", "scribe"}
    # One version alone has nothing to be compared with; and of two paths the longer name loses.
    problem = refused(await client.get("/v1/agents/a/diff"), 422, "validation_error")
    assert pointers(problem) == ["/query/from"]
    assert (await client.get("/v1/agents/a/diff/versions")).json()["data"][0]["agent"] == "a/diff"


async def test_pruning_is_for_admins_and_says_what_it_removes(
    client: httpx.AsyncClient, client_for: ClientFor, builds: list[Registry]
) -> None:
    refused(await client.post("/v1/agents/prune", json={}), 403, "forbidden")
    admin = await client_for("admin")
    problem = refused(
        await admin.post("/v1/agents/prune", json={"dry": True}), 422, "validation_error"
    )
    assert pointers(problem) == ["/dry"]
    path = f"/v1/agents/desk/refunds/versions/{builds[0].versions['desk/refunds']}"
    key = {"Idempotency-Key": str(uuid4())}
    dry = read(shown.AgentPrune, await admin.post("/v1/agents/prune", json={"dry_run": True}))
    assert (await admin.get(path)).status_code == 200
    done = await admin.post("/v1/agents/prune", json={}, headers=key)
    assert read(shown.AgentPrune, done) == {**dry, "dry_run": False}
    assert {(one["agent"], one["version"]) for one in dry["versions"]} == {
        (name, builds[0].versions[name]) for name in ("front", "desk/refunds")
    }
    assert dry["definitions"]["tools"] == 1
    refused(await admin.get(path), 404, "not_found")
    again = await admin.post("/v1/agents/prune", json={}, headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == done.json()


async def test_a_run_has_its_agent_from_its_start(
    client: httpx.AsyncClient, conn: Connection, pool: Pool, registry: Registry
) -> None:
    await register(pool, registry.catalogue)
    run = (await client.post("/v1/runs", json={"agent": "support", "input": "hi"})).json()
    cursor = await conn.execute(
        "SELECT a.name FROM perdure.runs r JOIN perdure.agents a ON a.id = r.agent_id"
        " WHERE r.id = %s",
        (UUID(run["id"]),),
    )
    rows: list[Any] = await cursor.fetchall()
    assert [row["name"] for row in rows] == ["support"]
    assert run["agent_version"] is None
