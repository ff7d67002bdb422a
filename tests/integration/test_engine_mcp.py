"""MCP servers whose tools change, or that are away, while a run lasts; their effect classes."""

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
from perdure.errors import ConfigurationError
from tests.engine_support import (
    SECONDS,
    Gate,
    approve,
    call,
    calls_of,
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


_ANNOTATED = """
import logging
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

logging.disable()
server = MCPServer("orders")


def offer(name, **hints):
    def tool(order: str) -> str:
        return f"{name} {order}"

    annotations = ToolAnnotations.model_validate(hints) if hints else None
    server.add_tool(tool, name=name, annotations=annotations)


offer("look", readOnlyHint=True)
offer("put", idempotentHint=True, readOnlyHint=False)
offer("send", destructiveHint=True)
offer("print")
server.run()
"""


async def test_the_tools_of_a_server_have_the_classes_it_says_or_was_marked_with(
    database_url: str, tmp_path: Path
) -> None:
    script = tmp_path / "orders.py"
    script.write_text(_ANNOTATED)
    names = ["look", "put", "send", "print"]
    model = turns([call(name, name, order="7") for name in names], "done")
    async with MCPServerStdio(
        params={"command": sys.executable, "args": [str(script)]},
        client_session_timeout_seconds=20,
    ) as server:
        agent: Agent[Any] = Agent(name="w", model=model, mcp_servers=[server])
        async with running(database_url, agent) as engine:

            async def classes() -> dict[str, str]:
                run = await rested(engine, "w")
                assert (run.status, run.error) == ("completed", None)
                calls = await calls_of(engine, run)
                assert {one["kind"] for one in calls.values()} == {"mcp"}
                return {key: one["effect"] for key, one in calls.items()}

            said = {"look": "read", "put": "idempotent"}
            unsaid = dict.fromkeys(["send", "print"], "at_most_once")
            assert await classes() == said | unsaid
            # Marks win over what it says and add up, the more exact one first, in any order.
            assert effect("idempotent", tools=["print"])(server) is server
            effect("at_most_once", tools=("put",))(server)
            assert await classes() == unsaid | {
                "look": "read",
                "put": "at_most_once",
                "print": "idempotent",
            }
            effect("read")(server)
            assert await classes() == {
                "look": "read",
                "send": "read",
                "put": "at_most_once",
                "print": "idempotent",
            }
    assert outputs_in(model.inputs[-1]).keys() == set(names)


async def test_marks_that_make_no_sense_are_refused(words: MCPServer) -> None:
    @function_tool
    async def pay() -> str:
        return "paid"

    with pytest.raises(ConfigurationError, match="FunctionTool is none"):
        effect("read", tools=["pay"])(pay)
    with pytest.raises(ConfigurationError, match="FunctionTool is none"):
        effect("read", tools=[])(pay)
    with pytest.raises(ConfigurationError, match="a list of the names"):
        effect("read", tools="upper")(words)
    with pytest.raises(ConfigurationError, match="a list of the names"):
        effect("read", tools=[])(words)
    with pytest.raises(ConfigurationError, match="cannot be transactional"):
        effect("transactional")(words)
