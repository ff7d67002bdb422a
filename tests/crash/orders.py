"""A run whose tools are those of an MCP server, which kills the worker in the middle of them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent
from agents.mcp import MCPServerStdio
from agents.testing import assistant_message, function_call

from perdure import Engine
from tests.crash import orders_server
from tests.crash.orders_server import TOOLS
from tests.crash.scenario import RuleModel


def _rule(outputs: dict[str, str]) -> list[Any]:
    if not outputs:
        return [function_call(name, {"call_id": name}, call_id=name) for name in TOOLS]
    return [assistant_message("done")]


@asynccontextmanager
async def at_work(url: str) -> AsyncIterator[None]:
    """A worker of the scenario on the database of ``url``, with its server, inside the block."""
    async with MCPServerStdio(
        params={
            "command": sys.executable,
            "args": [orders_server.__file__],
            "env": dict(os.environ),
        },
        client_session_timeout_seconds=20,
    ) as server:
        clerk = Agent(name="clerk", model=RuleModel("clerk", _rule), mcp_servers=[server])
        async with Engine(agents=[clerk]).running(url=url, migrate_first=False):
            yield
