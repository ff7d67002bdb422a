"""Runs whose models talk: how soon it is read elsewhere, what it costs, what readers cost runs.

Each token is the moment it was said, on the monotonic clock that all processes share. Transactions
are those that wrote something: the numbers Postgres gave out.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from statistics import median
from typing import Any

import httpx

from benchmarks import workload
from benchmarks.audience import audience
from benchmarks.plan import Plan
from benchmarks.process import Child, spawned
from benchmarks.report import Figure, Target, at_least, at_most, percentile
from benchmarks.server import Server
from benchmarks.serving import served
from perdure.db import Pool, open_pool
from perdure.ledger.streams import WATCHED_SECONDS

NAME = "streaming"

_RUNS = 100
_PER_SECOND = 50
_AT_ONCE = 32
_TURNS = 20
_ATTACH_SECONDS = 2.0
"""How long readers have to come before a run begins."""


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return what streaming costs and how late it is read, with readers and without."""
    url = await server.database_of("perdure")
    async with (
        spawned("perdure", url, concurrency=128) as worker,
        served(url) as (_, address),
        await open_pool(url, 1, 4) as pool,
    ):
        # Until the worker takes it that nobody reads.
        await asyncio.sleep(WATCHED_SECONDS)
        unread = await _talk(worker, pool, plan, None)
        first = [await _first_delta(worker, address) for _ in range(plan.latencies // 3)]
        read = await _talk(worker, pool, plan, address)
        alone, watched = [], []
        for _ in range(plan.rounds_at_once):
            alone.append(await _throughput(worker, pool, plan, None))
            watched.append(await _throughput(worker, pool, plan, address))
    title = f"{_RUNS} runs that stream {_PER_SECOND} tokens a second each"
    work = f"{_AT_ONCE} runs of {_TURNS} turns, a reader each"
    return [
        _delay("A run that begins to stream, a reader over HTTP", first, at_most(50)),
        Figure(
            title, "transactions that write, nobody reads", unread["commits"], "/s", at_most(40)
        ),
        Figure(title, "the same, a reader each", read["commits"], "/s", at_most(40)),
        Figure(title, "time taken ÷ the model's own, nobody reads", unread["stretch"], "x"),
        Figure(title, "the same, a reader each", read["stretch"], "x"),
        Figure(title, "worker's CPU, share of a core, a reader each", read["share"] * 100, "%"),
        _delay(title, read["delays"]),
        Figure(
            work,
            "throughput ÷ that without readers",
            median(alone) / median(watched),
            "x",
            at_least(0.9),
            f"{_AT_ONCE / median(alone):.1f} and {_AT_ONCE / median(watched):.1f} runs a second",
        ),
    ]


async def _first_delta(worker: Child, address: str) -> float:
    """Return how many ms after the model said its first token a reader has it."""
    [run_id] = await _start(worker, tokens=10, after=0.2)
    async with (
        httpx.AsyncClient(base_url=address, timeout=30) as client,
        client.stream("GET", f"/v1/runs/{run_id}/events") as stream,
    ):
        async for line in stream.aiter_lines():
            if line.startswith("data: ") and '"model.delta"' in line:
                now = time.monotonic()
                said = float(json.loads(line[6:])["delta"].split()[0])
                break
        else:
            raise RuntimeError("The run streamed nothing.")
    await worker.ask(op="wait", run_id=run_id)
    return (now - said) * 1000


async def _talk(worker: Child, pool: Pool, plan: Plan, address: str | None) -> dict[str, Any]:
    """Let all runs talk at once, for as long as reading is measured."""
    tokens = int(_PER_SECOND * plan.reading_seconds)
    runs = await _start(worker, count=_RUNS, tokens=tokens, after=_ATTACH_SECONDS)
    reading = nullcontext() if address is None else audience(address, runs, _RUNS)
    async with reading as clients:
        await asyncio.sleep(_ATTACH_SECONDS)
        before, began = await _transactions(pool), time.monotonic()
        share = asyncio.create_task(worker.idle_share(plan.reading_seconds - 1))
        await asyncio.sleep(plan.reading_seconds - 1)
        commits = (await _transactions(pool) - before) / (time.monotonic() - began)
        ended = [(await worker.ask(op="wait", run_id=run_id))["at"] for run_id in runs]
        delays = [] if clients is None else (await clients.ask(events=1))["delays"]
    stretch = (max(ended) - began) / plan.reading_seconds
    return {"commits": commits, "delays": delays, "share": await share, "stretch": stretch}


async def _throughput(worker: Child, pool: Pool, plan: Plan, address: str | None) -> float:
    """Return the seconds from the first of many runs' begin to the last one's end."""
    answer = await worker.ask(
        op="start_many", turns=_TURNS, bytes=plan.tool_bytes, count=_AT_ONCE, delay=_ATTACH_SECONDS
    )
    runs = answer["run_ids"]
    reading = nullcontext() if address is None else audience(address, runs, _AT_ONCE)
    async with reading:
        for run_id in runs:
            await worker.ask(op="wait", run_id=run_id)
    async with pool.connection() as conn:
        cursor = await conn.execute(
            "SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 AS seconds"
            " FROM perdure.runs WHERE id = ANY(%s::uuid[])",
            (runs,),
        )
        row = await cursor.fetchone()
    assert row is not None
    return float(row["seconds"])


async def _start(worker: Child, *, count: int = 1, tokens: int, after: float) -> Sequence[str]:
    answer = await worker.ask(
        op="start_many",
        agent=workload.TALKER,
        input=json.dumps({"tokens": tokens, "per_second": _PER_SECOND, "after": after}),
        count=count,
    )
    runs: list[str] = answer["run_ids"]
    return runs


async def _transactions(pool: Pool) -> int:
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS n")
        row = await cursor.fetchone()
    assert row is not None
    return int(row["n"])


def _delay(title: str, delays: Sequence[float], target: Target | None = None) -> Figure:
    note = f"p95 {percentile(delays, 0.95):.1f} ms, most {max(delays):.1f} ms of {len(delays)}"
    return Figure(title, "said → read, median", median(delays), "ms", target, note)
