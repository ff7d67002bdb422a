"""Decisions over HTTP: what they change, who wins, when the run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from psycopg.types.json import Jsonb

from perdure.db import Connection, uuid7
from perdure.web import answers
from tests.factories import Stop, enqueued, fetch, insert_call, insert_run, insert_stop
from tests.integration.api.reading import pointers, read, read_list, refused

DEADLINE = 60.0

ClientFor = Callable[..., Awaitable[httpx.AsyncClient]]


def approval(stop: Stop) -> dict[str, Any]:
    return {"decision": "approve", "digest": stop.digest}


async def decide(client: httpx.AsyncClient, stop: Stop, **body: Any) -> httpx.Response:
    return await client.post(f"/v1/interruptions/{stop.id}/decision", json=body)


async def call_of(conn: Connection, stop: Stop) -> dict[str, Any]:
    return await fetch(
        conn,
        "SELECT status, output, error, attempt, finished_at IS NOT NULL AS finished"
        " FROM perdure.tool_calls WHERE id = %s",
        stop.call_id,
    )


async def test_an_approval_sends_the_run_on(client: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id)
    decided = read(
        answers.Interruption, await decide(client, stop, **approval(stop), message="Go on.")
    )
    assert decided["status"] == "approved"
    assert decided["closed_at"] is not None
    [recorded] = decided["decisions"]
    assert decided["decision"] == recorded
    assert (recorded["decision"], recorded["message"]) == ("approve", "Go on.")
    assert recorded["by"]["type"] == "service_key"
    assert recorded["by"]["subject"] == "alice@example.com"
    assert recorded["digest"] == stop.digest
    assert (await call_of(conn, stop))["status"] == "approved"
    run = read(answers.Run, await client.get(f"/v1/runs/{run_id}"))
    assert (run["status"], run["interruptions"]) == ("queued", [])
    assert await enqueued(conn, run_id) == [f"{run_id}:2"]
    row = await fetch(
        conn,
        "SELECT r.segment, s.status FROM perdure.runs r JOIN perdure.segments s"
        " ON s.run_id = r.id AND s.seq = r.segment WHERE r.id = %s",
        run_id,
    )
    assert row == {"segment": 2, "status": "queued"}


async def test_a_rejection_finishes_the_call(client: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id)
    decided = read(
        answers.Interruption, await decide(client, stop, decision="reject", message="Too much.")
    )
    assert decided["status"] == "rejected"
    call = await call_of(conn, stop)
    assert (call["status"], call["finished"]) == ("rejected", True)
    assert call["error"] == {"type": "rejected", "message": "Too much."}
    assert await enqueued(conn, run_id) == [f"{run_id}:2"]


@pytest.mark.parametrize(
    ("body", "status", "output"),
    [
        (
            {"outcome": "done", "result": "refunded"},
            "succeeded",
            {"type": "text", "text": "refunded"},
        ),
        (
            {"outcome": "done", "result": {"id": 7}},
            "succeeded",
            {"type": "json", "value": {"id": 7}},
        ),
        ({"outcome": "done", "result": None}, "succeeded", {"type": "json", "value": None}),
        ({"outcome": "not_done"}, "proposed", None),
    ],
)
async def test_an_uncertain_effect_is_resolved(
    client: httpx.AsyncClient, conn: Connection, body: dict[str, Any], status: str, output: Any
) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id, type="uncertain_effect")
    decided = read(answers.Interruption, await decide(client, stop, decision="resolve", **body))
    assert (decided["status"], decided["decision"]["outcome"]) == ("resolved", body["outcome"])
    assert decided["decision"]["result"] == body.get("result")
    call = await call_of(conn, stop)
    assert (call["status"], call["output"], call["attempt"]) == (status, output, 1)
    assert call["finished"] is (status == "succeeded")
    assert await enqueued(conn, run_id) == [f"{run_id}:2"]


async def test_an_effect_done_without_a_result_says_so_to_the_model(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    stop = await insert_stop(conn, await insert_run(conn), type="uncertain_effect")
    read(answers.Interruption, await decide(client, stop, decision="resolve", outcome="done"))
    output = (await call_of(conn, stop))["output"]
    assert output["type"] == "text"
    assert "carried out" in output["text"]


async def test_who_decides_sees_what_became_known(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id, type="uncertain_effect")
    other = await insert_stop(conn, run_id)
    for kind, status, output, error in (
        ("probe", "unknown", None, {"type": "LookupError", "message": "no service"}),
        ("late_outcome", "succeeded", {"type": "text", "text": "paid"}, None),
    ):
        await conn.execute(
            "INSERT INTO perdure.tool_call_evidence"
            " (id, run_id, tenant_id, tool_call_id, kind, epoch, status, output, error)"
            " SELECT %s, run_id, tenant_id, id, %s, 1, %s, %s, %s FROM perdure.tool_calls"
            " WHERE id = %s",
            (uuid7(), kind, status, Jsonb(output), Jsonb(error), stop.call_id),
        )
    shown = read(answers.Interruption, await client.get(f"/v1/interruptions/{stop.id}"))
    assert [(one["kind"], one["status"], one["output"]) for one in shown["evidence"]] == [
        ("probe", "unknown", None),
        ("late_outcome", "succeeded", "paid"),
    ]
    listed = read_list(answers.Interruption, await client.get("/v1/interruptions"))
    run = read(answers.Run, await client.get(f"/v1/runs/{run_id}"))
    calls = read_list(answers.ToolCall, await client.get(f"/v1/runs/{run_id}/tool_calls"))
    for rows, key, about in (
        (listed, "id", stop.id),
        (run["interruptions"], "id", stop.id),
        (calls, "id", stop.call_id),
    ):
        by_id = {one[key]: one["evidence"] for one in rows}
        assert by_id.pop(str(about)) == shown["evidence"]
        assert list(by_id.values()) == [[]]
    assert str(other.id) in {one["id"] for one in listed}


async def test_an_abandoned_run_fails_and_says_who(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id, type="uncertain_effect")
    other = await insert_stop(conn, run_id)
    read(answers.Interruption, await decide(client, stop, decision="resolve", outcome="abandon"))
    run = read(answers.Run, await client.get(f"/v1/runs/{run_id}"))
    assert run["status"] == "interrupted"
    read(answers.Interruption, await decide(client, other, **approval(other)))
    run = read(answers.Run, await client.get(f"/v1/runs/{run_id}"))
    assert (run["status"], run["error"]["type"]) == ("failed", "abandoned")
    assert "alice@example.com" in run["error"]["message"]
    assert (await call_of(conn, stop))["status"] == "uncertain"
    assert await enqueued(conn, run_id) == []
    read(answers.Run, await client.post(f"/v1/runs/{run_id}/resume"), 202)
    assert await enqueued(conn, run_id) == [f"{run_id}:2"]


async def test_the_run_waits_for_its_last_decision(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    first, second = await insert_stop(conn, run_id), await insert_stop(conn, run_id)
    read(answers.Interruption, await decide(client, second, decision="reject"))
    run = read(answers.Run, await client.get(f"/v1/runs/{run_id}"))
    assert run["status"] == "interrupted"
    assert [one["id"] for one in run["interruptions"]] == [str(first.id)]
    assert await enqueued(conn, run_id) == []
    read(answers.Interruption, await decide(client, first, **approval(first)))
    assert await enqueued(conn, run_id) == [f"{run_id}:2"]


async def test_the_second_decision_is_told_of_the_first(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    stop = await insert_stop(conn, await insert_run(conn))
    decided = read(answers.Interruption, await decide(client, stop, **approval(stop)))
    for body in ({"decision": "reject"}, approval(stop), {"decision": "approve", "digest": "x"}):
        problem = refused(await decide(client, stop, **body), 409, "already_decided")
        assert problem["decision"] == decided["decision"]
    # Not even what does not fit the type: what is decided is decided.
    body = {"decision": "resolve", "outcome": "done"}
    refused(await decide(client, stop, **body), 409, "already_decided")


async def test_a_decision_on_something_else_changes_nothing(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id)
    other = await insert_stop(conn, run_id, arguments={"order_id": "42", "cents": 999_999})
    for decision in ("approve", "reject"):
        response = await decide(client, stop, decision=decision, digest=other.digest)
        refused(response, 409, "digest_mismatch")
    problem = refused(await decide(client, stop, decision="approve"), 422, "validation_error")
    assert pointers(problem) == ["/digest"]
    shown = read(answers.Interruption, await client.get(f"/v1/interruptions/{stop.id}"))
    assert (shown["status"], shown["decisions"]) == ("pending", [])
    assert (await call_of(conn, stop))["status"] == "awaiting_approval"


async def test_a_decision_of_another_type_is_refused(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    stop = await insert_stop(conn, await insert_run(conn))
    response = await decide(client, stop, decision="resolve", outcome="done")
    assert pointers(refused(response, 422, "validation_error")) == ["/decision"]


async def test_too_late_is_too_late(client: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn)
    late = await insert_stop(conn, run_id, expires_in=-0.001)
    in_time = await insert_stop(conn, run_id, expires_in=3600)
    refused(await decide(client, late, **approval(late)), 409, "expired")
    assert (await call_of(conn, late))["status"] == "awaiting_approval"
    read(answers.Interruption, await decide(client, in_time, **approval(in_time)))
    await conn.execute(
        "UPDATE perdure.interruptions SET status = 'expired', closed_at = now() WHERE id = %s",
        (late.id,),
    )
    refused(await decide(client, late, **approval(late)), 409, "expired")


async def test_a_cancelled_question_cannot_be_answered(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id)
    await client.post(f"/v1/runs/{run_id}/cancel")
    refused(await decide(client, stop, **approval(stop)), 409, "invalid_state")
    assert await enqueued(conn, run_id) == []


async def test_a_call_in_another_state_rolls_the_decision_back(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    stop = await insert_stop(conn, await insert_run(conn))
    await conn.execute(
        "UPDATE perdure.tool_calls SET status = 'proposed' WHERE id = %s", (stop.call_id,)
    )
    refused(await decide(client, stop, **approval(stop)), 409, "invalid_state")
    shown = read(answers.Interruption, await client.get(f"/v1/interruptions/{stop.id}"))
    assert (shown["status"], shown["decisions"]) == ("pending", [])


async def test_of_fifty_decisions_at_once_exactly_one_counts(
    client_for: ClientFor, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    stop = await insert_stop(conn, run_id)
    clients = [await client_for(subject=f"person-{n}") for n in range(5)]
    async with asyncio.timeout(DEADLINE):
        responses = await asyncio.gather(
            *(
                decide(
                    clients[n % 5],
                    stop,
                    **(approval(stop) if n % 2 else {"decision": "reject", "message": str(n)}),
                )
                for n in range(50)
            )
        )
    [winner] = [response for response in responses if response.status_code == 200]
    decided = read(answers.Interruption, winner)
    for response in responses:
        if response is not winner:
            problem = refused(response, 409, "already_decided")
            assert problem["decision"] == decided["decision"]
    count = "SELECT count(*) AS n FROM perdure.decisions WHERE interruption_id = %s"
    assert await fetch(conn, count, stop.id) == {"n": 1}
    assert (await call_of(conn, stop))["status"] == decided["status"]
    assert await enqueued(conn, run_id) == [f"{run_id}:2"]


async def test_two_last_decisions_at_once_resume_once(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    for _ in range(10):
        run_id = await insert_run(conn)
        stops = [await insert_stop(conn, run_id) for _ in range(2)]
        async with asyncio.timeout(DEADLINE):
            responses = await asyncio.gather(
                *(decide(client, stop, **approval(stop)) for stop in stops)
            )
        assert [response.status_code for response in responses] == [200, 200]
        row = await fetch(conn, "SELECT status, segment FROM perdure.runs WHERE id = %s", run_id)
        assert row == {"status": "queued", "segment": 2}
        assert await enqueued(conn, run_id) == [f"{run_id}:2"]


async def test_a_cancellation_and_a_decision_at_once(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    for _ in range(10):
        run_id = await insert_run(conn)
        stop = await insert_stop(conn, run_id)
        async with asyncio.timeout(DEADLINE):
            decided, cancelled = await asyncio.gather(
                decide(client, stop, **approval(stop)), client.post(f"/v1/runs/{run_id}/cancel")
            )
        assert cancelled.status_code == 202
        assert decided.status_code in (200, 409)
        run = read(answers.Run, await client.get(f"/v1/runs/{run_id}"))
        assert run["status"] == "cancelled"
        still_open = (
            "SELECT count(*) AS n FROM perdure.segments WHERE run_id = %s AND status <> 'rested'"
        )
        assert await fetch(conn, still_open, run_id) == {"n": 0}


async def test_the_inbox_and_its_filters(client: httpx.AsyncClient, conn: Connection) -> None:
    one, two = await insert_run(conn), await insert_run(conn, agent="sales")
    first = await insert_stop(conn, one)
    second = await insert_stop(conn, two, type="uncertain_effect")
    third = await insert_stop(conn, two)
    read(answers.Interruption, await decide(client, third, decision="reject", message="No."))

    async def found(**params: Any) -> list[str]:
        response = await client.get("/v1/interruptions", params=params)
        return [row["id"] for row in read_list(answers.Interruption, response)]

    assert await found() == [str(second.id), str(first.id)]
    assert await found(order="asc") == [str(first.id), str(second.id)]
    assert await found(run_id=str(one)) == [str(first.id)]
    assert await found(type="uncertain_effect") == [str(second.id)]
    assert await found(agent="sales") == [str(second.id)]
    assert await found(status="rejected") == [str(third.id)]
    assert await found(status="rejected", run_id=str(one)) == []
    assert await found(limit=1) == [str(second.id)]
    assert await found(limit=1, after=str(second.id)) == [str(first.id)]


async def test_hostile_arguments_are_shown_and_approved(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    arguments = {"note": "half \ud83d, NUL \0, \ue000d800", "n": 2**63 + 1, "f": 1e22}
    stop = await insert_stop(conn, await insert_run(conn), arguments=arguments)
    response = await client.get(f"/v1/interruptions/{stop.id}")
    shown = read(answers.Interruption, response)
    assert shown["tool"]["arguments"] == arguments
    read(answers.Interruption, await decide(client, stop, **approval(stop)))


async def test_a_message_comes_back_as_it_was_written(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    stop = await insert_stop(conn, await insert_run(conn))
    message = "\ue000d800 <script>alert(1)</script> \U0001f4b8"
    await decide(client, stop, decision="reject", message=message)
    shown = read(answers.Interruption, await client.get(f"/v1/interruptions/{stop.id}"))
    assert shown["decision"]["message"] == message


async def test_what_is_not_there(client: httpx.AsyncClient, conn: Connection) -> None:
    await insert_call(conn, await insert_run(conn), status="proposed")
    for id in (str(uuid4()), "42", "%00"):
        refused(await client.get(f"/v1/interruptions/{id}"), 404, "not_found")
        response = await client.post(
            f"/v1/interruptions/{id}/decision", json={"decision": "reject"}
        )
        refused(response, 404, "not_found")
