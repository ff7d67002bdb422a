"""A contestant's process: requests on its standard input, one JSON object a line, answers alike.

``{"op": "runs", "turns", "bytes", "at_once"}`` times runs side by side; ``start`` begins one and
``wait`` waits for its end. Moments are of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import workload
from benchmarks.contestants import CONTESTANTS, Contestant, Perdure, Setting

Say = Callable[[dict[str, Any]], None]


async def _runs(
    contestant: Contestant, turns: int, tool_bytes: int, at_once: int
) -> dict[str, Any]:
    gc.collect()
    cpu, began = time.process_time(), time.monotonic()
    outputs = await asyncio.gather(*(contestant.run(turns, tool_bytes) for _ in range(at_once)))
    ended, cpu = time.monotonic(), time.process_time() - cpu
    wrong = [output for output in outputs if not output.startswith(workload.expected(turns))]
    if wrong:
        raise AssertionError(f"A run came to {wrong[0]!r} instead of {workload.expected(turns)!r}.")
    return {"seconds": ended - began, "cpu_seconds": cpu}


async def _wait(contestant: Contestant, run_id: str) -> dict[str, Any]:
    output = await contestant.wait(run_id)
    return {"output": output, "at": time.monotonic()}


async def _answer(contestant: Contestant, request: dict[str, Any]) -> dict[str, Any]:
    match request["op"]:
        case "runs":
            return await _runs(
                contestant, request["turns"], request["bytes"], request.get("at_once", 1)
            )
        case "start":
            return {"run_id": await contestant.start(request["turns"], request["bytes"])}
        case "start_many" if isinstance(contestant, Perdure):
            return {"run_ids": await contestant.start_many(request)}
        case "wait":
            return await _wait(contestant, request["run_id"])
        case other:
            raise ValueError(f"There is no {other!r}.")


async def _serve(name: str, options: dict[str, Any], say: Say) -> None:
    setting = Setting(**options, reached=lambda: say({"reached": True}))
    requests: asyncio.StreamReader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    async with CONTESTANTS[name](setting) as contestant:
        say({"ready": time.monotonic()})
        while line := await requests.readline():
            say(await _answer(contestant, json.loads(line)))


def main() -> None:
    """Serve the contestant named first, with the settings that follow as JSON, to the last line."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    asyncio.run(_serve(sys.argv[1], json.loads(sys.argv[2]), say))


if __name__ == "__main__":
    main()
