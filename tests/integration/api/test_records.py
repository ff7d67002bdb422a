"""What a run left behind, over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from perdure.db import Connection
from perdure.web import answers, usage_answers
from tests.factories import insert_call, insert_item, insert_reply, insert_run, insert_state
from tests.integration.api.reading import read, read_list, refused


async def test_items_come_in_order_as_the_sdk_gave_them(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn, user_id="u-1")
    # What models say and jsonb refuses comes back as it was, and breaks no listing.
    items = [{"text": "one"}, {"text": "NUL \0"}, {"text": "half \ud83d"}, {"text": "\ue000d800"}]
    for seq, item in enumerate(items, 1):
        await insert_item(conn, run_id, seq=seq, text=None, item=item)
    rows = read_list(answers.Item, await client.get(f"/v1/runs/{run_id}/items"))
    assert [row["seq"] for row in rows] == [1, 2, 3, 4]
    assert [row["item"] for row in rows] == items
    assert {row["user_id"] for row in rows} == {"u-1"}
    newest = await client.get(f"/v1/runs/{run_id}/items", params={"order": "desc", "limit": 1})
    assert [row["seq"] for row in read_list(answers.Item, newest)] == [4]


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ({"type": "text", "text": "refunded"}, "refunded"),
        ({"type": "text", "text": "half \ud83d"}, "half \ud83d"),
        ({"type": "json", "value": {"ok": True}}, {"ok": True}),
        ({"type": "json", "value": None}, None),
        ({"type": "content", "value": [{"type": "text"}], "list": True}, [{"type": "text"}]),
        (None, None),
    ],
)
async def test_a_tools_output_is_shown_as_it_was_returned(
    client: httpx.AsyncClient, conn: Connection, stored: Any, shown: Any
) -> None:
    run_id = await insert_run(conn)
    await insert_call(conn, run_id, status="succeeded", arguments={"n": 1}, output=stored)
    [row] = read_list(answers.ToolCall, await client.get(f"/v1/runs/{run_id}/tool_calls"))
    assert row["output"] == shown
    assert (row["arguments"], row["arguments_raw"]) == ({"n": 1}, None)


async def test_arguments_that_are_no_object_are_shown_raw(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    await insert_call(
        conn, run_id, status="failed", arguments_raw="{oops", error={"type": "ValueError"}
    )
    [row] = read_list(answers.ToolCall, await client.get(f"/v1/runs/{run_id}/tool_calls"))
    assert (row["arguments"], row["arguments_raw"]) == (None, "{oops")
    assert (row["output"], row["error"]) == (None, {"type": "ValueError"})


@pytest.mark.parametrize("kind", ["items", "tool_calls", "checkpoints", "usage"])
async def test_pages_of_records(client: httpx.AsyncClient, conn: Connection, kind: str) -> None:
    run_id = await insert_run(conn)
    assert (await client.get(f"/v1/runs/{run_id}/{kind}")).json()["data"] == []
    ids = []
    for seq in range(1, 6):
        match kind:
            case "items":
                made = await insert_item(conn, run_id, seq=seq, text="x", item={})
            case "tool_calls":
                made = await insert_call(conn, run_id, status="proposed")
            case "checkpoints":
                made = await insert_state(conn, run_id, seq=seq, active=seq == 5)
            case _:
                made = await insert_reply(conn, run_id)
        ids.append(str(made))
    other = await insert_run(conn)
    for order, expected in (("asc", ids), ("desc", ids[::-1])):
        seen: list[str] = []
        after: dict[str, str] = {}
        more = True
        while more:
            page = (
                await client.get(
                    f"/v1/runs/{run_id}/{kind}", params={"order": order, "limit": 2, **after}
                )
            ).json()
            seen += [row["id"] for row in page["data"]]
            after = {"after": page["last_id"]}
            more = page["has_more"]
        assert seen == expected
    default = (await client.get(f"/v1/runs/{run_id}/{kind}")).json()["data"]
    assert [row["id"] for row in default] == (ids[::-1] if kind == "usage" else ids)
    assert (await client.get(f"/v1/runs/{other}/{kind}?after={ids[0]}")).json()["data"] == []
    refused(await client.get(f"/v1/runs/{uuid4()}/{kind}"), 404, "not_found")


async def test_checkpoints_and_the_active_state(
    client: httpx.AsyncClient, conn: Connection
) -> None:
    run_id = await insert_run(conn)
    refused(await client.get(f"/v1/runs/{run_id}/state"), 404, "not_found")
    await insert_state(conn, run_id, seq=1, kind="handoff", active=False)
    second = await insert_state(conn, run_id, seq=2)
    rows = read_list(answers.Checkpoint, await client.get(f"/v1/runs/{run_id}/checkpoints"))
    assert [(row["seq"], row["kind"], row["is_active"]) for row in rows] == [
        (1, "handoff", False),
        (2, "interrupted", True),
    ]
    state = read(answers.RunState, await client.get(f"/v1/runs/{run_id}/state"))
    assert (state["id"], state["state"]) == (str(second), {"turn": 1})
    refused(await client.get(f"/v1/runs/{uuid4()}/state"), 404, "not_found")


async def test_what_models_and_guardrails_said(client: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn)
    for tokens in (3, 4):
        await insert_reply(conn, run_id, tokens=tokens)
    path = f"/v1/runs/{run_id}"
    read_answer = await client.get(f"{path}/usage_metrics")
    [sums] = read(usage_answers.UsageMetricsList, read_answer)["data"]
    assert (sums["agent"], sums["model"], sums["total_tokens"]) == ("support", "some-model", 14)
    assert (sums["requests"], sums["unpriced_requests"], sums["cost_usd"]) == (2, 2, None)
    first, second = read_list(
        usage_answers.ModelResponse, await client.get(f"{path}/model_responses")
    )
    assert (first["usage"]["total_tokens"], second["usage"]["total_tokens"]) == (6, 8)
    page = await client.get(f"{path}/model_responses", params={"after": first["id"], "limit": 1})
    assert [one["id"] for one in page.json()["data"]] == [second["id"]]
    assert (
        read_list(usage_answers.GuardrailResult, await client.get(f"{path}/guardrail_results"))
        == []
    )
    for what in ("usage_metrics", "model_responses", "guardrail_results"):
        refused(await client.get(f"/v1/runs/{uuid4()}/{what}"), 404, "not_found")


async def test_usage_of_each_reply(client: httpx.AsyncClient, conn: Connection) -> None:
    run_id = await insert_run(conn)
    await insert_reply(conn, run_id, tokens=3)
    [row] = read_list(usage_answers.Usage, await client.get(f"/v1/runs/{run_id}/usage"))
    assert (row["model"], row["total_tokens"], row["cost_usd"]) == ("some-model", 6, None)
