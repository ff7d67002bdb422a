"""``/v1/policies``, and what the rules of an interruption make of decisions over HTTP."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest

from perdure.access.keys import find_or_make_tenant
from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Connection
from perdure.interruptions.policies.question_rules import Rules
from perdure.interruptions.policies.store import standing
from perdure.web import answers
from tests.factories import insert_run, insert_stop
from tests.integration.api.conftest import ClientFor
from tests.integration.api.reading import pointers, read, read_list, refused

FULL: dict[str, Any] = {
    "name": "large refunds",
    "tool": "refund*",
    "when": {"/cents": {"gt": 5000}},
    "deciders": {"groups": ["finance"]},
    "requester_may_decide": False,
    "required": 2,
    "expires_after": 3600,
    "on_expire": "escalate",
    "escalate_to": [{"roles": ["admin"]}],
    "remind_every": 600,
    "message": "Look at the receipt.",
}


@pytest.fixture
async def admin(client_for: ClientFor) -> httpx.AsyncClient:
    return await client_for("admin", subject="root")


async def test_the_life_of_policies(
    admin: httpx.AsyncClient, client_for: ClientFor, client: httpx.AsyncClient, conn: Connection
) -> None:
    response = await admin.post("/v1/policies", json=FULL)
    full = read(answers.Policy, response, 201)
    assert response.headers["location"] == f"/v1/policies/{full['id']}"
    assert (full["tool"], full["agent"], full["then"]) == (["refund*"], ["*"], "ask")
    assert full["escalate_to"] == [{"roles": ["admin"], "groups": [], "subjects": []}]
    assert full["created_by"]["subject"] == "root"
    path = f"/v1/policies/{full['id']}"
    assert read(answers.Policy, await admin.get(path)) == full

    names = ["second", "first", "third"]
    for name, position in (("second", None), ("first", 0), ("third", None)):
        body = {"name": name, "then": "allow", "position": position}
        read(answers.Policy, await admin.post("/v1/policies", json=body), 201)
    listed = read_list(answers.Policy, await admin.get("/v1/policies"))
    assert [one["name"] for one in listed] == ["first", "large refunds", "second", "third"]
    page = (await admin.get("/v1/policies", params={"limit": 2})).json()
    rest = await admin.get("/v1/policies", params={"after": page["last_id"]})
    assert [one["name"] for one in rest.json()["data"]] == ["second", "third"]
    back = await admin.get("/v1/policies", params={"order": "desc", "limit": 1})
    assert [one["name"] for one in back.json()["data"]] == ["third"]

    changed = read(answers.Policy, await admin.patch(path, json={"required": 3, "position": 9}))
    assert changed == full | {
        "required": 3,
        "position": 9,
        "updated_at": changed["updated_at"],
    }
    cleared: dict[str, Any] = {"expires_after": None, "on_expire": "reject", "escalate_to": []}
    changed = read(answers.Policy, await admin.patch(path, json=cleared))
    assert (changed["expires_after"], changed["required"]) == (None, 3)
    revision, policies = await standing(conn, DEFAULT_TENANT)
    assert [one.name for one in policies] == ["first", "second", "third", "large refunds"]
    assert revision == 6

    assert (await admin.delete(path)).status_code == 204
    audit = read_list(answers.AuditEntry, await admin.get("/v1/audit?order=asc"))
    told = [one for one in audit if one["subject"]["id"] == full["id"]]
    assert [one["kind"] for one in told] == [
        *("policy.created", "policy.changed"),
        *("policy.changed", "policy.deleted"),
    ]
    before, after = told[1]["details"]["before"], told[1]["details"]["after"]
    assert (before["required"], after["required"]) == (full["required"], 3)
    assert {one["actor"]["subject"] for one in told} == {"root"}
    for answer in (
        await admin.delete(path),
        await admin.get(path),
        await admin.patch(path, json={"required": 1}),
        await admin.get("/v1/policies/none"),
    ):
        refused(answer, 404, "not_found")
    assert len(read_list(answers.Policy, await admin.get("/v1/policies"))) == len(names)

    # Nobody else's, and for admins alone.
    tenant = await find_or_make_tenant(conn, "other")
    other = await client_for("admin", tenant_id=tenant)
    assert read_list(answers.Policy, await other.get("/v1/policies")) == []
    refused(await other.get(f"/v1/policies/{listed[0]['id']}"), 404, "not_found")
    assert await standing(conn, tenant) == (0, ())
    for method, where in (("GET", ""), ("POST", ""), ("PATCH", "/x"), ("DELETE", "/x")):
        answer = await client.request(method, f"/v1/policies{where}")
        assert answer.status_code in (403, 422, 404, 415)
    refused(await client.get("/v1/policies"), 403, "forbidden")

    # The same request again makes no second one.
    again = [
        await admin.post("/v1/policies", json={"name": "x"}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert again[0].json() == again[1].json()


async def test_what_is_no_policy_names_its_field(admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/v1/policies", json=FULL)).json()
    for body, pointer in (
        ({}, "/name"),
        ({"name": "p", "tools": "x"}, "/tools"),
        ({"name": "p", "when": {"cents": {"gt": 1}}}, "/when/cents"),
        ({"name": "p", "when": {"/cents": {"over": 1}}}, "/when/~1cents/over"),
        ({"name": "p", "then": "maybe"}, "/then"),
        ({"name": "p", "deciders": {"roles": ["boss"]}}, "/deciders/roles/0"),
        ({"name": "p", "deciders": {}}, "/deciders"),
        ({"name": "p", "required": 0}, "/required"),
        ({"name": "p", "expires_after": 0}, "/expires_after"),
        ({"name": "p", "on_expire": "fail"}, "/expires_after"),
        ({"name": "p", "escalate_to": [{"groups": []}]}, "/escalate_to/0"),
        ({"name": "p", "position": -1}, "/position"),
        ({"name": "p", "message": ""}, "/message"),
    ):
        problem = refused(await admin.post("/v1/policies", json=body), 422, "validation_error")
        assert pointers(problem) == [pointer], body
        if body:
            path = f"/v1/policies/{made['id']}"
            refused(await admin.patch(path, json=body), 422, "validation_error")
    assert len((await admin.get("/v1/policies")).json()["data"]) == 1


async def _ask(
    conn: Connection, rules: Rules, *, started_by: Any = None, type: str = "tool_approval"
) -> Any:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id, type=type)
    await conn.execute(
        "UPDATE perdure.interruptions SET rules = %s::jsonb, required = %s WHERE id = %s",
        (json.dumps(rules.as_json()), rules.required, stop.id),
    )
    await conn.execute(
        "UPDATE perdure.runs SET started_by = %s::jsonb WHERE id = %s",
        (json.dumps(started_by), run_id),
    )
    return stop


async def _segments(conn: Connection, stop: Any) -> int:
    cursor = await conn.execute(
        "SELECT count(*) AS n FROM perdure.segments s JOIN perdure.interruptions i"
        " ON i.run_id = s.run_id WHERE i.id = %s",
        (stop.id,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row["n"])


async def test_the_requester_and_the_group_by_their_keys(
    client_for: ClientFor, conn: Connection
) -> None:
    ann = await client_for(subject="ann", groups=["finance"])
    bob = await client_for(subject="bob")
    cleo = await client_for(subject="cleo", groups=["finance", "other"])
    started = (await ann.post("/v1/runs", json={"agent": "support", "input": "hi"})).json()
    cursor = await conn.execute(
        "SELECT started_by FROM perdure.runs WHERE id = %s", (UUID(started["id"]),)
    )
    row = await cursor.fetchone()
    assert row is not None
    assert (row["started_by"]["type"], row["started_by"]["subject"]) == ("service_key", "ann")
    assert "started_by" not in started

    rules = Rules.from_json(
        {
            "policy": "p",
            "deciders": {"groups": ["finance"]},
            "requester_may_decide": False,
        }
    )
    stop = await _ask(conn, rules, started_by=row["started_by"])
    body = {"decision": "approve", "digest": stop.digest}
    path = f"/v1/interruptions/{stop.id}"
    for client, needed in ((bob, "the group finance"), (ann, "somebody else")):
        problem = refused(await client.post(f"{path}/decision", json=body), 403, "forbidden")
        assert needed in problem["detail"]
    # Both may see whom it waits for.
    shown = read(answers.Interruption, await bob.get(path))
    assert shown["policy"]["deciders"]["groups"] == ["finance"]
    assert shown["policy"]["requester_may_decide"] is False
    done = read(answers.Interruption, await cleo.post(f"{path}/decision", json=body))
    assert done["status"] == "approved"

    # What became of a call is for the same people to say, and one of them is enough.
    doubt = await _ask(conn, replace(rules, required=2).of_a_doubt(), type="uncertain_effect")
    path, body = f"/v1/interruptions/{doubt.id}", {"decision": "resolve", "outcome": "not_done"}
    refused(await bob.post(f"{path}/decision", json=body), 403, "forbidden")
    done = read(answers.Interruption, await cleo.post(f"{path}/decision", json=body))
    assert (done["status"], done["required"]) == ("resolved", 1)


async def test_of_fifty_at_once_as_many_count_as_are_needed(
    client_for: ClientFor, conn: Connection
) -> None:
    people = [await client_for(subject=f"p{n % 5}") for n in range(10)]
    stop = await _ask(conn, Rules(policy="p", required=3))
    path = f"/v1/interruptions/{stop.id}"
    body = {"decision": "approve", "digest": stop.digest}
    answered = await asyncio.gather(
        *(people[n % 10].post(f"{path}/decision", json=body) for n in range(50))
    )
    accepted = [one.json() for one in answered if one.status_code == 200]
    assert sorted(len(one["decisions"]) for one in accepted) == [1, 2, 3]
    assert {one.json()["code"] for one in answered if one.status_code != 200} == {"already_decided"}
    shown = read(answers.Interruption, await people[0].get(path))
    assert (shown["status"], shown["required"]) == ("approved", 3)
    assert len({one["by"]["subject"] for one in shown["decisions"]}) == 3
    assert shown["decision"] == shown["decisions"][-1]
    assert await _segments(conn, stop) == 2


async def test_any_order_of_decisions_comes_to_what_counting_says(
    client_for: ClientFor, conn: Connection
) -> None:
    people = {name: await client_for(subject=name) for name in "abcd"}
    for seed in range(15):
        chance = random.Random(seed)  # noqa: S311
        required = chance.randint(1, 4)
        stop = await _ask(conn, Rules(policy="p", required=required))
        path = f"/v1/interruptions/{stop.id}"
        approved: list[str] = []
        status = "pending"
        for _ in range(8):
            who = chance.choice("abcd")
            decision = chance.choices(["approve", "reject"], [5, 1])[0]
            body = {"decision": decision, "digest": stop.digest}
            answer = await people[who].post(f"{path}/decision", json=body)
            if status != "pending":
                recorded = refused(answer, 409, "already_decided")["decision"]
                assert recorded["decision"] == {"approved": "approve"}.get(status, "reject")
            elif decision == "approve" and who in approved:
                recorded = refused(answer, 409, "already_decided")["decision"]
                assert recorded["by"]["subject"] == who
            else:
                if decision == "reject":
                    status = "rejected"
                else:
                    approved.append(who)
                    status = "approved" if len(approved) == required else "pending"
                shown = read(answers.Interruption, answer)
                assert shown["status"] == status, (seed, shown)
                assert (shown["decision"] is None) == (status == "pending")
        assert await _segments(conn, stop) == (1 if status == "pending" else 2)
