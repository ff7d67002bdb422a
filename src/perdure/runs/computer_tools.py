"""Computer tools: each computer call is a tool call, its outcome the screenshot at its end.

The SDK makes one call's actions one after the other, and one call after the other; a model may
ask for several calls at once, so only the first of them begins with its reply. A call that does
nothing but look is a ``read`` one, unless the tool is marked. A person who says that a call was
done has no screenshot to show: one is taken then, as a call of its own that only looks.

The computer a tool makes for a run lives as long as an execution, through all of its states.
Safety checks are callbacks as hooks are: after a crash they are asked again.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from agents import ComputerProvider, ComputerTool, ToolOutputImage, UserError
from openai.types.responses import ResponseComputerToolCall

from perdure.ledger.effects import Effect, effect_of
from perdure.ledger.outputs import decode_output, encode_output
from perdure.runs.execution import current_execution, current_scope, scope_text
from perdure.runs.gates import refusal
from perdure.runs.native_tools import serve_native
from perdure.runs.outcomes import Call
from perdure.runs.sdk import Act, computer_config, serve_computer_calls

NAME = "computer_use_preview"
"""What the SDK calls every computer tool."""

_LOOKING = frozenset({"screenshot", "wait"})
_PNG = "data:image/png;base64,"
_MARK = "__perdure_effect__"


def wrap_computer_tool(tool: ComputerTool[Any]) -> ComputerTool[Any]:
    """Return the durable form of ``tool``."""
    _serve_all()
    given = {
        field.name: getattr(tool, field.name) for field in dataclasses.fields(tool) if field.init
    }
    computer, create, dispose = computer_config(tool)
    given["computer"] = computer if create is None else _for_an_execution(create, dispose)
    given[_MARK] = getattr(tool, _MARK, None)
    kind: Any = type(tool)
    durable: ComputerTool[Any] = _durable(kind)(**given)
    return durable


@functools.cache
def _durable(kind: Any) -> Any:
    # The SDK copies the tool for each run that makes its own computer, field by field: the mark
    # has to be one of them.
    mark = (_MARK, "Effect | None", dataclasses.field(default=None, kw_only=True))
    return dataclasses.make_dataclass("DurableComputerTool", [mark], bases=(kind,), eq=False)


@functools.cache
def _serve_all() -> None:
    serve_computer_calls(_serve)


def actions_of(call: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the actions of a ``computer_call`` item, JSON: a batch, or the one of older models."""
    actions = call.get("actions") or [call.get("action")]
    return [dict(action) for action in actions if isinstance(action, Mapping)]


def effect_of_actions(tool: Any, actions: Sequence[Mapping[str, Any]], default: Effect) -> Effect:
    """Return the class of a call of ``tool`` (None: it is gone) with these actions."""
    looks = bool(actions) and all(action.get("type") in _LOOKING for action in actions)
    return effect_of(tool, Effect.READ if looks else default)


async def _serve(
    tool_call: ResponseComputerToolCall, actions: list[Any], computer: Any, act: Act
) -> str:
    execution = current_execution.get()
    if execution is None:
        return await act()
    plain = [action.model_dump(mode="json", exclude_unset=True) for action in actions]
    recorded = execution.call(scope_text(current_scope.get()), tool_call.call_id)
    call = Call(
        tool_call.call_id,
        NAME,
        "computer",
        # The tool is not known here; its class is in the row the reply's commit made.
        recorded.effect if recorded is not None else execution.default_effect,
        {"actions": plain},
    )
    refused = await refusal(call.call_id, NAME, {"actions": plain})
    if refused is not None:
        # As where a safety check is not acknowledged: there is no screenshot to say it with.
        raise UserError(refused)
    screenshot = await serve_native(call, act, _encode, _decode)
    if screenshot is None:
        look = Call(f"{call.call_id}:screenshot", NAME, "computer", Effect.READ, _LOOK)
        screenshot = await serve_native(look, computer.screenshot, _encode, _decode)
    return str(screenshot or "")


_LOOK: dict[str, Any] = {"actions": [{"type": "screenshot"}]}


def _encode(screenshot: Any) -> dict[str, Any]:
    return encode_output(ToolOutputImage(image_url=f"{_PNG}{screenshot or ''}"))


def _decode(stored: dict[str, Any]) -> str | None:
    """Return a stored screenshot, None for what a person said instead."""
    image = decode_output(stored) if stored.get("type") == "content" else None
    return str(image.image_url).removeprefix(_PNG) if isinstance(image, ToolOutputImage) else None


def _for_an_execution(create: Any, dispose: Any) -> ComputerProvider[Any]:
    """Return a provider whose computers outlive the states an execution goes on from.

    The SDK disposes of a computer, and makes another, wherever a run is left at a state and goes
    on from it; to its user that is one run. Runs beneath tool calls have computers of their own.
    """
    own = object()

    async def create_once(*, run_context: Any) -> Any:
        execution = current_execution.get()
        if execution is None or current_scope.get():
            return await _awaited(create(run_context=run_context))
        if own not in execution.computers:
            made = await _awaited(create(run_context=run_context))
            execution.computers[own] = made
            if dispose is not None:
                execution.at_end.append(lambda: dispose(run_context=run_context, computer=made))
        return execution.computers[own]

    async def dispose_unless_kept(*, run_context: Any, computer: Any) -> None:
        execution = current_execution.get()
        kept = execution is not None and execution.computers.get(own) is computer
        if dispose is not None and not kept:
            await _awaited(dispose(run_context=run_context, computer=computer))

    return ComputerProvider(create=create_once, dispose=dispose_unless_kept)


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
