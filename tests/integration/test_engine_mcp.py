"""MCP servers whose tools change, or that are away, while a run lasts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from agents import Agent, function_tool
from agents.mcp import MCPServer, MCPServerStdio

from perdure import effect, tool_call
from perdure.engine import Engine
from tests.engine_support import (
    SECONDS,
    Gate,
    approve,
    call,
    other_worker,
    outputs_in,
    query,
    rested,
    running,
    turns,
)

_SERVER = """
import logging, os, pathlib
from mcp.server.mcpserver import MCPServer

logging.disable()
server = MCPServer("words")


@server.tool()
def upper(text: str) -> str:
    if text == "more":
        server.add_tool(lower, name="lower")
    return text.upper()


def lower(text: str) -> str:
    return text.lower()


pathlib.Path(__file__).with_name("pid").write_text(str(os.getpid()))
server.run()
"""


@pytest_asyncio.fixture
async def words(tmp_path: Path) -> AsyncIterator[MCPServer]:
    script = tmp_path / "words.py"
    script.write_text(_SERVER)
    async with MCPServerStdio(
        params={"command": sys.executable, "args": [str(script)]},
        client_session_timeout_seconds=20,
    ) as server:
        yield server


@pytest.mark.parametrize("gone", [False, True])
async def test_a_segment_begun_again_sees_the_tools_it_saw(
    database_url: str, words: MCPServer, tmp_path: Path, gone: bool
) -> None:
    gate = Gate()

    @effect("idempotent")
    @function_tool
    async def pause() -> str:
        if tool_call().attempt == 1:
            await gate.stop()
        return "went on"

    model = turns([call("upper", "c1", text="more")], [call("pause", "c2")], "done")
    agent: Agent[Any] = Agent(name="w", model=model, tools=[pause], mcp_servers=[words])
    async with running(database_url, agent) as engine:
        run = await engine.start("w", "hi")
        await gate.reached()
        [row] = await query(engine, "SELECT mcp_tools FROM perdure.segments")
        [tools] = row["mcp_tools"].values()
        assert [tool["name"] for tool in tools] == ["upper"]
        # By now it offers another tool, or answers nobody.
        assert [tool.name for tool in await words.list_tools()] == ["upper", "lower"]
        if gone:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        async with other_worker(engine, database_url) as other, asyncio.timeout(SECONDS):
            assert await other.run(UUID(run.id), 1) == "completed"
        assert model.offered == [["pause", "upper"]] * 3
        gate.open()
        await run.refresh()
        assert (run.status, run.output, run.error) == ("completed", "done", None)
    assert "MORE" in str(outputs_in(model.inputs[-1])["c1"])


async def test_the_next_segment_lists_anew(database_url: str, words: MCPServer) -> None:
    @function_tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    model = turns([call("upper", "c1", text="more")], [call("pay", "c2")], "done")
    agent: Agent[Any] = Agent(name="w", model=model, tools=[pay], mcp_servers=[words])
    async with running(database_url, agent) as engine:
        run = await approve(engine, await rested(engine, "w"))
        assert (run.status, run.error) == ("completed", None)
    assert model.offered == [["pay", "upper"]] * 2 + [["lower", "pay", "upper"]]


async def test_outside_a_durable_run_a_server_lists_as_before(words: MCPServer) -> None:
    agent = Agent(name="w", model=turns("done"), mcp_servers=[words])
    Engine(agents=[agent])
    await words.call_tool("upper", {"text": "more"})
    assert [tool.name for tool in await words.list_tools(None, agent)] == ["upper", "lower"]
