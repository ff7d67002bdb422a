"""How soon an idle worker begins, and what it costs while it has nothing to do.

Two clocks. By the rows' (the database's): from the transaction that decides or enqueues to the
segment being begun. By the machine's: from the call, made in another process, to the user's own
code running, the tool that was approved or the model that is asked first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median

from benchmarks.people import People
from benchmarks.plan import Plan
from benchmarks.process import spawned
from benchmarks.report import Figure, Target, at_most, percentile
from benchmarks.server import Server

NAME = "latency"
TITLE = "An idle worker"

_PAUSE_SECONDS = 0.15
_SEGMENT_MS = """
SELECT extract(epoch FROM s.started_at - coalesce(d.decided_at, s.created_at))::float8 * 1000 AS ms
  FROM perdure.segments s LEFT JOIN perdure.decisions d USING (run_id)
 WHERE s.run_id = %s
 ORDER BY s.seq DESC LIMIT 1"""


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return latencies of decisions and starts, and the idle worker's share of a core."""
    url = await server.database_of("perdure")
    async with spawned("perdure", url, gated=True) as worker, People.at(url) as people:
        await _approved(people)
        share = await worker.idle_share(plan.idle_seconds)
        decided = [await _approved(people) for _ in range(plan.latencies)]
        started = [await _started(people) for _ in range(plan.latencies)]
    return [
        _figure("decision → segment running", [rows for rows, _ in decided], at_most(30)),
        _figure("decide() called → approved tool runs", [code for _, code in decided]),
        _figure("enqueue → segment running", [rows for rows, _ in started], at_most(30)),
        _figure("start() called → model is asked", [code for _, code in started]),
        Figure(
            TITLE,
            "CPU of the idle worker, share of a core",
            share * 100,
            "%",
            at_most(3),
            f"over {plan.idle_seconds:g} s",
        ),
    ]


async def _approved(people: People) -> tuple[float, float]:
    run_id = await people.start(1)
    question = await people.question(run_id)
    await asyncio.sleep(_PAUSE_SECONDS)
    began = time.monotonic()
    await people.approve(question)
    await people.output(run_id)
    ran = await people.tool_ran_at(run_id)
    row = await people.row(_SEGMENT_MS, run_id)
    return row["ms"], (ran - began) * 1000


async def _started(people: People) -> tuple[float, float]:
    await asyncio.sleep(_PAUSE_SECONDS)
    began = time.monotonic()
    run_id = await people.start(0)
    asked = float((await people.output(run_id)).rpartition(" ")[2])
    row = await people.row(_SEGMENT_MS, run_id)
    return row["ms"], (asked - began) * 1000


def _figure(name: str, values: Sequence[float], target: Target | None = None) -> Figure:
    note = f"p95 {percentile(values, 0.95):.1f} ms of {len(values)}"
    return Figure(TITLE, name, median(values), "ms", target, note)
