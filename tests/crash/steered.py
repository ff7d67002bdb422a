"""A run that is talked to at four moments: while it is queued, while a tool runs, while one runs
that a person approved, and while the model says what was to be its last word.

Each message has an idempotency key, so that whoever dies in between says it once. The model calls
``listen`` and ``pay``, says "enough?", and in the end repeats what it was told; what users had said
in each request is in the log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent, function_tool

from perdure import Engine, effect
from perdure.runs.execution import current_execution
from tests.crash.scenario import RuleModel, _begin, _call, _message, at, log

MESSAGES = ("queued", "listening", "paying", "ending")
OUTPUT = json.dumps(["go", *MESSAGES])


class _Listener(RuleModel):
    """Says what it does; adds the last message while it is asked for the last time."""

    def __init__(self) -> None:
        super().__init__("steered", None)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **rest: Any
    ) -> AsyncIterator[Any]:
        if len(_outputs(input)) == 2 and MESSAGES[3] not in _said(input):
            await say(MESSAGES[3])
        async for event in super().stream_response(system_instructions, input, *args, **rest):
            yield event

    def _ask(self, model_input: Any) -> list[Any]:
        said, outputs = _said(model_input), _outputs(model_input)
        log("asked", said=said, outputs=outputs)
        at("asked steered")
        if not outputs:
            return [_call("listen", "c1")]
        if len(outputs) == 1:
            return [_call("pay", "c2")]
        return [_message(json.dumps(said) if MESSAGES[3] in said else "enough?")]


def _items(given: Any) -> list[Any]:
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given)


def _said(given: Any) -> list[str]:
    return [item["content"] for item in _items(given) if item.get("role") == "user"]


def _outputs(given: Any) -> list[str]:
    return [item["call_id"] for item in _items(given) if item.get("type") == "function_call_output"]


_engine: Engine | None = None


async def say(message: str) -> None:
    """Add a message to the only run there is, once however often; returns when its worker knows."""
    execution = current_execution.get()
    assert _engine is not None
    assert execution is not None
    async with _engine.pool.connection() as conn:
        [row] = await (await conn.execute("SELECT id FROM perdure.runs")).fetchall()
    run = await _engine.get(row["id"])
    await run.add_input(message, idempotency_key=message)
    async with asyncio.timeout(10):
        while not execution.inputs_waiting:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)


@effect("read")
@function_tool
async def listen() -> str:
    """Be told something meanwhile."""
    _begin("listen")
    await say(MESSAGES[1])
    at("effect listen said")
    return "listened"


@effect("idempotent")
@function_tool(needs_approval=True)
async def pay() -> str:
    """Be told something meanwhile, once a person agreed."""
    _begin("pay")
    await say(MESSAGES[2])
    at("effect pay said")
    return "paid"


@asynccontextmanager
async def at_work(url: str) -> AsyncIterator[Any]:
    """A worker of the scenario on the database of ``url``, inside the block."""
    global _engine
    _engine = Engine([Agent(name="steered", model=_Listener(), tools=[listen, pay])])
    async with _engine.running(url=url, migrate_first=False) as running:
        yield running
