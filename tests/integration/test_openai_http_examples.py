"""The examples as people run them, by the real command, against a provider behind HTTP."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx

from perdure.offline import refunds, research
from tests.cli_support import EXAMPLES, SECONDS, Process
from tests.loopback.replies import by_rules
from tests.loopback.server import KEY, Loopback, loopback
from tests.loopback.troubles import RATE_LIMIT, Cut, Refused, Trouble

# Beyond the first, trouble is waited out as in real life; this says that a moment is enough.
DOWN = Refused(500, None, "The server had an error.", headers={"retry-after-ms": "1"})


@asynccontextmanager
async def dev(
    target: str, server: Loopback, database_url: str, **env: str
) -> AsyncIterator[httpx.AsyncClient]:
    """``perdure dev`` of an example whose provider is ``server``, and a client of its API."""
    environment = {
        "DATABASE_URL": database_url,
        "OPENAI_BASE_URL": server.url,
        # Traces would go out to the world.
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        **env,
    }
    process = await asyncio.to_thread(
        Process, "dev", str(EXAMPLES / target), "--port", "0", env=environment
    )
    try:
        address = await asyncio.to_thread(process.address)
        async with httpx.AsyncClient(base_url=address, timeout=SECONDS) as client:
            yield client
        assert await asyncio.to_thread(process.stop) == 0, process.said
    finally:
        await asyncio.to_thread(process.kill)


async def get(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def start(client: httpx.AsyncClient, agent: str, words: str) -> Any:
    """Start a run and return it at its first rest."""
    answer = await client.post("/v1/runs", json={"agent": agent, "input": words})
    assert answer.status_code == 202, answer.text
    return await get(client, f"/v1/runs/{answer.json()['id']}?wait=60")


def assert_paid_as_sent(run: Any, usage: Any, server: Loopback) -> None:
    """What the run cost is what the server's replies cost, each once."""
    every = [one.reply.tokens for one in server.answered]
    assert [row["total_tokens"] for row in usage["data"]] == [one.total for one in every]
    assert run["usage"]["requests"] == len(every)
    assert run["usage"]["input_tokens"] == sum(one.input for one in every)
    assert run["usage"]["cached_input_tokens"] == sum(one.cached for one in every)
    assert run["usage"]["output_tokens"] == sum(one.output for one in every)
    assert run["usage"]["reasoning_tokens"] == sum(one.reasoning for one in every)


async def test_refunds(database_url: str, tmp_path: Path) -> None:
    database = tmp_path / "refunds.sqlite"
    troubles: list[Trouble | None] = [RATE_LIMIT, None, DOWN, None, Cut(9), None, None, Cut(4)]
    async with loopback(by_rules(refunds.answer)) as server:
        server.trouble(*troubles)
        env = {"OPENAI_API_KEY": KEY, "REFUNDS_DB": str(database)}
        async with dev("refunds.py", server, database_url, **env) as client:
            run = await start(client, "triage", "Order 1042 arrived broken, please refund it.")
            assert run["status"] == "interrupted", run
            [question] = run["interruptions"]
            assert question["tool"]["name"] == "refund"
            assert question["tool"]["arguments"] == {"order_id": "1042", "cents": 12900}
            assert not database.exists()
            approved = await client.post(
                f"/v1/interruptions/{question['id']}/decision",
                json={"decision": "approve", "digest": question["digest"]},
            )
            assert approved.status_code == 200, approved.text
            path = f"/v1/runs/{run['id']}"
            run = await get(client, f"{path}?wait=60")
            assert (run["status"], run["error"]) == ("completed", None)
            calls = await get(client, f"{path}/tool_calls")
            usage = await get(client, f"{path}/usage?order=asc")
            items = await get(client, f"{path}/items?limit=100")
    assert run["output"].startswith("Good news: we have refunded 129.00 euros for order 1042")
    assert [(one["tool"], one["status"], one["attempt"]) for one in calls["data"]] == [
        ("lookup_order", "succeeded", 1),
        ("refund", "succeeded", 1),
    ]
    with closing(sqlite3.connect(database)) as db:
        assert db.execute("SELECT cents, requests FROM refunds").fetchall() == [(12900, 1)]
    # Five replies, four that never came.
    assert len(server.requests) == len(troubles) + 1
    assert len(server.answered) == 5
    assert {request.path for request in server.requests} == {"/v1/responses"}
    assert all(request.asked.body["stream"] for request in server.requests)
    assert {r.headers["x-stainless-retry-count"] for r in server.requests} == {"0"}
    assert_paid_as_sent(run, usage, server)
    # Nothing of an attempt that died is in what was said.
    kept = {item["id"] for one in server.answered for item in one.reply.output}
    said = {one["item"].get("id") for one in items["data"]} - {None}
    assert said == kept


async def test_research(database_url: str) -> None:
    """Parallel tools and an agent used as one, whose requests are not streamed; and no key."""
    async with loopback(by_rules(research.answer)) as server:
        server.key = None
        server.trouble(DOWN, None, Cut(7), None, RATE_LIMIT, Cut(0))
        async with dev("research.py", server, database_url) as client:
            run = await start(client, "researcher", "What do you know about bees and tea?")
            assert (run["status"], run["error"]) == ("completed", None)
            usage = await get(client, f"/v1/runs/{run['id']}/usage")
    lines = run["output"].splitlines()
    assert lines[0] == "What I found:"
    assert lines[1].endswith("(checked: it names a number)")
    assert lines[2].endswith("(checked: plausible)")
    assert len(server.answered) == 5
    assert run["usage"]["requests"] == 5
    assert sorted(row["total_tokens"] for row in usage["data"]) == sorted(
        one.reply.tokens.total for one in server.answered
    )
