"""Many runs at once in one process: throughput next to that of as many bare runs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median

from benchmarks.contestants import SHOWN
from benchmarks.plan import Plan
from benchmarks.process import spawned
from benchmarks.report import Figure, Steadiness, at_least
from benchmarks.server import Server

NAME = "throughput"
TITLE = "32 runs of 20 turns at once"

_AT_ONCE = 32
_TURNS = 20


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return each contestant's throughput ÷ the bare one's, from rounds of all in turn."""
    commits: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in SHOWN}
    async with AsyncExitStack() as stack:
        children = [
            await stack.enter_async_context(spawned(name, await server.database_of(name)))
            for name in SHOWN
        ]
        for child in children:
            await child.ask(op="runs", turns=5, bytes=plan.tool_bytes, at_once=_AT_ONCE)
        for _ in range(plan.rounds_at_once):
            commits.append(await server.commit_ms())
            for child in children:
                took = await child.ask(
                    op="runs", turns=_TURNS, bytes=plan.tool_bytes, at_once=_AT_ONCE
                )
                seconds[child.name].append(took["seconds"])
        commits.append(await server.commit_ms())
    bare = median(seconds["bare"])
    figures = [
        Figure(
            TITLE,
            f"{label}: throughput ÷ Runner.run's",
            bare / median(seconds[name]),
            "x",
            at_least(0.6) if name == "perdure" else None,
            f"{_AT_ONCE / median(seconds[name]):.1f} runs a second",
        )
        for name, label in SHOWN.items()
    ]
    return [*figures, Steadiness(commits).figure(TITLE)]
