"""What a worker does about segments that died with its predecessors, with processes of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from agents import Agent

from perdure.engine import Engine, Run
from perdure.ledger.writer import LedgerWriter
from perdure.runs import quarantine
from perdure.runs.quarantine import Ending, Quarantine
from perdure.runs.workflow import SegmentRunner
from perdure.worker.alone import COMMAND, ending
from tests.engine_support import SECONDS, error_of, query, turns

SEGV = "was killed by signal 11 (SIGSEGV)"


class Processes:
    """Says how each process ends, and what it does to the segment before."""

    def __init__(self, engine: Engine, *endings: Any) -> None:
        self._engine = engine
        self._endings = list(endings)
        self.runs: list[UUID] = []
        self.under_way = 0
        self.most = 0
        self.begun = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.stopped = 0

    def possible(self) -> bool:
        return True

    async def run(self, run_id: UUID, seq: int, *, after: int) -> Ending:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.runs.append(run_id)
        self.begun.release()
        try:
            if not self._endings:
                await self.go.wait()
                return Ending("ended with code 0", after + 1, "completed")
            word = self._endings.pop(0)
            if word == "unborn":
                return Ending("its process was killed before it began.", None, None)
            if word == "stopped":
                return Ending("ended with code 0", after, "stopped")
            # ``died``: at the epoch it began; ``late``: after somebody else has begun it.
            return Ending(SEGV, after if word == "died" else after - 1, None)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        finally:
            self.under_way -= 1


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "PAUSES_SECONDS", (0.0,) * 4)


async def _start(engine: Engine, stalled: int = 3) -> Run:
    """Start a run whose segment died with as many processes as there may be, or more."""
    run = await engine.start("a", "hi")
    await query(
        engine, "UPDATE perdure.segments SET stalled = %s WHERE run_id = %s", stalled, run.id
    )
    return run


async def _counts(engine: Engine, run: Run) -> dict[str, Any]:
    [row] = await query(
        engine,
        "SELECT stalled, alone_deaths, executor_id FROM perdure.segments WHERE run_id = %s",
        run.id,
    )
    return row


async def test_two_run_alone_at_once_and_the_others_stay_or_wait(database_url: str) -> None:
    engine = Engine([Agent(name="a", model=turns("done"))])
    async with (
        engine.running(url=database_url, worker=False),
        LedgerWriter(database_url) as writer,
    ):
        processes = Processes(engine)
        runner = SegmentRunner(
            *(engine.registry, engine.pool, writer, "me"), quarantine=Quarantine(processes)
        )
        runs = [await _start(engine, stalled=8) for _ in range(4)]
        lives = [asyncio.create_task(runner.run(UUID(run.id), 1)) for run in runs]
        async with asyncio.timeout(SECONDS):
            for _ in range(2):
                await processes.begun.acquire()
            # Who waits is nobody's: its worker's death would not be the segment's doing.
            while len(runner.running) < 4:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0)
            # One that died with fewer processes does not wait, as most of them are to blame for
            # nothing where many die.
            stays = await _start(engine, stalled=7)
            assert await runner.run(UUID(stays.id), 1) == "completed"
            waiting = [run for run in runs if UUID(run.id) not in processes.runs]
            # A cancelled one need not wait for a place.
            await engine.cancel(waiting[0].id)
            runner.cancel(UUID(waiting[0].id))
            assert await lives[runs.index(waiting[0])] == "cancelled"
            assert (await _counts(engine, waiting[1]))["executor_id"] is None
            runner.stop()
            await runner.quiet()
        assert (processes.most, processes.stopped, processes.under_way) == (2, 2, 0)
        for life in lives:
            life.cancel()
        await asyncio.wait(lives)
        for run in runs:
            counts = await _counts(engine, run)
            assert (counts["stalled"], counts["alone_deaths"]) == (8, 0)


@pytest.mark.parametrize(
    ("stalled", "deaths", "limit"),
    [(3, 0, 3), (3, 3, 3), (3, 6, 3), (3, 8, 5), (4, 8, 3), (8, 100, 12), (12, 100, 12)],
)
def test_deaths_of_others_speak_for_a_segment(stalled: int, deaths: int, limit: int) -> None:
    assert quarantine.limit_of(stalled, deaths) == limit


async def test_a_segment_stays_where_all_kinds_of_processes_die(database_url: str) -> None:
    engine = Engine([Agent(name="a", model=turns("done", "done", "done"))])
    lost = """
        INSERT INTO perdure.executors (id, host, pid, version, lost_at, lost_to)
        SELECT gen_random_uuid(), 'h', 1, '1', now() - make_interval(secs => %s), 'x'
          FROM generate_series(1, 20)"""
    async with (
        engine.running(url=database_url, worker=False),
        LedgerWriter(database_url) as writer,
    ):
        processes = Processes(engine)
        runner = SegmentRunner(
            *(engine.registry, engine.pool, writer, "me"), quarantine=Quarantine(processes)
        )
        # Long ago.
        await query(engine, lost, 61)
        alone = asyncio.create_task(runner.run(UUID((await _start(engine)).id), 1))
        async with asyncio.timeout(SECONDS):
            await processes.begun.acquire()
        await query(engine, lost, 30)
        stays = await _start(engine, stalled=7)
        assert await runner.run(UUID(stays.id), 1) == "completed"
        runner.stop()
        await runner.quiet()
        alone.cancel()
        await asyncio.wait({alone})
    assert processes.most == 1


async def test_what_counts_as_a_death_alone(database_url: str) -> None:
    model = turns("done")
    engine = Engine([Agent(name="a", model=model)])

    async def go(*endings: str) -> Run:
        run = await _start(engine)
        async with LedgerWriter(database_url) as writer:
            runner = SegmentRunner(
                *(engine.registry, engine.pool, writer, "me"),
                quarantine=Quarantine(Processes(engine, *endings)),
            )
            async with asyncio.timeout(SECONDS):
                await runner.run(UUID(run.id), 1)
        return await run.refresh()

    async with engine.running(url=database_url, worker=False):
        # Neither one that was stopped, nor one that never began, nor a death of the past.
        run = await go(*["stopped"] * 6, "late", "unborn", "died", *["died"] * 3, "unborn", "died")
        error = error_of(run)
        assert error["type"] == "quarantined"
        assert error["message"] == (
            f"5 processes that ran nothing else died in a row; the last {SEGV}. Before them 3 died "
            "that it shared with other runs. No tool call was under way: the model's client, a "
            "hook, a guardrail or the memory the run takes may end it. Mend what ends the process, "
            "then resume the run."
        )
        assert model.asked == 0
        # Where no process comes to begin it, it goes on as any other.
        run = await go("unborn", "unborn", "unborn")
        assert (run.status, run.output) == ("completed", "done")
        assert (await _counts(engine, run))["alone_deaths"] == 0


PROGRAM = """
import asyncio
from agents import Agent
from perdure import Engine

