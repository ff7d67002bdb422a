"""The process that runs one segment alone, for a worker; ``worker.alone`` starts it.

Its standard input stays open while the worker lives. User code finds an empty one, and what it
prints goes to standard error.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.cli import serving
from perdure.cli.target import load_engine
from perdure.errors import PerdureError
from perdure.worker import alone_child
from perdure.worker.alone_child import Orders, Report, run_alone

if TYPE_CHECKING:
    from perdure.runs.registry import Registry

_STOP_SECONDS = 5.0
_ORPHANED = 1
_LONGEST_MESSAGE = 2000


def main() -> int:
    """Take orders, load the target, run the segment; returns the exit code."""
    faulthandler.enable()
    orders_fd, reports_fd = _take_pipes()

    def report(what: str, how: Any) -> None:
        os.write(reports_fd, json.dumps({what: how}).encode() + b"\n")

    line = _read_line(orders_fd)
    if not line:
        return _ORPHANED
    orders = Orders(**json.loads(line))
    parent = _Parent(orders_fd)
    serving.log_to_stderr("%(levelname)s %(name)s: %(message)s")
    sys.path[:] = orders.path
    alone_child.in_this_process = True
    try:
        engine = load_engine(orders.target)
        asyncio.run(_run(engine.registry, orders, parent, report))
    except PerdureError as error:
        report("failed", error.message[:_LONGEST_MESSAGE])
        return 1
    finally:
        # A tool's thread that hangs must not keep the process.
        threading.Thread(target=_end, daemon=True).start()
    return 0


def _take_pipes() -> tuple[int, int]:
    """Return descriptors of what stdin and stdout are, and put harmless things in their place."""
    orders, reports = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return orders, reports


def _read_line(fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        # Nothing comes after it, so nothing of what comes after it is read.
        chunk = os.read(fd, 65536)
        if not chunk:
            return b""
        line += chunk
    return line


class _Parent:
    """Watches the worker: ``on_gone`` is called, in a thread, when it has ended."""

    def __init__(self, fd: int) -> None:
        self.on_gone: Callable[[], object] | None = None
        self._fd = fd
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        # Nothing more is ever written: it returns when nobody has the other end.
        os.read(self._fd, 1)
        if self.on_gone is None:
            os._exit(_ORPHANED)
        self.on_gone()
        _end()


def _end() -> None:
    time.sleep(_STOP_SECONDS)
    os._exit(_ORPHANED)


async def _run(registry: Registry, orders: Orders, parent: _Parent, report: Report) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    parent.on_gone = lambda: loop.call_soon_threadsafe(told.set)
    loop.add_signal_handler(signal.SIGTERM, told.set)
    await run_alone(registry, orders, told, report)


if __name__ == "__main__":
    raise SystemExit(main())
