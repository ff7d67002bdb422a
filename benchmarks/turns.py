"""What durability costs a run, side by side: the bare SDK, Perdure and dbos-openai-agents.

The contestants take turns, round after round, so that a slow moment of the machine falls on all.
Ratios are of medians; the overhead of a turn is what a run took beyond the bare one, by its turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

from benchmarks.contestants import SHOWN
from benchmarks.plan import Plan
from benchmarks.process import Child, spawned
from benchmarks.report import Figure, Steadiness, at_most
from benchmarks.server import Server

NAME = "turns"
TITLE = "One run, one tool call a turn"


@dataclass(frozen=True)
class Times:
    """Seconds of each round, by contestant, and of CPU likewise."""

    wall: Mapping[str, Sequence[float]]
    cpu: Mapping[str, Sequence[float]]

    def ms(self, contestant: str) -> float:
        """Return a contestant's median in ms."""
        return median(self.wall[contestant]) * 1000

    def ratio(self, contestant: str) -> float:
        """Return a contestant's median ÷ the bare one's."""
        return self.ms(contestant) / self.ms("bare")

    def overhead(self, contestant: str) -> float:
        """Return the ms a run took beyond the bare one."""
        return self.ms(contestant) - self.ms("bare")


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return the figures of runs of 20 and of 100 turns."""
    commits: list[float] = []
    times: dict[int, Times] = {}
    async with AsyncExitStack() as stack:
        children = [
            await stack.enter_async_context(spawned(name, await server.database_of(name)))
            for name in SHOWN
        ]
        for child in children:
            await child.ask(op="runs", turns=plan.warm_up_turns, bytes=plan.tool_bytes)
        for turns, rounds in ((20, plan.rounds_of_20), (100, plan.rounds_of_100)):
            times[turns] = await _rounds(server, children, plan, turns, rounds, commits)
    figures = [figure for turns, taken in times.items() for figure in _figures(turns, taken)]
    per_turn = {turns: taken.overhead("perdure") / turns for turns, taken in times.items()}
    figures.append(
        Figure(
            TITLE,
            "overhead of a turn, at 100 ÷ at 20 turns",
            per_turn[100] / per_turn[20],
            "x",
            at_most(1),
            f"{per_turn[20]:.2f} and {per_turn[100]:.2f} ms",
        )
    )
    return [*figures, Steadiness(commits).figure(TITLE)]


async def _rounds(
    server: Server,
    children: Sequence[Child],
    plan: Plan,
    turns: int,
    rounds: int,
    commits: list[float],
) -> Times:
    wall: dict[str, list[float]] = {child.name: [] for child in children}
    cpu: dict[str, list[float]] = {child.name: [] for child in children}
    for _ in range(rounds):
        commits.append(await server.commit_ms())
        for child in children:
            took = await child.ask(op="runs", turns=turns, bytes=plan.tool_bytes)
            wall[child.name].append(took["seconds"])
            cpu[child.name].append(took["cpu_seconds"])
    commits.append(await server.commit_ms())
    return Times(wall, cpu)


def _figures(turns: int, times: Times) -> list[Figure]:
    figures = []
    for name, label in SHOWN.items():
        note = f"{times.ms(name):.0f} ms a run, CPU {median(times.cpu[name]) * 1000:.0f} ms"
        if name != "bare":
            note += f", {times.overhead(name) / turns:.2f} ms a turn added"
        target = at_most(2.2) if name == "perdure" and turns == 20 else None
        title = f"{turns} turns: {label} ÷ Runner.run"
        figures.append(Figure(TITLE, title, times.ratio(name), "x", target, note))
    figures.append(
        Figure(
            TITLE,
            f"{turns} turns: overhead ÷ dbos-openai-agents's",
            times.overhead("perdure") / times.overhead("dbos"),
            "x",
            at_most(0.25) if turns == 20 else None,
        )
    )
    return figures
