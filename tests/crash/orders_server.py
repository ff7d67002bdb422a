"""The MCP server of orders.py: a process of its own, which imports nothing it does not need."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

TOOLS: dict[str, dict[str, bool]] = {
    "look": {"readOnlyHint": True},
    "put": {"idempotentHint": True},
    "print": {},
}
LOG = "PERDURE_TEST_LOG"
FATAL = "PERDURE_TEST_FATAL"
"""``orders`` in the environment of a server that kills its worker in the middle of three calls."""


def _log(kind: str, **fields: Any) -> None:
    line = json.dumps({"kind": kind, "pid": os.getpid(), **fields}) + "\n"
    with Path(os.environ[LOG]).open("ab", buffering=0) as log:
        log.write(line.encode())


def main() -> None:
    """Serve on standard input and output."""
    from mcp.server.mcpserver import MCPServer
    from mcp.types import ToolAnnotations

    logging.disable()
    server = MCPServer("orders")
    under_way: list[str] = []

    def offer(name: str) -> None:
        async def tool(call_id: str) -> str:
            # It knows no calls: each is told the id of its own.
            _log("effect", tool=name, call_id=call_id)
            under_way.append(name)
            if os.environ.get(FATAL) == "orders":
                if len(under_way) == len(TOOLS):
                    _log("killed", at="orders")
                    os.kill(os.getppid(), signal.SIGKILL)
                    os._exit(0)
                await asyncio.get_running_loop().create_future()
            return name

        server.add_tool(tool, name=name, annotations=ToolAnnotations.model_validate(TOOLS[name]))

    for name in TOOLS:
        offer(name)
    server.run()


if __name__ == "__main__":
    main()
