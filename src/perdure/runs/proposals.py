"""What a model reply asks for: the local tool calls in it, and whether it hands off.

The reply's commit may mark a call as begun when nothing stands between it and its effect: a
known tool, no gate (its own or a policy's, which have to be known without asking), no input
guardrail. All others get an intent of their own when they start.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from agents import ApplyPatchTool, ComputerTool, CustomTool, FunctionTool, LocalShellTool, ShellTool
from agents.handoffs import Handoff
from agents.tool import Tool

from perdure.db import uuid7
from perdure.interruptions.digest import parse_object
from perdure.ledger.effects import Effect, effect_of, idempotency_key
from perdure.ledger.journal import RecordedCall
from perdure.runs.computer_tools import NAME, actions_of, effect_of_actions
from perdure.runs.execution import Execution
from perdure.runs.gates import answer_for, as_object, gates, judge, own_gate, policies_known


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
    execution: Execution,
    scope: str,
    agent: str,
    output: Sequence[dict[str, Any]],
    tools: Sequence[Tool],
) -> list[ProposedCall]:
    """Return the local tool calls in a reply's output items, handoffs and hosted tools left out."""
    calls: list[ProposedCall] = []
    for item in output:
        call = _proposed(execution, scope, agent, item, tools)
        if call is None:
            continue
        if call.kind == "computer" and any(one.kind == "computer" for one in calls):
            # They are made one after the other: of what comes later nothing has begun.
            call = replace(call, status="proposed")
        calls.append(call)
    return calls


def _proposed(
    execution: Execution, scope: str, agent: str, item: dict[str, Any], tools: Sequence[Tool]
) -> ProposedCall | None:
    call_id = item.get("call_id") or item.get("id")
    if not isinstance(call_id, str) or not call_id:
        return None
    asked = _asked(item, tools)
    if asked is None:
        return None
    effect = _effect(asked, execution.default_effect)
    # What is answered from elsewhere is not made: begun, it would be in doubt after a crash.
    begins = (
        _begins_at_once(asked.tool, item)
        and not _answered(execution, scope, call_id, agent, asked, effect)
        and not _held_up(execution, scope, call_id, agent, asked, effect)
    )
    return ProposedCall(
        id=uuid7(),
        call_id=call_id,
        tool=asked.name,
        kind=asked.kind,
        arguments=asked.arguments,
        arguments_raw=asked.raw,
        effect=effect,
        status="executing" if begins else "proposed",
        idempotency_key=idempotency_key(execution.run_id, scope, call_id),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an item asks for: the tool, None where there is none any more, and what it is given."""

    kind: str
    name: str
    tool: Any
    arguments: dict[str, Any] | None = None
    raw: str | None = None


def _asked(item: dict[str, Any], tools: Sequence[Tool]) -> _Asked | None:
    name = str(item.get("name"))
    match item.get("type"):
        case "function_call":
            tool = _find(tools, FunctionTool, name)
            if tool is None:
                return None
            kind = "mcp" if tool._mcp_tool_binding else "function"
            kind = "agent" if tool._is_agent_tool else kind
            return _Asked(kind, name, tool, *_parse(item.get("arguments")))
        case "custom_tool_call":
            tool = _find(tools, CustomTool, name)
            return _Asked("custom", name, tool, None, str(item.get("input", "")))
        case "shell_call":
            tool = _find(tools, ShellTool)
            if tool is not None and tool.executor is None:
                return None
            return _native("shell", tool, item.get("action"))
        case "local_shell_call":
            return _native("local_shell", _find(tools, LocalShellTool), item.get("action"))
        case "apply_patch_call":
            return _native("apply_patch", _find(tools, ApplyPatchTool), item.get("operation"))
        case "computer_call":
            actions = {"actions": actions_of(item)}
            return _Asked("computer", NAME, _find(tools, ComputerTool), actions)
        case "mcp_approval_request":
            return _Asked("hosted_mcp", name, None, *_parse(item.get("arguments")))
    return None


def _native(kind: str, tool: Any, arguments: Any) -> _Asked:
    name = kind if tool is None else tool.name
    return _Asked(kind, name, tool, dict(arguments) if isinstance(arguments, dict) else None)


def _effect(asked: _Asked, default: Effect) -> Effect:
    if asked.kind == "agent":
        return Effect.NESTED
    if asked.kind == "computer" and asked.arguments is not None:
        return effect_of_actions(asked.tool, asked.arguments["actions"], default)
    return effect_of(asked.tool, default)


def _answered(
    execution: Execution, scope: str, call_id: str, agent: str, asked: _Asked, effect: Effect
) -> bool:
    if execution.inherited is None or effect is Effect.NESTED:
        return False
    answer = answer_for(
        *(execution, scope, call_id),
        agent=agent,
        tool=asked.name,
        kind=asked.kind,
        arguments=as_object(asked.kind, asked.arguments, asked.raw),
    )
    return answer is not None


def _held_up(
    execution: Execution, scope: str, call_id: str, agent: str, asked: _Asked, effect: Effect
) -> bool:
    return not policies_known(execution) or gates(
        judge(
            execution,
            scope,
            call_id,
            agent=agent,
            tool=asked.name,
            arguments=as_object(asked.kind, asked.arguments, asked.raw),
            effect=effect,
            kind=asked.kind,
        )
    )


def _begins_at_once(tool: Any, item: dict[str, Any]) -> bool:
    if tool is None or own_gate(tool) is not False:
        return False
    if item.get("pending_safety_checks") and getattr(tool, "on_safety_check", None) is not None:
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
