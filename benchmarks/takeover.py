"""A worker with running runs is killed while another one lives: how long its runs stand still.

Several runs stand at a turn the model never answers, all in one process; a second worker is
started and idle; the first gets SIGKILL. Counted is the time from the kill to each run having
begun in the other one, as its segment's row says.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median

from benchmarks import workload
from benchmarks.plan import Plan
from benchmarks.process import Child, spawn, spawned
from benchmarks.report import Figure, at_most
from benchmarks.server import Server
from perdure.db import Connection, connect

NAME = "takeover"
TITLE = "Killed with SIGKILL while another worker lives"

_RUNS = 8
_TURNS = 10
_LOOK_SECONDS = 0.005
_PATIENCE_SECONDS = 60
_BEGUN_ELSEWHERE = """
SELECT s.run_id::text FROM perdure.segments s JOIN perdure.executors e ON e.id = s.executor_id
 WHERE s.run_id::text = ANY(%s) AND e.pid <> %s
"""


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return the seconds from the kill to a run's begin in the other worker."""
    url = await server.database_of("perdure")
    seconds: list[float] = []
    async with await connect(url, application_name="benchmark") as conn:
        for _ in range(plan.takeovers):
            seconds += await _takeover(url, conn, plan)
    note = f"{min(seconds):.2f} to {max(seconds):.2f}, {plan.takeovers} kills of {_RUNS} runs each"
    return [
        Figure(TITLE, "from the kill to a run's begin elsewhere, median", median(seconds), "s"),
        Figure(TITLE, "… the slowest", max(seconds), "s", at_most(10), note),
    ]


async def _takeover(url: str, conn: Connection, plan: Plan) -> list[float]:
    doomed = await spawn("perdure", url, stop_at=_TURNS)
    try:
        runs = await _stopped_runs(doomed, plan)
    except BaseException:
        await doomed.kill()
        raise
    async with spawned("perdure", url) as heir:
        killed = time.monotonic()
        await doomed.kill()
        took = await _begun(conn, runs, doomed.pid, killed)
        for run_id in runs:
            finished = await heir.ask(op="wait", run_id=run_id)
            if not finished["output"].startswith(workload.expected(_TURNS)):
                raise AssertionError(f"A run taken over came to {finished['output']!r}.")
    return took


async def _stopped_runs(doomed: Child, plan: Plan) -> list[str]:
    """Start the runs and wait until each stands at the turn that is not answered."""
    for _ in range(_RUNS):
        doomed.tell(op="start", turns=_TURNS, bytes=plan.tool_bytes)
    runs: list[str] = []
    reached = 0
    while len(runs) < _RUNS or reached < _RUNS:
        said = await doomed.heard()
        if "run_id" in said:
            runs.append(said["run_id"])
        else:
            reached += 1
    return runs


async def _begun(conn: Connection, runs: list[str], dead: int, killed: float) -> list[float]:
    """Return how many seconds after ``killed`` each run was seen with another worker."""
    at: dict[str, float] = {}
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while len(at) < len(runs):
            cursor = await conn.execute(_BEGUN_ELSEWHERE, (runs, dead))
            seen = time.monotonic()
            for row in await cursor.fetchall():
                at.setdefault(row["run_id"], seen)
            await asyncio.sleep(_LOOK_SECONDS)
    return [moment - killed for moment in at.values()]
