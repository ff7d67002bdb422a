"""Who follows runs by server-sent events: what they cost the server, and how late they are told.

Events are written as workers write what models stream: one transaction for all runs every few tens
of milliseconds, and one notification that names them. Each event has the moment its transaction
began, on the monotonic clock that all processes share; the delay ends when a reader has its bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.audience import audience
from benchmarks.plan import Plan
from benchmarks.process import Child
from benchmarks.report import Figure, Target, at_most, percentile
from benchmarks.server import Server
from benchmarks.serving import served
from perdure.access.principals import DEFAULT_TENANT
from perdure.db import Connection, Pool, open_pool
from perdure.runs.store import NewRun, start_run

NAME = "readers"

_RUNS = 100
_BATCH_SECONDS = 0.03
_WRITE = """
WITH written AS (
    SELECT perdure.write_events(run, ARRAY['model.delta'], ARRAY[jsonb_build_object(
               'model_response_id', run, 'attempt', 1, 'agent', 'writer', 'scope', '',
               'type', 'text', 'index', 0, 'delta', %(at)s::float8 || ' of all')])
      FROM unnest(%(runs)s::uuid[]) run)
SELECT pg_notify('perdure_events', array_to_string(%(runs)s::uuid[], ',')) FROM (
    SELECT count(*) FROM written) w"""


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return what one reader and what many see, and what they cost."""
    url = await server.database(migrated=True)
    async with await open_pool(url, 1, 4) as pool:
        first, *runs = [await _a_run(pool) for _ in range(1 + _RUNS)]
        async with served(url) as (child, address), pool.connection() as conn:
            one = await _streamed(conn, child, address, [first], 1, plan)
            many = await _streamed(conn, child, address, runs, plan.readers, plan)
    title = f"{plan.readers:,} readers of {_RUNS} streaming runs"
    return [
        _delay("one reader of a streaming run", one, at_most(50)),
        _delay(title, many),
        Figure(title, "memory of the server, a reader", many.memory_kb, "kB"),
        Figure(title, "its CPU, share of a core", many.share * 100, "%"),
        Figure(title, "events given, a second", many.events, "/s"),
    ]


@dataclass
class Seen:
    """What was seen: delays in ms, memory a reader in kB, the server's share of a core."""

    delays: list[float]
    memory_kb: float
    share: float
    events: float


async def _streamed(
    conn: Connection, child: Child, address: str, runs: Sequence[str], count: int, plan: Plan
) -> Seen:
    before = child.memory_bytes()
    async with audience(address, runs, count) as clients:
        share = asyncio.create_task(child.idle_share(plan.reading_seconds))
        written = await _write(conn, runs, plan.reading_seconds)
        memory = (child.memory_bytes() - before) / count / 1000
        delays = (await clients.ask(events=written))["delays"]
        return Seen(delays, memory, await share, written * count / plan.reading_seconds)


async def _write(conn: Connection, runs: Sequence[str], seconds: float) -> int:
    """Write to all runs until so many seconds are over; return how many events each got."""
    loop = asyncio.get_running_loop()
    written, due = 0, loop.time()
    end = due + seconds
    while loop.time() < end:
        await conn.execute(_WRITE, {"runs": list(runs), "at": time.monotonic()})
        written += 1
        due = max(due + _BATCH_SECONDS, loop.time())
        await asyncio.sleep(due - loop.time())
    return written


async def _a_run(pool: Pool) -> str:
    async with pool.connection() as conn:
        run_id = await start_run(
            conn,
            NewRun(
                tenant_id=DEFAULT_TENANT, agent="a", input="hi", max_turns=1, delay_seconds=3600
            ),
        )
        return str(run_id)


def _delay(title: str, seen: Seen, target: Target | None = None) -> Figure:
    note = f"p95 {percentile(seen.delays, 0.95):.1f} ms, most {max(seen.delays):.1f} ms"
    return Figure(title, "written → read, median", median(seen.delays), "ms", target, note)
