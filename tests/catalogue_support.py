"""A build with all that can be defined of an agent, and secrets wherever one can stand."""

from __future__ import annotations

from typing import Any

from agents import (
    Agent,
    CodeInterpreterTool,
    CustomTool,
    FileSearchTool,
    GuardrailFunctionOutput,
    HostedMCPTool,
    ModelSettings,
    RunConfig,
    ShellTool,
    ToolGuardrailFunctionOutput,
    WebSearchTool,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
    tool_output_guardrail,
)
from agents.handoffs import HandoffInputData
from agents.mcp import MCPServerSse, MCPServerStdio, MCPServerStreamableHttp
from pydantic import BaseModel

from perdure import effect
from perdure.runs.registry import Registry

SECRET = "s3cr3t"


class Answer(BaseModel):
    text: str
    sure: bool = True


class Order(BaseModel):
    number: str


@input_guardrail
async def polite(*_: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(None, tripwire_triggered=False)


@output_guardrail(name="no numbers")
async def without_numbers(*_: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(None, tripwire_triggered=False)


@tool_input_guardrail
def small(_: Any) -> ToolGuardrailFunctionOutput:
    return ToolGuardrailFunctionOutput(None)


@tool_output_guardrail
def clean(_: Any) -> ToolGuardrailFunctionOutput:
    return ToolGuardrailFunctionOutput(None)


def over_a_hundred(*_: Any) -> Any:
    return True


@effect("idempotent", probe=lambda key: None)
@function_tool(
    needs_approval=over_a_hundred,
    tool_input_guardrails=[small],
    tool_output_guardrails=[clean],
    timeout=7.5,
)
async def refund(order_id: str, cents: int) -> str:
    """Refund an order."""
    return "done"


@effect("read")
@function_tool(is_enabled=over_a_hundred)
def look_up(order: str) -> str:
    """Look it up.\u202e\x00"""
    return order


def words(*_: Any) -> Any:
    return "Be kind."


def brief(data: HandoffInputData) -> HandoffInputData:
    return data


async def ordered(_: Any, order: Order) -> None:
    """Take what a handoff was called with."""


async def run_nothing(*_: Any) -> Any:
    return ""


def everything(instructions: Any = "Be kind.", **changed: Any) -> Registry:
    """``front`` hands off to ``desk/refunds`` and back, which uses ``scribe`` as a tool."""
    of_url = f"https://user:{SECRET}@mcp.example:8443/{SECRET}?key={SECRET}"
    scribe = Agent[Any](name="scribe", instructions=words, prompt=words)
    servers: list[Any] = [
        MCPServerStdio(
            {
                "command": "/opt/bin/files-mcp",
                "args": ["--root", f"/{SECRET}", f"--token={SECRET}", "-v", f"-p{SECRET}"],
                "env": {"TOKEN": SECRET},
            },
            require_approval={"delete": "always", "read": "never"},
        ),
        MCPServerSse({"url": of_url, "headers": {"Authorization": SECRET}}),
        MCPServerStreamableHttp(
            {"url": of_url, "headers": {"X-Key": SECRET}}, name="wiki", require_approval="always"
        ),
    ]
    effect("read", tools=["search"])(servers[2])
    hosted: Any = {
        "type": "mcp",
        "server_label": "crm",
        "server_url": of_url,
        "authorization": SECRET,
        "headers": {"X-Crm": SECRET},
        "require_approval": {"never": {"tool_names": ["find"]}},
    }
    container: Any = {
        "type": "auto",
        "network_policy": {
            "type": "allowlist",
            "allowed_domains": ["example.com"],
            "domain_secrets": [{"domain": "example.com", "name": "key", "value": SECRET}],
        },
    }
    desk = Agent[Any](
        name="desk/refunds",
        instructions=instructions,
        handoff_description="Refunds.",
        model="large",
        model_settings=ModelSettings(
            temperature=0.25,
            extra_headers={"Authorization": SECRET},
            extra_body={"key": SECRET},
            extra_query={"key": SECRET},
            extra_args={"api_key": SECRET},
            metadata={"team": SECRET},
        ),
        output_guardrails=[without_numbers],
        mcp_servers=servers,
        mcp_config={"convert_schemas_to_strict": True},
        **{
            "output_type": Answer,
            "input_guardrails": [polite],
            "tools": [
                changed.pop("refund", refund),
                look_up,
                scribe.as_tool(tool_name="write", tool_description="Write it."),
                CustomTool(name="note", description="Notes.", on_invoke_tool=run_nothing),
                ShellTool(executor=run_nothing, needs_approval=True),
                HostedMCPTool(hosted, on_approval_request=words),
                FileSearchTool(["vs_1"]),
                WebSearchTool(),
                CodeInterpreterTool({"type": "code_interpreter", "container": container}),
            ],
            **changed,
        },
    )
    front = Agent[Any](
        name="front",
        prompt={"id": "pmpt_1", "variables": {"shop": "ours"}},
        handoffs=[
            handoff(desk, input_filter=brief, on_handoff=ordered, input_type=Order),
        ],
    )
    desk.handoffs = [front]
    config = RunConfig(
        model_settings=ModelSettings(max_tokens=99, extra_headers={"X-Run": SECRET}),
        input_guardrails=[polite],
        handoff_input_filter=brief,
    )
    return Registry(roots=[front], run_config=config)
