"""Postgres killed under a running segment: the run goes on, and nothing of it is repeated."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from perdure import embedded
from perdure.migrate import migrate
from perdure.runs.dbos_schema import migrate_dbos
from tests.conftest import scratch_directory, wait_until_stopped
from tests.crash.nursery import Nursery
from tests.crash.scenario import OUTPUT, REQUESTS
from tests.crash.story import story

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "place", ["effect look_up", "effect notify", "effect book written", "effect search"]
)
async def test_a_run_outlives_its_database(tmp_path: Path, nursery: Nursery, place: str) -> None:
    home = scratch_directory()
    async with embedded.running(home, durable=False) as server:
        await migrate(server.url, system=migrate_dbos)
        async with story(server.url, tmp_path / "log", nursery) as told:
            # The worker stops in the middle of the effect, its server dies, the worker goes on.
            await told.worker(f"stop at {place}", 1)
            await nursery.stopped(told.worker_pid)
            os.kill(_postmaster(home), signal.SIGKILL)
            os.kill(told.worker_pid, signal.SIGCONT)
            await told.to_the_end()
            run = await told.read()
            assert run["status"] == "completed", run["error"]
            assert run["output"] == OUTPUT
            assert run["usage"]["requests"] == REQUESTS
            # The process lived, so it still knew what it had done: nobody had to be asked.
            assert told.uncertain == []
            assert len([line for line in told.events("effect") if line["tool"] == "ship"]) == 1
            assert len(await told.rows("SELECT * FROM bookings")) == 1
    wait_until_stopped(home)


def _postmaster(home: Path) -> int:
    return int((home / "pgdata" / "postmaster.pid").read_text().splitlines()[0])
