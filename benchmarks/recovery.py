"""A worker is killed in the middle of a run: how long a fresh one takes to finish it.

The model never answers the last turn, the process gets SIGKILL there, and another one is started
whose model answers. Counted is the time from that one being ready to the run being finished; what
a process needs to start, mostly imports, is not. The run is of as many turns as the turn it is
killed on, so that after it only the last reply follows.
"""

from __future__ import annotations

import asyncio
from statistics import median

from benchmarks import workload
from benchmarks.contestants import SHOWN
from benchmarks.plan import Plan
from benchmarks.process import spawn, spawned
from benchmarks.report import Figure, at_most
from benchmarks.server import Server

NAME = "recovery"
TITLE = "Killed with SIGKILL, gone on with by a fresh worker"

_ANSWERING_SECONDS = 0.1
"""How long the model has been answering when the process is killed."""

_PLACES = (81, 84, 87, 90, 93, 96)
"""Turns to be killed on, for what it takes wherever it happens."""


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return the seconds from ready to finished, of runs of 100 and of 500 turns."""
    url, other = await server.database_of("perdure"), await server.database_of("dbos")
    of_100 = [await _recovery(url, "perdure", 100, plan) for _ in range(plan.recoveries)]
    theirs = [await _recovery(other, "dbos", 100, plan) for _ in range(plan.recoveries)]
    of_500 = [await _recovery(url, "perdure", 500, plan) for _ in range(plan.recoveries_of_500)]
    places = [await _recovery(url, "perdure", turn, plan) for turn in _PLACES]
    return [
        _figure("killed on its 100th turn", of_100, at_most=0.3),
        _figure(f"killed on its 100th turn: {SHOWN['dbos']}", theirs),
        _figure("killed on its 500th turn", of_500),
        Figure(
            TITLE,
            "500 turns ÷ 100 turns",
            median(of_500) / median(of_100),
            "x",
            at_most(3),
        ),
        Figure(
            TITLE,
            "the slowest of several places",
            max(places),
            "s",
            None,
            ", ".join(
                f"turn {turn}: {seconds:.2f}" for turn, seconds in zip(_PLACES, places, strict=True)
            ),
        ),
    ]


async def _recovery(url: str, name: str, turns: int, plan: Plan) -> float:
    doomed = await spawn(name, url, stop_at=turns)
    try:
        begun = await doomed.ask(op="start", turns=turns, bytes=plan.tool_bytes)
        await doomed.heard()
        await asyncio.sleep(_ANSWERING_SECONDS)
    finally:
        await doomed.kill()
    async with spawned(name, url) as fresh:
        finished = await fresh.ask(op="wait", run_id=begun["run_id"])
    if not finished["output"].startswith(workload.expected(turns)):
        raise AssertionError(f"The recovered run came to {finished['output']!r}.")
    return float(finished["at"]) - fresh.ready_at


def _figure(name: str, seconds: list[float], *, at_most: float | None = None) -> Figure:
    return Figure(
        TITLE,
        name,
        median(seconds),
        "s",
        None if at_most is None else _at_most(at_most),
        f"{min(seconds):.2f} to {max(seconds):.2f}, {len(seconds)} times",
    )


_at_most = at_most
