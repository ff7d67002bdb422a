"""The tools that are plain callables, wrapped once: custom, shell and patch tools.

Computer tools have a module of their own. Hosted tools run at the provider and are left as they
are; only where the program answers for a person whether one may, policies are heard first.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from agents import (
    ApplyPatchTool,
    CustomTool,
    HostedMCPTool,
    LocalShellTool,
    ShellExecutor,
    ShellTool,
)
from agents.editor import ApplyPatchOperation
from agents.tool import Tool
from agents.tool_context import ToolContext

from perdure.interruptions.digest import parse_object
from perdure.ledger.effects import Effect, effect_of
from perdure.ledger.native_outputs import decode_patch, decode_shell, encode_patch, encode_shell
from perdure.ledger.outputs import decode_output, encode_output
from perdure.runs.effects import perform
from perdure.runs.execution import Execution, current_execution, current_scope, scope_text
from perdure.runs.gates import Gate, asked_on_approval, refusal
from perdure.runs.outcomes import Call, Outcome, ended_with
from perdure.runs.probing import probe_for


def wrap_native_tool(tool: Tool) -> Tool:
    """Return the durable form of ``tool``, or ``tool`` itself when nothing of it runs here."""
    match tool:
        case CustomTool():
            return _custom_tool(tool)
        case ShellTool(executor=executor) if executor is not None:
            return _shell_tool(tool, executor)
        case LocalShellTool():
            return _local_shell_tool(tool)
        case ApplyPatchTool():
            return _apply_patch_tool(tool)
        case HostedMCPTool(on_approval_request=answer) if answer is not None:
            return _answered_hosted_tool(tool, answer)
        case _:
            return tool


def _answered_hosted_tool(tool: HostedMCPTool, answer: Callable[[Any], Any]) -> HostedMCPTool:
    """Return ``tool``, whose approvals the program answers, so that policies are heard first."""
    outer = copy.copy(tool)

    @functools.wraps(answer)
    async def on_approval_request(request: Any) -> Any:
        asked = request.data
        refused = await refusal(asked.id, asked.name, parse_object(asked.arguments))
        if refused is not None:
            return {"approve": False, "reason": refused}
        return await _maybe_await(answer(request))

    outer.on_approval_request = on_approval_request
    return outer


async def _maybe_await(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def serve_native(
    call: Call,
    invoke: Callable[[], Any],
    encode: Callable[[Any], dict[str, Any]],
    decode: Callable[[dict[str, Any]], Any],
) -> Any:
    """Serve a tool that is a plain callable: custom, shell, patch and computer tools."""
    execution = current_execution.get()
    if execution is None:
        return await _maybe_await(invoke())

    async def run() -> Outcome:
        try:
            value = await _maybe_await(invoke())
            return Outcome(value=value, stored=encode(value))
        except BaseException as error:  # noqa: BLE001 - recorded, then raised again
            return ended_with(error)

    if call.effect is Effect.NESTED:
        call = dataclasses.replace(call, effect=execution.default_effect)
    outcome = await perform(execution, call, run, decode)
    if outcome.raised is not None:
        raise outcome.raised
    return outcome.value


_UNMARKED = Effect.NESTED
"""Stands for "not marked" until the execution's default is known: native tools never nest."""


def _custom_tool(tool: CustomTool) -> CustomTool:
    outer = copy.copy(tool)
    invoke = tool.on_invoke_tool

    async def on_invoke_tool(ctx: ToolContext[Any], text: str) -> Any:
        call = Call(
            ctx.tool_call_id,
            tool.name,
            "custom",
            effect_of(tool, _UNMARKED),
            arguments_raw=text,
            probe=probe_for(tool, "custom"),
        )
        return await serve_native(call, lambda: invoke(ctx, text), encode_output, decode_output)

    outer.on_invoke_tool = on_invoke_tool
    _gate(outer, lambda text: {"input": text})
    return outer