engine = Engine([Agent(name="a")])

async def main():
    async with engine:
        print("worked")

asyncio.run(main())
"""


def test_a_program_that_goes_on_when_it_is_loaded_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    orders = {
        "target": f"{program}:engine",
        "path": sys.path,
        "url": "postgresql://a@127.0.0.1:9/x",
        "executor_id": "me",
        "run_id": str(UUID(int=1)),
        "seq": 1,
        "after": 1,
    }
    told = f"{json.dumps(orders)}\n0.0\n".encode()
    child = subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(told)
    child.stdin.flush()
    reports = [json.loads(line) for line in child.stdout]
    _, said = child.communicate(timeout=SECONDS)
    assert child.returncode == 1
    assert b"worked" not in said
    assert reports[0] == {"heard": 0.0}
    assert reports[-1]["failed"].startswith(f"{program}:9: ConfigurationError: This process runs")


@pytest.mark.parametrize(
    ("code", "reports", "expected"),
    [
        (-9, [{"began": 4}], Ending("was killed by signal 9 (SIGKILL)", 4, None)),
        (3, [{"began": 4}, {"began": 5}], Ending("ended with code 3", 5, None)),
        # A tool that calls os._exit(0) has not ended the segment.
        (0, [{"began": 4}], Ending("ended with code 0", 4, None)),
        (0, [{"began": 4}, {"ended": "failed"}], Ending("ended with code 0", 4, "failed")),
        (0, [{"ended": "over"}], Ending("ended with code 0", None, "over")),
        (1, [{"failed": "no file"}], Ending("no file", None, None)),
        (-63, [], Ending("its process was killed by signal 63 before it began.", None, None)),
    ],
)
def test_how_a_process_ended(code: int, reports: list[dict[str, Any]], expected: Ending) -> None:
    assert ending(code, reports) == expected
    silent = ending(-9, [{"began": 4}], silent=True)
    assert silent == Ending("answered nothing for 60 s and was killed", 4, None)
