"""Runs one segment in a process of its own: the side of the worker that starts it.

The process (``COMMAND``, which comes to alone_child.py) is given its orders as a line of JSON
on its standard input, and reports in lines of JSON on its standard output: ``began`` with the
epoch, each time it begins the segment; ``ended`` with how, when it ends in good order; ``failed``
with a message, when it cannot begin. What it writes to standard error comes out in this process's
log, with the run's id. Its standard input stays open for as long as this process lives: when that
ends, it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import UUID

from perdure.runs.quarantine import Ending

_LOG = logging.getLogger(__name__)
STOP_SECONDS = 4.0
"""How long it has to stop in good order: less than its worker has."""
_DRAIN_SECONDS = 1.0
_LONGEST_LINE = 8192
_LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}

COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "perdure.cli.alone_child")


class Alone:
    """Starts such processes for one worker."""

    def __init__(self, target: Callable[[], str | None], url: str, version: str) -> None:
        """Take what says where another process finds the engine, and the database's URL.

        The URL goes to the process with its orders, so that it shows in no list of processes.
        """
        self._target = target
        self._url = url
        self._version = version

    def possible(self) -> bool:
        """Whether another process can find the engine."""
        return self._target() is not None

    async def run(self, run_id: UUID, seq: int, *, after: int) -> Ending:
        """Run a segment from epoch ``after`` on in a process of its own, to the end of that.

        Cancelled, it has the process stop in good order; cancelled again, at once.
        """
        orders = {
            "target": self._target(),
            "path": sys.path,
            "url": self._url,
            "version": self._version,
            "run_id": str(run_id),
            "seq": seq,
            "after": after,
        }
        try:
            process = await _start()
        except OSError as error:
            return Ending(f"its process cannot be started: {error}", None, None)
        reports: list[dict[str, Any]] = []
        readers = [
            asyncio.create_task(_keep_reports(process, reports)),
            asyncio.create_task(_log(process, run_id, seq)),
        ]
        try:
            await _order(process, orders)
            await process.wait()
            # What a process that it started has inherited may stay open for long.
            await asyncio.wait(readers, timeout=_DRAIN_SECONDS)
        except asyncio.CancelledError:
            await _stop(process)
            raise
        finally:
            if process.returncode is None:
                process.kill()
            for reader in readers:
                reader.cancel()
        return ending(process.returncode or 0, reports)


async def _start() -> Process:
    # In a session of its own, where Ctrl-C in a terminal does not reach it: its worker tells it.
    return await asyncio.create_subprocess_exec(
        *COMMAND, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )


def ending(code: int, reports: Sequence[dict[str, Any]]) -> Ending:
    """Return how a process ended, from its exit code (negative: a signal) and its reports."""
    told: dict[str, Any] = {}
    for report in reports:
        told.update(report)
    how = f"was killed by signal {_signal(-code)}" if code < 0 else f"ended with code {code}"
    began = told.get("began")
    if began is None and "ended" not in told:
        how = str(told.get("failed") or f"its process {how} before it began.")
    return Ending(how, began, told.get("ended"))


def _signal(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


async def _order(process: Process, orders: dict[str, Any]) -> None:
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    process.stdin.write(json.dumps(orders).encode() + b"\n")
    # It may be dead by now; how, it is asked next.
    with contextlib.suppress(OSError):
        await process.stdin.drain()


async def _stop(process: Process) -> None:
    """Have the process stop, and end it where it does not."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()


async def _keep_reports(process: Process, reports: list[dict[str, Any]]) -> None:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    async for line in _lines(process.stdout):
        reports.append(json.loads(line))  # noqa: PERF401 - each as it comes


async def _log(process: Process, run_id: UUID, seq: int) -> None:
    """Log what the process says as it says it, at the level its own lines begin with."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    async for line in _lines(process.stderr):
        word = line.partition(" ")[0]
        level = logging.getLevelName(word) if word in _LEVELS else logging.INFO
        _LOG.log(level, "Run %s, segment %d, alone: %s", run_id, seq, line)


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