def _shell_tool(tool: ShellTool, executor: ShellExecutor) -> ShellTool:
    outer = copy.copy(tool)

    async def execute(request: Any) -> Any:
        arguments = dataclasses.asdict(request.data.action)
        call = Call(
            request.data.call_id,
            tool.name,
            "shell",
            effect_of(tool, _UNMARKED),
            arguments,
            probe=probe_for(tool, "shell"),
        )
        return await serve_native(call, lambda: executor(request), encode_shell, decode_shell)

    outer.executor = execute
    _gate(outer, dataclasses.asdict)
    return outer


def _local_shell_tool(tool: LocalShellTool) -> LocalShellTool:
    outer = copy.copy(tool)
    executor = tool.executor

    async def execute(request: Any) -> Any:
        arguments = request.data.action.model_dump(mode="json", exclude_unset=True)
        call = Call(
            request.data.call_id,
            tool.name,
            "local_shell",
            effect_of(tool, _UNMARKED),
            arguments,
            probe=probe_for(tool, "local_shell"),
        )
        refused = await refusal(call.call_id, tool.name, arguments)
        if refused is not None:
            return await _refused(call, refused)
        return await serve_native(call, lambda: executor(request), encode_output, decode_output)

    outer.executor = execute
    return outer


async def _refused(call: Call, words: str) -> Any:
    """Answer a call that a policy keeps from being made with ``words``, and record it so."""
    execution = current_execution.get()
    assert execution is not None  # noqa: S101 - policies count in durable runs alone

    async def refuse() -> Outcome:
        return Outcome(
            value=words, stored=encode_output(words), error=words, error_type="PolicyDenied"
        )

    if call.effect is Effect.NESTED:
        call = dataclasses.replace(call, effect=execution.default_effect)
    return (await perform(execution, call, refuse, decode_output)).value


def _apply_patch_tool(tool: ApplyPatchTool) -> ApplyPatchTool:
    outer = copy.copy(tool)
    outer.editor = _Editor(tool)
    _gate(outer, _patch_arguments)
    return outer


def _gate(outer: Any, plain: Callable[[Any], dict[str, Any]]) -> None:
    """Let policies stand before the tool's own gate, in place."""
    outer.needs_approval = Gate(outer.needs_approval, outer.name, plain)
    outer.on_approval = asked_on_approval(outer.on_approval, outer.name)


def _patch_arguments(operation: ApplyPatchOperation) -> dict[str, Any]:
    arguments = {"type": operation.type, "path": operation.path}
    if operation.diff is not None:
        arguments["diff"] = operation.diff
    return arguments


class _Editor:
    """An editor whose operations are tool calls.

    The SDK does not tell an editor which call it serves: the call is the first one of this scope
    not yet served that asked for this very operation.
    """

    def __init__(self, tool: ApplyPatchTool) -> None:
        self._tool = tool

    async def create_file(self, operation: ApplyPatchOperation) -> Any:
        """Create a file, once."""
        return await self._edit("create_file", operation)

    async def update_file(self, operation: ApplyPatchOperation) -> Any:
        """Change a file, once."""
        return await self._edit("update_file", operation)

    async def delete_file(self, operation: ApplyPatchOperation) -> Any:
        """Delete a file, once."""
        return await self._edit("delete_file", operation)

    async def _edit(self, method: str, operation: ApplyPatchOperation) -> Any:
        arguments = _patch_arguments(operation)
        execution = current_execution.get()
        call_id = "" if execution is None else _patch_call_id(execution, arguments)
        tool = self._tool
        call = Call(
            call_id,
            tool.name,
            "apply_patch",
            effect_of(tool, _UNMARKED),
            dict(arguments),
            probe=probe_for(tool, "apply_patch"),
        )
        edit = getattr(tool.editor, method)
        return await serve_native(call, lambda: edit(operation), encode_patch, decode_patch)


def _patch_call_id(execution: Execution, arguments: dict[str, str]) -> str:
    scope = scope_text(current_scope.get())
    for (call_scope, call_id), call in execution.journal.calls.items():
        is_open = not call.served and call.status not in ("rejected", "awaiting_approval")
        if call_scope == scope and call.kind == "apply_patch" and is_open:
            asked = call.arguments or {}
            if all(asked.get(key) == value for key, value in arguments.items()):
                call.served = True
                return call_id
    # A patch that came as a function or custom call may hold several operations.
    return f"{arguments['type']}:{arguments['path']}:{len(execution.started)}"
