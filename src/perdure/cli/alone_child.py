"""The process that runs one segment alone, for a worker; ``worker.alone`` starts it.

Its standard input stays open while the worker lives, and tells of the worker's lease. User code
finds an empty one, and what it prints goes to standard error.

It listens before it loads anything: what it loads takes seconds of a core, which are given up at
once when the worker has ended meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from perdure.cli.ending import end_within

if TYPE_CHECKING:
    from perdure.runs.registry import Registry
    from perdure.worker.alone_child import Orders, Report

_STOP_SECONDS = 5.0
_ORPHANED = 1
_LONGEST_MESSAGE = 2000


def main() -> int:
    """Take orders, load the target, run the segment; returns the exit code."""
    faulthandler.enable()
    told_fd, reports_fd = _take_pipes()

    def report(what: str, how: Any) -> None:
        # Nobody may be there to read it.
        with contextlib.suppress(OSError):
            line = json.dumps({what: how}, ensure_ascii=False)
            os.write(reports_fd, line.encode(errors="replace") + b"\n")

    lines = _lines(told_fd)
    line = next(lines, None)
    if line is None:
        return _ORPHANED
    worker = _Worker(lines, report)
    code = 1
    try:
        code = _work(json.loads(line), worker, report)
    finally:
        end_within(_STOP_SECONDS, code)
    return code


def _work(told: dict[str, Any], worker: _Worker, report: Report) -> int:
    from perdure.cli.logs import log_to_stderr, trace_from_environment
    from perdure.cli.target import load_engine
    from perdure.errors import PerdureError
    from perdure.worker import alone_child

    orders = alone_child.Orders(**told)
    log_to_stderr("%(levelname)s %(name)s: %(message)s")
    sys.path[:] = orders.path
    alone_child.in_this_process = True
    try:
        engine = load_engine(orders.target)
        trace_from_environment()
        asyncio.run(_run(engine.registry, orders, worker, report))
    except PerdureError as error:
        report("failed", error.message[:_LONGEST_MESSAGE])
        return 1
    return 0


def _take_pipes() -> tuple[int, int]:
    """Return descriptors of what stdin and stdout are, and put harmless things in their place."""
    told, reports = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return told, reports


def _lines(fd: int) -> Iterator[bytes]:
    """Yield what is told, line by line, until the worker has ended."""
    rest = b""
    while chunk := os.read(fd, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


class _Worker:
    """Listens to the worker, in a thread, and answers."""

    def __init__(self, lines: Iterator[bytes], report: Report) -> None:
        self.on_lease: Callable[[float], object] = lambda until: None
        self.on_gone: Callable[[], object] | None = None
        self.until = 0.0
        self._lines = lines
        self._report = report
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._lines:
            self.until = float(line)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.on_lease(self.until)
            self._report("heard", self.until)
        if self.on_gone is None:
            os._exit(_ORPHANED)
        with contextlib.suppress(RuntimeError):
            self.on_gone()
        end_within(_STOP_SECONDS, _ORPHANED)


async def _run(registry: Registry, orders: Orders, worker: _Worker, report: Report) -> None:
    from perdure.worker.alone_child import WorkersLease, run_alone

    loop = asyncio.get_running_loop()
    lease = WorkersLease()
    worker.on_lease = lambda until: loop.call_soon_threadsafe(lease.told, until)
    worker.on_gone = lambda: loop.call_soon_threadsafe(lease.told_to_stop)
    lease.told(worker.until)
    loop.add_signal_handler(signal.SIGTERM, lease.told_to_stop)
    await run_alone(registry, orders, lease, report)


if __name__ == "__main__":
    raise SystemExit(main())
