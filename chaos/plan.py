"""What happens when: everything random about a trial, drawn from its seed beforehand."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "stop", "restart"]


@dataclass(frozen=True)
class Plan:
    """A trial: how many blows of each kind over how many runs with how many workers.

    ``every`` is the mean time between two blows, ``longest_stop`` how long a worker is paused at
    most, ``patience`` how long nothing may move before what is left counts as lost; in seconds.
    """

    kills: int = 100
    stops: int = 10
    restarts: int = 3
    runs: int = 250
    workers: int = 4
    seed: int = 1
    every: float = 0.75
    shortest_stop: float = 0.2
    longest_stop: float = 9.0
    patience: float = 30.0


@dataclass(frozen=True)
class Blow:
    """One thing that befalls the workers, ``at`` seconds after the beginning.

    ``aim`` (0 to 1) picks a worker among those alive then; ``seconds`` is how long a stop lasts.
    """

    at: float
    kind: Kind
    aim: float
    seconds: float


@dataclass(frozen=True)
class Schedule:
    """The blows in their order, and when each run is started, in seconds from the beginning."""

    blows: tuple[Blow, ...]
    starts: tuple[float, ...]


def schedule(plan: Plan) -> Schedule:
    """Return what ``plan`` comes to; the same plan always comes to the same."""
    draw = random.Random(plan.seed)
    counts: dict[Kind, int] = {"kill": plan.kills, "stop": plan.stops, "restart": plan.restarts}
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    draw.shuffle(kinds)
    at, blows = 0.0, []
    for kind in kinds:
        at += draw.expovariate(1 / plan.every)
        seconds = draw.uniform(plan.shortest_stop, plan.longest_stop)
        blows.append(Blow(at, kind, draw.random(), seconds))
    starts = sorted(draw.uniform(0, at) for _ in range(plan.runs))
    return Schedule(tuple(blows), tuple(starts))
