"""The work every contestant does: one tool call a turn, for a model that answers at once.

A run of n turns is n replies with one tool call each and a last one with text. The model keeps
no state: which turn it is asked for follows from its input, so runs may share it and a run may go
on in another process.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from agents import Agent, Model, ModelResponse, Usage, function_tool, set_tracing_disabled
from agents.tool import FunctionTool
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

AGENT = "worker"
TALKER = "talker"
TOOL = "look_up"

set_tracing_disabled(True)


def prompt(turns: int, tool_bytes: int) -> str:
    """Return the input of a run: what the model and the tool are to do."""
    return json.dumps({"turns": turns, "bytes": tool_bytes})


def expected(turns: int) -> str:
    """Return what the final output of a run of ``turns`` turns begins with."""
    return f"done after {turns} turns"


def turn_of(model_input: str | list[Any]) -> int:
    """Return which turn is asked for, from 0: each one before added a call and its output."""
    return 0 if isinstance(model_input, str) else (len(model_input) - 1) // 2


class AtOnce(Model):
    """A model that answers at once, streamed or not.

    ``before`` is awaited with the turn before each answer; a benchmark that kills a run in the
    middle of a turn waits there.
    """

    def __init__(self, before: Callable[[int], Awaitable[None]] | None = None) -> None:
        self._before = before

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[Any],
        *args: Any,
        **kwargs: Any,
    ) -> ModelResponse:
        if self._before is not None:
            await self._before(turn_of(input))
        usage = Usage(requests=1, input_tokens=100, output_tokens=20, total_tokens=120)
        return ModelResponse(output=[_answer(input)], usage=usage, response_id="response")

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[Any],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        if self._before is not None:
            await self._before(turn_of(input))
        response = _RESPONSE.model_copy(update={"output": [_answer(input)]})
        yield _COMPLETED.model_copy(update={"response": response})


class Talker(Model):
    """A model that says so many tokens at some speed; each is the moment it is said."""

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise NotImplementedError("It is streamed.")

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[Any],
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        task = json.loads(input if isinstance(input, str) else input[0]["content"])
        said: list[str] = []
        due = time.monotonic() + task["after"]
        for _ in range(task["tokens"]):
            await asyncio.sleep(max(due - time.monotonic(), 0))
            due += 1 / task["per_second"]
            token = f"{time.monotonic():.6f} "
            said.append(token)
            yield _TOKEN.model_copy(update={"delta": token})
        response = _RESPONSE.model_copy(update={"output": [message("".join(said))]})
        yield _COMPLETED.model_copy(update={"response": response})


_TOKEN = ResponseTextDeltaEvent(
    type="response.output_text.delta",
    content_index=0,
    delta="",
    item_id="message",
    logprobs=[],
    output_index=0,
    sequence_number=0,
)
_USAGE = ResponseUsage(
    input_tokens=100,
    output_tokens=20,
    total_tokens=120,
    input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
    output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
)


# Made once and copied: building them anew costs more than the rest of an answer.
_RESPONSE = Response(
    id="response",
    created_at=0,
    model="at-once",
    object="response",
    output=[],
    tool_choice="auto",
    tools=[],
    parallel_tool_calls=True,
    usage=_USAGE,
)
_COMPLETED = ResponseCompletedEvent(
    type="response.completed", response=_RESPONSE, sequence_number=0
)


def _answer(model_input: str | list[Any]) -> ResponseFunctionToolCall | ResponseOutputMessage:
    task = json.loads(model_input if isinstance(model_input, str) else model_input[0]["content"])
    turn = turn_of(model_input)
    if turn < task["turns"]:
        arguments = json.dumps({"turn": turn, "size": task["bytes"]})
        return ResponseFunctionToolCall(
            type="function_call", call_id=f"call_{turn}", name=TOOL, arguments=arguments
        )
    # The moment tells a benchmark when the last reply was asked for.
    return message(f"{expected(turn)} at {time.monotonic()}")


def message(text: str) -> ResponseOutputMessage:
    """Return what a model says last."""
    return ResponseOutputMessage(
        id="message",
        type="message",
        role="assistant",
        status="completed",
        content=[ResponseOutputText(type="output_text", text=text, annotations=[])],
    )


async def look_up(turn: int, size: int) -> str:
    """Look something up; the answer has ``size`` characters."""
    return "x" * size


def tool(body: Callable[..., Any] = look_up, *, gated: bool = False) -> FunctionTool:
    """Return the agent's one tool; ``gated``: a person has to approve each call."""
    return function_tool(name_override=TOOL, needs_approval=gated)(body)


async def moment(turn: int, size: int) -> str:
    """Return the moment the tool ran, on the clock every process of the machine shares."""
    return str(time.monotonic())


def agent(
    tool_: FunctionTool | None = None,
    before: Callable[[int], Awaitable[None]] | None = None,
) -> Agent[Any]:
    """Return a new agent: one that is wrapped for a contestant serves no other."""
    return Agent(
        name=AGENT,
        instructions="Look everything up, one thing at a time.",
        model=AtOnce(before),
        tools=[tool_ if tool_ is not None else tool()],
    )


def talker() -> Agent[Any]:
    """Return an agent that does nothing but talk."""
    return Agent(name=TALKER, model=Talker())


def stop_at(turn: int, reached: Callable[[], None]) -> Callable[[int], Awaitable[None]]:
    """Return a ``before`` that never answers turn ``turn`` (from 1), and says so by ``reached``."""

    async def before(asked: int) -> None:
        if asked + 1 == turn:
            reached()
            await asyncio.get_running_loop().create_future()

    return before
