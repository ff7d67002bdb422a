"""A run whose effects are not functions: a hosted MCP server, and a computer.

Its model is asked three times; each time the hosted server may act.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from agents import Agent, Computer, ComputerTool, HostedMCPTool
from agents.testing import assistant_message
from openai.types.responses import ResponseComputerToolCall

from perdure import Engine, tool_call
from tests.crash.scenario import RuleModel, at, log

REQUESTS = 3


class Desk(Computer):
    """A computer on which things are clicked."""

    def screenshot(self) -> str:
        return self._did("screenshot")

    def click(self, x: int, y: int, button: Any) -> None:
        self._did("click")

    def _did(self, what: str) -> str:
        log("effect", tool=what, call_id=tool_call().call_id, attempt=tool_call().attempt)
        at(f"effect {what}")
        return "picture"

    def double_click(self, x: int, y: int) -> None: ...
    def scroll(self, x: int, y: int, scroll_x: int, scroll_y: int) -> None: ...
    def type(self, text: str) -> None: ...
    def wait(self) -> None: ...
    def move(self, x: int, y: int) -> None: ...
    def keypress(self, keys: list[str]) -> None: ...
    def drag(self, path: list[tuple[int, int]]) -> None: ...


def _use(call_id: str, action: dict[str, Any]) -> ResponseComputerToolCall:
    return ResponseComputerToolCall.model_validate(
        {
            "type": "computer_call",
            "id": f"cu_{call_id}",
            "call_id": call_id,
            "status": "completed",
            "pending_safety_checks": [],
            "action": action,
        }
    )


def _rule(outputs: dict[str, str]) -> list[Any]:
    click = {"type": "click", "x": 1, "y": 2, "button": "left"}
    if "c1" not in outputs:
        return [_use("c1", click), _use("c2", {"type": "screenshot"})]
    return [_use("c3", click)] if "c3" not in outputs else [assistant_message("done")]


def make_engine() -> Engine:
    """Return the engine of the scenario."""
    server = HostedMCPTool(
        tool_config={
            "type": "mcp",
            "server_label": "crm",
            "server_url": "https://mcp.example.com",
            "require_approval": "never",
        }
    )
    clerk = Agent(
        name="clerk", model=RuleModel("clerk", _rule), tools=[server, ComputerTool(Desk())]
    )
    return Engine(agents=[clerk])


def at_work(url: str) -> AbstractAsyncContextManager[Any]:
    """A worker of the scenario on the database of ``url``, inside the block."""
    return make_engine().running(url=url, migrate_first=False)
