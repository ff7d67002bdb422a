"""Several decisions at once: all or none, and each run goes on once."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from perdure.db import Connection
from perdure.web import answers
from tests.factories import Stop, enqueued, fetch, insert_run, insert_stop
from tests.integration.api.reading import pointers, read_list, refused


async def decide_all(
    client: httpx.AsyncClient, *decisions: dict[str, Any], **headers: str
) -> httpx.Response:
    """Send a batch."""
    body = {"decisions": list(decisions)}
    return await client.post("/v1/decisions", json=body, headers=headers)


def approval(stop: Stop, **more: Any) -> dict[str, Any]:
    """An approval of what was shown."""
    return {
        "interruption_id": str(stop.id),
        "decision": "approve",
        "digest": stop.digest,
        **more,
    }


async def test_all_count_and_each_run_goes_on_once(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    one, other = await insert_run(conn), await insert_run(conn)
    a, b = await insert_stop(conn, one), await insert_stop(conn, one)
    c, d = await insert_stop(conn, other), await insert_stop(conn, other)
    doubt = await insert_stop(conn, one, type="uncertain_effect")
    batch = (
        approval(c),
        {"interruption_id": str(a.id), "decision": "reject", "message": "No."},
        approval(b, arguments={"order_id": "42", "cents": 1}),
        {"interruption_id": str(doubt.id), "decision": "resolve", "outcome": "done"},
    )
    response = await decide_all(client, *batch, **{"Idempotency-Key": "k"})
    decided = read_list(answers.Interruption, response)
    assert [(row["id"], row["status"]) for row in decided] == [
        (str(c.id), "approved"),
        (str(a.id), "rejected"),
        (str(b.id), "approved"),
        (str(doubt.id), "resolved"),
    ]
    assert decided[2]["tool"]["arguments"] == {"order_id": "42", "cents": 1}
    assert await enqueued(conn, one) == [f"{one}:2"]
    # The other run still waits for one.
    assert await enqueued(conn, other) == []
    again = await decide_all(client, *batch, **{"Idempotency-Key": "k"})
    assert (again.headers["Idempotent-Replayed"], again.content) == ("true", response.content)
    read_list(answers.Interruption, await decide_all(client, approval(d)))
    assert await enqueued(conn, other) == [f"{other}:2"]


@pytest.mark.parametrize(
    ("wrong", "status", "code", "where"),
    [
        ({"decision": "answer", "answer": 1}, 422, "validation_error", "/decisions/1/decision"),
        ({"decision": "approve"}, 422, "validation_error", "/decisions/1/digest"),
        (
            {"decision": "approve", "digest": "sha256:" + "0" * 64},
            409,
            "digest_mismatch",
            "/decisions/1",
        ),
        (
            {"decision": "reject", "interruption_id": str(uuid4())},
            404,
            "not_found",
            "/decisions/1",
        ),
        ({"decision": "reject", "interruption_id": "x"}, 404, "not_found", "/decisions/1"),
        (
            {"decision": "reject", "interruption_id": "the first"},
            422,
            "validation_error",
            "/decisions/1/interruption_id",
        ),
        (
            {"decision": "approve", "digest": "theirs", "arguments": {"cents": "many"}},
            422,
            "validation_error",
            "/decisions/1/arguments/cents",
        ),
    ],
)
async def test_none_counts_where_one_is_refused(
    client: httpx.AsyncClient,
    conn: Connection,
    wrong: dict[str, Any],
    status: int,
    code: str,
    where: str,
) -> None:
    run_id = await insert_run(conn)
    first, second = await insert_stop(conn, run_id), await insert_stop(conn, run_id)
    decision = {"interruption_id": str(second.id), **wrong}
    if decision["interruption_id"] == "the first":
        decision["interruption_id"] = str(first.id)
    if decision.get("digest") == "theirs":
        decision["digest"] = second.digest
    problem = refused(await decide_all(client, approval(first), decision), status, code)
    assert where in (pointers(problem) if "errors" in problem else [problem["pointer"]])
    left = await fetch(conn, "SELECT count(*) AS n FROM perdure.decisions")
    assert left == {"n": 0}
    assert await enqueued(conn, run_id) == []


async def test_a_batch_has_decisions_and_not_too_many(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    stop = await insert_stop(conn, await insert_run(conn))
    for count in (0, 101):
        response = await decide_all(client, *[approval(stop)] * count)
        assert pointers(refused(response, 422, "validation_error")) == ["/decisions"]


async def test_batches_with_runs_in_common_do_not_lock_up(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    runs = [await insert_run(conn) for _ in range(4)]
    stops = [await insert_stop(conn, run_id) for run_id in runs for _ in range(2)]
    # Each batch names the runs in another order; all want all, and one has them.
    responses = await asyncio.gather(
        *(decide_all(client, *(approval(one) for one in stops[n:] + stops[:n])) for n in range(8))
    )
    assert sorted(response.status_code for response in responses) == [200] + [409] * 7
    for run_id in runs:
        assert await enqueued(conn, run_id) == [f"{run_id}:2"]
