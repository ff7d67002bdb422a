"""The parent's side of a contestant's process: started, asked, killed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

_ROOT = Path(__file__).parents[1]
_LINE_LIMIT = 1 << 20


class Child:
    """A contestant in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, spawned_at: float) -> None:
        self._process = process
        self.name = name
        self.spawned_at = spawned_at
        self.ready_at = 0.0
        """When it was ready, on the monotonic clock, which all processes share."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            RuntimeError: the process has died; what it said is on the standard error.
        """
        self.tell(**request)
        return await self.heard()

    def tell(self, **request: Any) -> None:
        """Send a request whose answer is read later with ``heard``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")

    async def heard(self) -> dict[str, Any]:
        """Return the next thing the process says.

        Raises:
            RuntimeError: it has died.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            code = await self._process.wait()
            raise RuntimeError(f"The process of {self.name} ended with {code}.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash would, and wait until it is gone."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def close(self) -> None:
        """Let it end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    def memory_bytes(self) -> int:
        """Return its resident memory."""
        return int(psutil.Process(self.pid).memory_info().rss)

    async def idle_share(self, seconds: float) -> float:
        """Return the share of one core it uses in the next ``seconds``."""
        process = psutil.Process(self.pid)
        before = process.cpu_times()
        await asyncio.sleep(seconds)
        after = process.cpu_times()
        return float(after.user + after.system - before.user - before.system) / seconds


async def spawn(name: str, url: str, **options: Any) -> Child:
    """Start a contestant's process and wait until it is ready."""
    spawned_at = asyncio.get_running_loop().time()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.child",
        name,
        json.dumps({"url": url, **options}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        limit=_LINE_LIMIT,
    )
    child = Child(process, name, spawned_at)
    child.ready_at = (await child.heard())["ready"]
    return child


@asynccontextmanager
async def spawned(name: str, url: str, **options: Any) -> AsyncIterator[Child]:
    """Run a contestant's process inside the block."""
    child = await spawn(name, url, **options)
    try:
        yield child
    except BaseException:
        await child.kill()
        raise
    await child.close()
