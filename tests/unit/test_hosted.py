"""Which requests a hosted MCP server may act in."""

from __future__ import annotations

from typing import Any, cast

import pytest
from agents import HostedMCPTool, WebSearchTool
from agents.tool import Tool
from openai.types.responses.tool_param import Mcp

from perdure import effect
from perdure.ledger.effects import Effect
from perdure.runs.hosted import asking_first, servers_that_may_act


def _mcp(label: str, **config: Any) -> HostedMCPTool:
    given = {"type": "mcp", "server_label": label, "server_url": "https://mcp.example.com"}
    return HostedMCPTool(tool_config=cast(Mcp, {**given, **config}))


ALWAYS = _mcp("asks", require_approval="always")
NEVER = _mcp("acts", require_approval="never")
SOME = _mcp("some", require_approval={"always": {"tool_names": ["pay"]}})
UNSAID = _mcp("unsaid")
REQUEST = {"type": "mcp_approval_request", "id": "r1", "server_label": "asks", "name": "pay"}
APPROVED = {"type": "mcp_approval_response", "approval_request_id": "r1", "approve": True}
MADE = {"type": "mcp_call", "id": "m1", "approval_request_id": "r1", "server_label": "asks"}
HELLO = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("tools", "given", "servers"),
    [
        ([], "hi", []),
        ([WebSearchTool()], "hi", []),
        ([NEVER], "hi", ["acts"]),
        ([NEVER, SOME, UNSAID, ALWAYS], [HELLO], ["acts", "some", "unsaid"]),
        ([ALWAYS], [HELLO, REQUEST], []),
        ([ALWAYS], [HELLO, REQUEST, APPROVED], ["asks"]),
        ([ALWAYS], [HELLO, REQUEST, APPROVED | {"approve": False}], []),
        # It was made by an earlier request, whose reply is in the input.
        ([ALWAYS], [HELLO, REQUEST, APPROVED, MADE], []),
        ([_mcp("other", require_approval="always")], [HELLO, REQUEST, APPROVED], []),
        # The provider keeps the conversation: the request is not in the input.
        ([ALWAYS], [APPROVED], ["asks"]),
    ],
)
def test_which_servers_may_act(tools: list[Any], given: Any, servers: list[str]) -> None:
    assert servers_that_may_act(tools, given, Effect.AT_MOST_ONCE) == servers


def test_what_is_marked_read_is_harmless() -> None:
    tools = [effect("read")(_mcp("reads")), effect("idempotent")(_mcp("keyless")), UNSAID]
    assert servers_that_may_act(tools, "hi", Effect.AT_MOST_ONCE) == ["keyless", "unsaid"]
    assert servers_that_may_act(tools, "hi", Effect.READ) == ["keyless"]


def test_a_run_that_asks_first_has_servers_ask() -> None:
    reads = effect("read")(_mcp("reads"))
    tools: list[Tool] = [NEVER, ALWAYS, SOME, reads, WebSearchTool()]
    asking = asking_first(tools, Effect.AT_MOST_ONCE)
    assert servers_that_may_act(asking, "hi", Effect.AT_MOST_ONCE) == []
    assert [tool.name for tool in asking] == [tool.name for tool in tools]
    assert asking[3:] == [reads, tools[4]]
    assert NEVER.tool_config["require_approval"] == "never"
