"""The graph's tools, wrapped once: each call goes through its row (see effects.py).

A wrapper replaces the tool in its agent's list for good and does nothing outside a durable run.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from contextvars import ContextVar
from typing import Any

from agents import ComputerTool, FunctionTool, ToolTimeoutError
from agents.tool import Tool, ToolErrorFunction, _FailureHandlingFunctionToolInvoker
from agents.tool_context import ToolContext

from perdure.errors import ConfigurationError
from perdure.ledger.effects import Effect, effect_of, probe_of
from perdure.ledger.outputs import decode_output, encode_output
from perdure.runs.computer_tools import wrap_computer_tool
from perdure.runs.edits import edit_of, guarding_edits, told
from perdure.runs.effects import perform
from perdure.runs.execution import Execution, current_execution
from perdure.runs.gates import gate_all_function_tools
from perdure.runs.native_tools import wrap_native_tool
from perdure.runs.outcomes import Call, Outcome, as_exception, ended_with, raised
from perdure.runs.probing import probe_for
from perdure.runs.proposals import kind_of
from perdure.runs.sdk import (
    SYNC_TOOL_MARKER,
    forget_nested_run,
    invoke_function_tool,
    mark_default_failure,
    nested_interruptions,
)

_WRAPPED = "__perdure_wrapped__"

_handled_error: ContextVar[list[Exception] | None] = ContextVar("perdure_handled", default=None)


def wrap_tool(tool: Tool) -> Tool:
    """Return the durable form of ``tool``; hosted tools come back as they are.

    Raises:
        ConfigurationError: for a probe on a tool whose calls it could not be asked about.
    """
    gate_all_function_tools()
    if isinstance(tool, FunctionTool):
        return tool if isinstance(tool.on_invoke_tool, _Invoker) else _function_tool(tool)
    if getattr(tool, _WRAPPED, False):
        # Agents that are clones share their list of tools.
        return tool
    if kind_of(tool) is None and probe_of(tool) is not None:
        raise ConfigurationError(
            f"A {type(tool).__name__} takes no probe: function, shell, patch and custom tools do."
        )
    if isinstance(tool, ComputerTool):
        outer: Tool = wrap_computer_tool(tool)
    else:
        outer = wrap_native_tool(tool)
    if outer is not tool:
        setattr(outer, _WRAPPED, True)
    return outer


_SIGNATURE = inspect.Signature(
    [
        inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=ToolContext),
        inspect.Parameter("input", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=str),
    ]
)


class _Invoker(_FailureHandlingFunctionToolInvoker):
    """Stands in a wrapped tool's ``on_invoke_tool``; ``inner`` is the tool as it was."""

    def __init__(self, inner: FunctionTool) -> None:
        self.inner = inner
        invoker = inner.on_invoke_tool
        impl = getattr(invoker, "_invoke_tool_impl", invoker)
        super().__init__(impl, lambda *_: None)
        # The SDK looks at the signature at each call; finding it on a callable object is slow.
        self.__signature__ = _SIGNATURE
        self.__annotations__: dict[str, Any] = {}
        if getattr(invoker, SYNC_TOOL_MARKER, False):
            setattr(self, SYNC_TOOL_MARKER, True)

    def __agents_bind_function_tool__(self, function_tool: FunctionTool) -> _Invoker:
        return self

    async def __call__(self, ctx: ToolContext[Any], input: str) -> Any:
        execution = current_execution.get()
        if execution is None:
            output, from_sdk = await invoke_function_tool(self.inner, ctx, input)
            if from_sdk:
                mark_default_failure(ctx)
            return output
        edited = edit_of(ctx)
        outcome = await self._perform(execution, ctx, input if edited is None else edited)
        if outcome.raised is not None:
            raise outcome.raised
        if edited is not None and outcome.final:
            outcome.value, outcome.from_sdk = told(outcome.value, edited), True
        if outcome.from_sdk:
            mark_default_failure(ctx)
        return outcome.value

    async def _perform(self, execution: Execution, ctx: ToolContext[Any], input: str) -> Outcome:
        tool = self.inner
        adapter = tool._output_type_adapter
        nested = tool._is_agent_tool

        async def run() -> Outcome:
            handled: list[Exception] = []
            token = _handled_error.set(handled)
            try:
                value, from_sdk = await invoke_function_tool(tool, ctx, input)
            except BaseException as error:  # noqa: BLE001 - recorded, then raised again
                return ended_with(error)
            finally:
                _handled_error.reset(token)
            if nested and nested_interruptions(ctx):
                # It returned normally because it waits for people: there is no outcome yet.
                return Outcome(value=value, final=False)
            if from_sdk and not handled and tool.timeout_seconds is not None:
                handled.append(ToolTimeoutError(tool.name, tool.timeout_seconds))
            failed = from_sdk or bool(handled)
            try:
                stored = encode_output(value, None if failed else adapter)
            except Exception as error:  # noqa: BLE001 - it has no words: the SDK finds none either
                return raised(error)
            return Outcome(
                value=value,
                stored=stored,
                error=str(handled[0]) if handled else str(value) if from_sdk else None,
                error_type=type(handled[0]).__name__ if handled else "ToolError",
                cause=handled[0] if handled else None,
                from_sdk=from_sdk,
            )

        kind = "agent" if nested else "mcp" if tool._mcp_tool_binding else "function"
        call = Call(
            call_id=ctx.tool_call_id,
            tool=tool.name,
            kind=kind,
            effect=Effect.NESTED if nested else effect_of(tool, execution.default_effect),
            arguments_raw=input,
            probe=probe_for(tool, kind),
        )
        outcome = await perform(execution, call, run, lambda stored: decode_output(stored, adapter))
        if outcome.stored is not None and outcome.stored.get("unknown"):
            # A sentence instead of a result, which no output type of the tool fits.
            outcome.from_sdk = True
        if nested and outcome.replayed:
            # The state the segment began at may still have it waiting for people.
            forget_nested_run(ctx)
        return outcome


