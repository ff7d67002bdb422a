"""A small trial by chaos with a fixed seed: what ``make chaos`` does at length."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from chaos.perdure_side import PerdureSide
from chaos.plan import Plan
from chaos.trial import trial
from tests.conftest import scratch_directory

PLAN = Plan(
    kills=12, stops=2, restarts=1, runs=20, workers=3, seed=738, every=0.6, longest_stop=8.0
)
"""One of the stops outlasts a worker's lease."""
PATIENCE_SECONDS = 240


@pytest.mark.crash
async def test_runs_outlive_kills_pauses_and_a_restart_of_the_database() -> None:
    directory = scratch_directory()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            verdict = await trial(PerdureSide, PLAN, directory=directory, durable=False)
    finally:
        shutil.rmtree(directory)
    assert verdict.violations == []
    assert (verdict.kills, verdict.stops, verdict.restarts) == (12, 2, 1)
    assert verdict.started == PLAN.runs + 1
    assert verdict.statuses == {"completed": verdict.started}
    assert (verdict.lost, verdict.silently_repeated, verdict.missing) == (0, 0, 0)
    assert verdict.kills_in_mid_run > 0
    # Only a worker that was paused, or had lost its session with the database, may ask for a
    # reply once more that its run is past.
    assert verdict.paid_again <= verdict.restarts
