"""Runs one segment in a process of its own: the side of the worker that starts it.

The process (``COMMAND``, which comes to alone_child.py) is given its orders as a line of JSON on
its standard input, and then, twice a second, until when this worker's lease is held: it counts as
part of this worker, under its executor id, and begins nothing that this one could not. It reports
in lines of JSON on its standard output: ``began`` with the epoch, each time it begins the segment;
``ended`` with how, when it ends in good order; ``failed`` with a message, when it cannot begin;
``heard`` each time it is told of the lease. What it writes to standard error comes out in this
process's log, with the run's id. When its standard input ends, because this process has, it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from perdure.runs.quarantine import Ending
from perdure.worker.lease import Lease

_LOG = logging.getLogger(__name__)
COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "perdure.cli.alone_child")
STOP_SHARE = 0.8
"""How much of the time its worker has to stop it has, to stop in good order."""
BEAT_SECONDS = 0.5
SILENT_SECONDS = 60.0
"""How long it may not answer: a tool that holds the interpreter's lock may take its time there."""
_DRAIN_SECONDS = 1.0
_NICENESS = 15
_LONGEST_LINE = 8192
_LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}


class Alone:
    """Starts such processes for one worker."""

    def __init__(
        self, target: Callable[[], str | None], url: str, lease: Lease, stop_seconds: float
    ) -> None:
        """Take what says where another process finds the engine, and the database's URL.

        The URL goes to the process with its orders, so that it shows in no list of processes.
        ``stop_seconds`` is how long the worker takes to stop at most.
        """
        self._target = target
        self._url = url
        self._lease = lease
        self._stop_seconds = stop_seconds * STOP_SHARE

    def possible(self) -> bool:
        """Whether another process can find the engine."""
        # Of a program that is one executable file the interpreter cannot be started by itself.
        return not getattr(sys, "frozen", False) and self._target() is not None

    async def run(self, run_id: UUID, seq: int, *, after: int) -> Ending:
        """Run a segment from epoch ``after`` on in a process of its own, to the end of that.

        Cancelled, it has the process stop in good order; cancelled again, at once.
        """
        orders = {
            "target": self._target(),
            "path": sys.path,
            "url": self._url,
            "executor_id": self._lease.executor_id,
            "run_id": str(run_id),
            "seq": seq,
            "after": after,
        }
        try:
            child = _Child(await _start())
        except OSError as error:
            return Ending(f"its process cannot be started: {error}", None, None)
        process = child.process
        tasks = [
            asyncio.create_task(child.keep_reports()),
            asyncio.create_task(child.log(f"Run {run_id}, segment {seq}, alone")),
        ]
        telling = asyncio.create_task(child.keep_telling(orders, self._lease))
        try:
            await process.wait()
            # What a process that it started has inherited may stay open for long.
            await asyncio.wait(tasks, timeout=_DRAIN_SECONDS)
        except asyncio.CancelledError:
            await _stop(process, self._stop_seconds)
            raise
        finally:
            if process.returncode is None:
                process.kill()
            for task in (*tasks, telling):
                task.cancel()
        return ending(process.returncode or 0, child.reports, silent=child.silent)


@dataclass(eq=False)
class _Child:
    """The process, and what it has reported."""

    process: Process
    reports: list[dict[str, Any]] = field(default_factory=list)
    silent: bool = False
    """Whether it was ended because it answered no more."""
    _unanswered: int = 0

    async def keep_telling(self, orders: dict[str, Any], lease: Lease) -> None:
        """Give it its orders, then tell it of the lease, for as long as it answers."""
        stdin = self.process.stdin
        assert stdin is not None  # noqa: S101 - it is a pipe
        stdin.write(json.dumps(orders).encode() + b"\n")
        while self._unanswered * BEAT_SECONDS < SILENT_SECONDS:
            stdin.write(f"{lease.held_until}\n".encode())
            self._unanswered += 1
            await asyncio.sleep(BEAT_SECONDS)
        self.silent = True
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def keep_reports(self) -> None:
        """Keep what it reports until it ends."""
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        async for line in _lines(self.process.stdout):
            self._unanswered = 0
            # It may have died in the middle of a line.
            with contextlib.suppress(ValueError):
                report = json.loads(line)
                if "heard" not in report:
                    self.reports.append(report)

    async def log(self, who: str) -> None:
        """Log what it says as it says it, at the level its own lines begin with."""
        assert self.process.stderr is not None  # noqa: S101 - it is a pipe
        async for line in _lines(self.process.stderr):
            word = line.partition(" ")[0]
            level = logging.getLevelName(word) if word in _LEVELS else logging.INFO
            _LOG.log(level, "%s: %s", who, line)


async def _start() -> Process:
    # In a session of its own, where Ctrl-C in a terminal does not reach it: its worker tells it.
    process = await asyncio.create_subprocess_exec(
        *COMMAND, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    # Loading a program takes seconds of a core, which healthy runs need more than a suspect does:
    # where many processes are killed, those that run alone must not keep the others from it.
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
    return process


def ending(code: int, reports: Sequence[dict[str, Any]], *, silent: bool = False) -> Ending:
    """Return how a process ended, from its exit code (negative: a signal) and its reports.

    ``silent``: it was killed here, as it answered no more.
    """
    told: dict[str, Any] = {}
    for report in reports:
        told.update(report)
    how = f"was killed by signal {_signal(-code)}" if code < 0 else f"ended with code {code}"
    if silent:
        how = f"answered nothing for {SILENT_SECONDS:.0f} s and was killed"
    began = told.get("began")
    if began is None and "ended" not in told:
        how = str(told.get("failed") or f"its process {how} before it began.")
    return Ending(how, began, told.get("ended"))


def _signal(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


async def _stop(process: Process, seconds: float) -> None:
    """Have the process stop, and end it where it does not."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await process.wait()


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield the lines of a stream that are not empty, however long; the longest are cut."""
    rest = b""
    while chunk := await stream.read(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line[:_LONGEST_LINE].decode(errors="replace").rstrip()
        rest = rest[:_LONGEST_LINE]
    if rest.strip():
        yield rest.decode(errors="replace").rstrip()