def _function_tool(tool: FunctionTool) -> FunctionTool:
    inner = copy.copy(tool)
    invoker = inner.on_invoke_tool
    if isinstance(invoker, _FailureHandlingFunctionToolInvoker):
        inner.on_invoke_tool = _noticing(invoker, inner)
    if inner.timeout_error_function is not None:
        inner.timeout_error_function = _noticing_time_out(inner.timeout_error_function)
    outer = copy.copy(tool)
    outer.on_invoke_tool = _Invoker(inner)
    outer.tool_input_guardrails = guarding_edits(tool.tool_input_guardrails)
    # The time-out runs inside, where its message is recorded as the call's outcome.
    outer.timeout_seconds = None
    return outer


def _note(error: Exception) -> None:
    handled = _handled_error.get()
    if handled is not None:
        handled.append(error)


def _noticing_time_out(words: ToolErrorFunction) -> ToolErrorFunction:
    """Return ``words``, which makes the message of a time-out, noting the error it stands for."""

    async def noting(ctx: Any, error: Exception) -> str:
        _note(error)
        message = words(ctx, error)
        return await message if inspect.isawaitable(message) else message

    return noting


def _noticing(
    invoker: _FailureHandlingFunctionToolInvoker, tool: FunctionTool
) -> _FailureHandlingFunctionToolInvoker:
    """Return ``invoker`` for ``tool``, noting the errors the SDK turns into messages."""
    impl = invoker._invoke_tool_impl

    @functools.wraps(impl)
    async def noting(ctx: ToolContext[Any], arguments: str) -> Any:
        try:
            return await impl(ctx, arguments)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again, as an Exception
            failure = as_exception(error)
            _note(failure)
            raise failure  # noqa: B904 - it is chained already, or the very one

    bound = _FailureHandlingFunctionToolInvoker(
        noting, invoker._on_handled_error, function_tool=tool
    )
    if getattr(invoker, SYNC_TOOL_MARKER, False):
        setattr(bound, SYNC_TOOL_MARKER, True)
    return bound
