"""What a model reply asks for: the local tool calls in it, and whether it hands off.

The reply's commit may mark a call as begun when nothing stands between it and its effect: a
known tool, no gate, no input guardrail. All others get an intent of their own when they start.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agents import ApplyPatchTool, CustomTool, FunctionTool, LocalShellTool, ShellTool
from agents.handoffs import Handoff
from agents.tool import Tool

from perdure.db import uuid7
from perdure.interruptions.digest import parse_object
from perdure.ledger.effects import Effect, effect_of, idempotency_key
from perdure.ledger.journal import RecordedCall
from perdure.runs.execution import Execution


@dataclass(frozen=True, slots=True)
class ProposedCall:
    """A tool call a reply asks for, as it is recorded with the reply."""

    id: UUID
    call_id: str
    tool: str
    kind: str
    arguments: dict[str, Any] | None
    arguments_raw: str | None
    effect: Effect
    status: str
    idempotency_key: str

    def as_row(self) -> dict[str, Any]:
        """Return the columns of its row."""
        return {
            "id": str(self.id),
            "call_id": self.call_id,
            "tool": self.tool,
            "kind": self.kind,
            "arguments": self.arguments,
            "arguments_raw": self.arguments_raw,
            "effect": self.effect.value,
            "status": self.status,
            "idempotency_key": self.idempotency_key,
        }

    def as_recorded(self, scope: str, agent: str) -> RecordedCall:
        """Return it as the journal keeps it."""
        return RecordedCall(
            id=self.id,
            scope=scope,
            call_id=self.call_id,
            tool=self.tool,
            kind=self.kind,
            agent=agent,
            effect=self.effect,
            status=self.status,
            attempt=1 if self.status == "executing" else 0,
            begun_here=self.status == "executing",
            arguments=self.arguments,
            arguments_raw=self.arguments_raw,
        )


def kind_of(tool: Tool) -> str | None:
    """Return the kind that calls of a local ``tool`` are recorded as, None of any other tool."""
    match tool:
        case FunctionTool():
            return (
                "agent" if tool._is_agent_tool else "mcp" if tool._mcp_tool_binding else "function"
            )
        case CustomTool():
            return "custom"
        case ShellTool():
            return "shell"
        case LocalShellTool():
            return "local_shell"
        case ApplyPatchTool():
            return "apply_patch"
        case _:
            return None


def hands_off(output: Sequence[dict[str, Any]], handoffs: Sequence[Handoff]) -> bool:
    """Whether a reply calls one of the handoffs it was offered."""
    names = {handoff.tool_name for handoff in handoffs}
    return bool(names) and any(
        item.get("type") == "function_call" and item.get("name") in names for item in output
    )


def proposed_calls(
    execution: Execution, scope: str, output: Sequence[dict[str, Any]], tools: Sequence[Tool]
) -> list[ProposedCall]:
    """Return the local tool calls in a reply's output items, handoffs and hosted tools left out."""
    calls = []
    for item in output:
        call = _proposed(execution, scope, item, tools)
        if call is not None:
            calls.append(call)
    return calls


def _proposed(
    execution: Execution, scope: str, item: dict[str, Any], tools: Sequence[Tool]
) -> ProposedCall | None:
    kind_of_item = item.get("type")
    call_id = item.get("call_id") or item.get("id")
    if not isinstance(call_id, str) or not call_id:
        return None
    tool: Any = None
    if kind_of_item == "function_call":
        name = str(item.get("name"))
        tool = _find(tools, FunctionTool, name)
        if tool is None:
            return None
        kind = "agent" if tool._is_agent_tool else "mcp" if tool._mcp_tool_binding else "function"
        arguments, raw = _parse(item.get("arguments"))
    elif kind_of_item == "custom_tool_call":
        name = str(item.get("name"))
        tool = _find(tools, CustomTool, name)
        kind, arguments, raw = "custom", None, str(item.get("input", ""))
    elif kind_of_item == "shell_call":
        tool = _find(tools, ShellTool)
        name = tool.name if tool is not None else "shell"
        if tool is not None and tool.executor is None:
            return None
        kind, arguments, raw = "shell", _object(item.get("action")), None
    elif kind_of_item == "local_shell_call":
        tool = _find(tools, LocalShellTool)
        kind, name, arguments, raw = "local_shell", "local_shell", _object(item.get("action")), None
    elif kind_of_item == "apply_patch_call":
        tool = _find(tools, ApplyPatchTool)
        name = tool.name if tool is not None else "apply_patch"
        kind, arguments, raw = "apply_patch", _object(item.get("operation")), None
    elif kind_of_item == "mcp_approval_request":
        kind, name = "hosted_mcp", str(item.get("name"))
        arguments, raw = _parse(item.get("arguments"))
    else:
        return None
    effect = Effect.NESTED if kind == "agent" else effect_of(tool, execution.default_effect)
    return ProposedCall(
        id=uuid7(),
        call_id=call_id,
        tool=name,
        kind=kind,
        arguments=arguments,
        arguments_raw=raw,
        effect=effect,
        status="executing" if _begins_at_once(tool) else "proposed",
        idempotency_key=idempotency_key(execution.run_id, scope, call_id),
    )


def _begins_at_once(tool: Any) -> bool:
    if tool is None or getattr(tool, "needs_approval", False) is not False:
        return False
    return not getattr(tool, "tool_input_guardrails", None)


def _find(tools: Sequence[Tool], kind: type[Any], name: str | None = None) -> Any:
    for tool in tools:
        if isinstance(tool, kind) and (name is None or tool.name == name):
            return tool
    return None


def _parse(text: Any) -> tuple[dict[str, Any] | None, str | None]:
    """Return (object, None) for a JSON object, else (None, the raw text)."""
    raw = text if isinstance(text, str) else json.dumps(text)
    value = parse_object(raw)
    return (None, raw) if value is None else (value, None)


def _object(value: Any) -> dict[str, Any] | None:
    return dict(value) if isinstance(value, dict) else None
