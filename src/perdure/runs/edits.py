"""Calls that people approved with other arguments than the model wrote.

The SDK knows the model's arguments only. Here the tool and its guardrails see those that were
approved, and the model reads what was executed.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agents import ToolInputGuardrail, ToolOutputText
from agents.tool_context import ToolContext
from agents.tool_guardrails import ToolInputGuardrailData

from perdure.ledger.outputs import is_content
from perdure.runs.execution import current_execution, current_scope, scope_text

__all__ = ["edit_of", "guarding_edits", "told"]


def edit_of(context: ToolContext[Any]) -> str | None:
    """Return the arguments a call is to run with, as JSON text, where they were edited.

    The call's context has them from then on.
    """
    execution = current_execution.get()
    if execution is None:
        return None
    approval = execution.approvals.get((scope_text(current_scope.get()), context.tool_call_id))
    edited = None if approval is None else approval.amended
    if edited is not None:
        context.tool_arguments = edited
        # What the SDK has read of the model's.
        context._function_tool_arguments = None
    return edited


def guarding_edits(
    guardrails: Sequence[ToolInputGuardrail[Any]] | None,
) -> list[ToolInputGuardrail[Any]] | None:
    """Return input guardrails that look at what will run, edited or not."""
    return None if guardrails is None else [_guarding(guardrail) for guardrail in guardrails]


def _guarding(guardrail: ToolInputGuardrail[Any]) -> ToolInputGuardrail[Any]:
    look = guardrail.guardrail_function

    @functools.wraps(look)
    async def looking(data: ToolInputGuardrailData) -> Any:
        edit_of(data.context)
        seen = look(data)
        return await seen if inspect.isawaitable(seen) else seen

    return replace(guardrail, guardrail_function=looking)


def told(value: Any, edited: str) -> Any:
    """Return a tool's output ``value`` with what was executed beside it, for the model to read."""
    note = (
        "(A person changed the arguments before approving this call. It was executed with: "
        f"{edited})"
    )
    if is_content(value):
        parts = value if isinstance(value, list) else [value]
        return [*parts, ToolOutputText(text=note)]
    if isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            text = str(value)
    return f"{text}\n\n{note}"
