"""Workers in milliseconds: a process that has imported everything forks one for each line it reads.

In: ``{"url": …, "log": …, "name": …, "n": …, "when": …, "scene": …}``, or ``{"url": …, "log": …,
"poison": …}`` for a worker of poison.py, or ``{"caller": …}`` for a program of caller.py, or
``{"zygote": path}``. Out: ``{"pid": …}`` for each, and
``{"dead": pid}`` or ``{"stopped": pid}`` when one has. It ends itself, and its children, when its
input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class Nursery:
    """The parent's side: start workers, kill them, wait for their death."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._ordering = asyncio.Lock()
        self._deaths: dict[int, asyncio.Event] = {}
        self._stops: dict[int, asyncio.Event] = {}
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.crash.nursery",
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
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
            if "pid" in message:
                self._deaths[message["pid"]] = asyncio.Event()
                self._stops[message["pid"]] = asyncio.Event()
                self._born.put_nowait(message["pid"])
            elif "dead" in message:
                self._deaths[message["dead"]].set()
            else:
                self._stops[message["stopped"]].set()

    async def worker(
        self,
        url: str,
        log: Path,
        name: str = "",
        n: int = 0,
        when: str = "before",
        scene: str = "scenario",
    ) -> int:
        """Start a worker and return its process id; see child.py for when it dies."""
        return await self.order(url=url, log=str(log), name=name, n=n, when=when, scene=scene)

    async def order(self, **order: Any) -> int:
        """Fork a process for an order and return its process id."""
        assert self._process is not None
        assert self._process.stdin is not None
        async with self._ordering:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            await self._process.stdin.drain()
            return await self._born.get()

    async def death(self, pid: int) -> None:
        """Wait until the worker is dead."""
        await self._deaths[pid].wait()

    async def stopped(self, pid: int) -> None:
        """Wait until the worker has been stopped, as by SIGSTOP."""
        await self._stops[pid].wait()

    async def kill(self, pid: int) -> None:
        """Kill the worker as by kill -9 and wait until it is dead."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await self.death(pid)


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _main() -> None:
    # What a worker loads when it launches DBOS is loaded once, here.
    from perdure.runs.dbos_inside import claims, instance, pickles  # noqa: F401
    from tests.crash import caller, child, poison_child, zygote

    def bury(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
                if not pid:
                    return
                _say({"stopped" if os.WIFSTOPPED(status) else "dead": pid})

    signal.signal(signal.SIGCHLD, bury)
    children = []
    for line in sys.stdin:
        order = json.loads(line)
        listening = zygote.listen(order["zygote"]) if "zygote" in order else None
        # A child's death must not be told before its birth.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            os.dup2(2, 1)
            if listening is not None:
                zygote.serve(listening)
            if "caller" in order:
                caller.main(**order)
                os._exit(0)
            if "poison" in order:
                poison_child.main(**order)
                os._exit(0)
            place = order["name"], order["n"], order["when"]
            child.main(order["url"], order["log"], *place, order["scene"])
            os._exit(0)
        children.append(pid)
        if listening is not None:
            listening.close()
        _say({"pid": pid})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _main()
