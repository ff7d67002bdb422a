"""A server of the API in a process of its own: its port on the standard output, until it ends."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks import workload
from benchmarks.process import Child
from perdure import Engine
from perdure.cli.serving import address_of, bind, run_until_stopped, serve

_ROOT = Path(__file__).parents[1]


@asynccontextmanager
async def served(url: str) -> AsyncIterator[tuple[Child, str]]:
    """Serve the database of ``url`` within the block; gives the process and its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.serving", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    child = Child(process, "a server", time.monotonic())
    try:
        yield child, (await child.heard())["address"]
    finally:
        process.terminate()
        await process.wait()


def main() -> None:
    """Serve the database named first to whoever is on this machine."""
    engine = Engine(agents=[workload.agent(workload.tool(workload.moment))])
    listening = bind("127.0.0.1", 0)

    def say() -> None:
        print(json.dumps({"address": address_of(listening)}), flush=True)

    run_until_stopped(
        serve(
            engine,
            listening,
            worker=False,
            on_ready=say,
            loopback_only=True,
            url=sys.argv[1],
        )
    )


if __name__ == "__main__":
    main()
