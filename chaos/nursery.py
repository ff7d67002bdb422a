"""Workers in milliseconds: a process that has loaded everything forks one for each line it reads.

In: a JSON object, handed to ``main`` of the worker's module. Out: ``{"born": pid}`` for each, and
``{"dead": pid}``. It ends itself, and its children, when its input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Self

_ROOT = Path(__file__).parents[1]


class Nursery:
    """The parent's side: ``module`` is what a worker is, ``log`` where its warnings go."""

    def __init__(self, module: str, log: Path) -> None:
        self._module = module
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._deaths: dict[int, asyncio.Event] = {}
        self._ordering = asyncio.Lock()

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "chaos.nursery",
                self._module,
                cwd=_ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "born" in message:
                self._deaths[message["born"]] = asyncio.Event()
                self._born.put_nowait(message["born"])
            else:
                self._deaths[message["dead"]].set()

    async def worker(self, order: dict[str, Any]) -> int:
        """Start a worker and return its process id."""
        assert self._process is not None
        assert self._process.stdin is not None
        async with self._ordering:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            await self._process.stdin.drain()
            return await self._born.get()

    async def death(self, pid: int) -> None:
        """Wait until the worker is dead."""
        await self._deaths[pid].wait()


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _main(module: str) -> None:
    worker = importlib.import_module(module)
    worker.warm_up()
    # What is there now is shared by all that are forked: no collection need ever touch it.
    gc.freeze()
    living: set[int] = set()

    def bury(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                living.discard(pid)
                _say({"dead": pid})

    signal.signal(signal.SIGCHLD, bury)
    for line in sys.stdin:
        # A child's death must not be told before its birth.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            os.dup2(2, 1)
            try:
                worker.main(json.loads(line))
            except BaseException:  # noqa: BLE001 - told, whatever it is
                traceback.print_exc()
            finally:
                os._exit(1)
        living.add(pid)
        _say({"born": pid})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for pid in living:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _main(sys.argv[1])
