"""How much is measured: all of it, or a quick look."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Rounds and sizes of every measure."""

    tool_bytes: int = 1000
    warm_up_turns: int = 20
    rounds_of_20: int = 21
    rounds_of_100: int = 9
    rounds_at_once: int = 7
    recoveries: int = 5
    recoveries_of_500: int = 3
    takeovers: int = 5
    latencies: int = 60
    idle_seconds: float = 20.0
    parked: int = 2000
    readers: int = 1000
    reading_seconds: float = 15.0
    branches: int = 5000
    searched_items: int = 1_000_000
    filled_runs: int = 1_000_000


QUICK = Plan(
    rounds_of_20=7,
    rounds_of_100=3,
    rounds_at_once=3,
    recoveries=2,
    recoveries_of_500=1,
    takeovers=2,
    latencies=15,
    idle_seconds=6.0,
    parked=200,
    reading_seconds=5.0,
    branches=500,
    searched_items=50_000,
    filled_runs=100_000,
)
