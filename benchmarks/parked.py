"""What thousands of runs that wait for people cost a worker: nothing, it should be.

The runs are real ones, started over the database and driven by a real worker to their approval.
Each round starts a fresh worker beside them, approves one run the moment it is ready, and looks
at its memory and its idle CPU; the same beside a single parked run is what it is compared to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median

from benchmarks.people import People
from benchmarks.plan import Plan
from benchmarks.process import spawned
from benchmarks.report import Figure, Target, at_most
from benchmarks.server import Server

NAME = "parked"

_ROUNDS = 3


@dataclass
class Seen:
    """What was seen of fresh workers: MB of memory, % of a core, ms to an approved tool."""

    memory: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    approval: list[float] = field(default_factory=list)


async def measure(server: Server, plan: Plan) -> list[Figure]:
    """Return memory, idle CPU and first approval with many parked runs, and with none."""
    seen: dict[str, Seen] = {"none": Seen(), "many": Seen()}
    places: dict[str, tuple[str, Iterator[str]]] = {}
    for name, count in (("none", _ROUNDS), ("many", plan.parked)):
        url = await server.database_of("perdure")
        began = time.monotonic()
        async with spawned("perdure", url, gated=True), People.at(url) as people:
            places[name] = url, iter(await people.park(count))
        parking = time.monotonic() - began
    for _ in range(_ROUNDS):
        for name, (url, parked) in places.items():
            await _look(url, next(parked), seen[name], plan)
    title = f"{plan.parked:,} parked runs"
    return [
        _figure(title, "memory of the worker", "MB", at_most(1.1), _medians(seen, "memory")),
        _figure(title, "first approval of a restarted worker", "ms", at_most(1.5),
                _medians(seen, "approval")),
        _idle(title, _medians(seen, "idle"), plan),
        Figure(title, "to park them, one worker", parking, "s", None, "starting it included"),
    ]  # fmt: skip


async def _look(url: str, run_id: str, seen: Seen, plan: Plan) -> None:
    async with People.at(url) as people:
        question = await people.question(run_id)
        async with spawned("perdure", url, gated=True) as worker:
            began = time.monotonic()
            await people.approve(question)
            await people.output(run_id)
            seen.approval.append((await people.tool_ran_at(run_id) - began) * 1000)
            seen.idle.append(await worker.idle_share(plan.idle_seconds) * 100)
            seen.memory.append(worker.memory_bytes() / 1e6)


def _medians(seen: Mapping[str, Seen], what: str) -> tuple[float, float]:
    return median(getattr(seen["none"], what)), median(getattr(seen["many"], what))


def _figure(
    title: str, name: str, unit: str, target: Target, medians: tuple[float, float]
) -> Figure:
    none, many = medians
    note = f"{none:.1f} {unit} without, {many:.1f} {unit} with them"
    return Figure(title, f"{name}, with ÷ without", many / none, "x", target, note)


def _idle(title: str, medians: tuple[float, float], plan: Plan) -> Figure:
    none, many = medians
    note = f"{none:.2f} % without, {many:.2f} % with them, over {plan.idle_seconds:g} s"
    name = "idle CPU of the worker, points of a core more than without"
    return Figure(title, name, many - none, "%", at_most(0.5), note)
