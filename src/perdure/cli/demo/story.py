"""The story, act by act. Everything in it is real: the processes, the signals, the database."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from perdure import embedded
from perdure.access.principals import DEFAULT_TENANT, local_principal
from perdure.cli.demo.timeline import Entry, Happening, now, read_timeline, reply_count
from perdure.cli.demo.workers import WorkerProcess
from perdure.cli.output import to_json
from perdure.db import Connection, connect
from perdure.errors import UnavailableError
from perdure.interruptions.rules import Decision
from perdure.migrate import migrate
from perdure.notify import RUNS, Listener, Waiters
from perdure.runs import resume, store

_QUESTION = "Order 1042 arrived broken, please refund it."
_WORKERS = 3
_REST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Refund:
    """A row of the payment service: ``requests`` counts how often it was asked for it."""

    number: int
    order_id: str
    cents: int
    requests: int


@dataclass(slots=True)
class Ending:
    """How it ended. ``asked`` counts the model's calls, ``recorded`` its replies in the ledger."""

    run: dict[str, Any]
    refunds: list[Refund]
    asked: int
    recorded: int
    kills: int
    seconds: float
    timeline: list[Entry] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether what was promised is what happened."""
        return (
            self.run["status"] == "completed"
            and len(self.refunds) == 1
            and self.asked == self.recorded
        )


class Story:
    """Tells it once: ``say`` takes each line, ``ask`` is whether somebody is there to approve."""

    def __init__(self, say: Callable[[str], None], *, ask: bool) -> None:
        self._say = say
        self._ask = ask
        self._began = time.monotonic()
        self._waiters = Waiters()
        self._workers: list[WorkerProcess] = []
        self._kills: list[Happening] = []

    async def tell(self) -> Ending:
        """Tell it to its end; nothing is left running or lying about.

        Raises:
            ConfigurationError, UnavailableError: Postgres or a worker does not run here.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._end_workers)
            _end_on_signals()
            self._tell("Starting a Postgres in a folder of its own, and workers for the agents.")
            # All at once: while one works the next ones load, so that nobody waits for them.
            for number in range(1, _WORKERS + 1):
                self._workers.append(await WorkerProcess.spawn(number))
            place = await stack.enter_async_context(_place())
            conn = await connect(place.url, application_name="perdure demo")
            await stack.enter_async_context(conn)
            await stack.enter_async_context(Listener(place.url, {RUNS: self._waiters.notify}))
            return await self._acts(conn, place)

    async def _acts(self, conn: Connection, place: _Place) -> Ending:
        first, second, third = self._workers
        await first.order(place.orders())
        self._tell("Worker 1 works.")
        run_id = await self._start(conn)
        self._tell(f'A customer writes: "{_QUESTION}"')
        run = await self._rest(conn, run_id)
        question = run["interruptions"][0]
        self._tell(f"Agent triage handed over to {question['agent']}, who wants to call a tool.")
        await self._kill(conn, first, "while the run waits for approval")
        self._tell("No process holds the run now: it is rows.")
        await second.order(place.orders(hold=True))
        self._tell("Worker 2 starts and has nothing to do: the run waits for a person, not for it.")
        await self._approve(conn, question)
        await second.heard("paid")
        self._tell("The money is on its way, and the refund not yet recorded:")
        await self._kill(conn, second, "between the refund and its record")
        await third.order(place.orders())
        self._tell("Worker 3 starts, takes the run over and calls the tool with the same key.")
        run = await self._rest(conn, run_id)
        self._tell(f'The customer reads: "{run["output"]}"')
        return await self._ending(conn, run, place)

    def _tell(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._began:6.1f} s  {text}")

    async def _start(self, conn: Connection) -> UUID:
        return await store.start_run(
            conn, store.NewRun(DEFAULT_TENANT, "triage", _QUESTION, max_turns=10)
        )

    async def _rest(self, conn: Connection, run_id: UUID) -> dict[str, Any]:
        async def rested() -> dict[str, Any] | None:
            return await store.run_at_rest(conn, tenant_id=DEFAULT_TENANT, run_id=run_id)

        run = await self._waiters.until(str(run_id), rested, seconds=_REST_SECONDS)
        if run is None:
            raise UnavailableError(
                f"The demo's run {run_id} did not rest within {_REST_SECONDS:g} s. Try again on a "
                "machine that is less busy."
            )
        return run

    async def _kill(self, conn: Connection, worker: WorkerProcess, when: str) -> None:
        await worker.kill()
        self._kills.append(Happening(await now(conn), worker.number, worker.pid, when))
        self._tell(f"kill -9 {worker.pid}: worker {worker.number} dies {when}.")

    async def _approve(self, conn: Connection, question: dict[str, Any]) -> None:
        tool = question["tool"]
        self._tell(f"Waiting for approval: {tool['name']}({to_json(tool['arguments'])})")
        if self._ask:
            self._say("          Press Enter to approve.")
            await _enter()
        await resume.decide_and_resume(
            conn,
            tenant_id=DEFAULT_TENANT,
            interruption_id=UUID(question["id"]),
            decision=Decision("approve", digest=question["digest"]),
            by=local_principal(),
        )
        self._tell("Approved: exactly these arguments, by their digest.")

    async def _ending(self, conn: Connection, run: dict[str, Any], place: _Place) -> Ending:
        run_id = UUID(run["id"])
        pids = {worker.pid: worker.number for worker in self._workers}
        return Ending(
            run=run,
            refunds=place.refunds(),
            asked=sum(worker.events.get("asked", 0) for worker in self._workers),
            recorded=await reply_count(conn, run_id),
            kills=len(self._kills),
            seconds=time.monotonic() - self._began,
            timeline=await read_timeline(conn, run_id, pids, self._kills),
        )

    async def _end_workers(self) -> None:
        await asyncio.gather(*(worker.kill() for worker in self._workers))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where it happens: a database, and the payment service's file."""

    url: str
    refunds_db: Path

    def orders(self, *, hold: bool = False) -> dict[str, Any]:
        return {"url": self.url, "refunds_db": str(self.refunds_db), "hold": hold}

    def refunds(self) -> list[Refund]:
        query = "SELECT number, order_id, cents, requests FROM refunds ORDER BY number"
        with closing(sqlite3.connect(self.refunds_db)) as db:
            return [Refund(*row) for row in db.execute(query)]


@asynccontextmanager
async def _place() -> AsyncIterator[_Place]:
    home = Path(tempfile.mkdtemp(prefix="perdure-demo-"))
    try:
        async with embedded.running(home) as server:
            # DBOS is slow to import.
            from perdure.runs.dbos_schema import migrate_dbos

            await migrate(server.url, system=migrate_dbos)
            yield _Place(server.url, home / "refunds.sqlite")
    finally:
        await asyncio.to_thread(_wait_until_stopped, home)
        shutil.rmtree(home, ignore_errors=True)


def _wait_until_stopped(home: Path) -> None:
    # The server's watcher holds this lock while it lives.
    with (home / "watcher.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def _end_on_signals() -> None:
    """Tidy up, then end, at Ctrl-C and SIGTERM alike, also where the parent ignores Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in one
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)


async def _enter() -> None:
    """Wait for a line on the terminal, without a thread that could not be stopped."""
    loop = asyncio.get_running_loop()
    typed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    os.read(sys.stdin.fileno(), 4096)
