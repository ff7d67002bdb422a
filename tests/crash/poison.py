"""Agents that end their process, and one that does no harm; the run's input says how often.

``poisoned`` is given numbers, ``"3 2"``: for each it calls ``boom`` once, which kills its process
so many times before it returns. ``99b3``: the first three of 99 times only where a run of ``slow``
is under way in the same process. ``hang`` in its place stops there for good instead, ``freeze``
with the whole interpreter. A file ``mended`` beside the log makes ``boom`` harmless. ``slow`` asks
a model that takes until there is a file ``go``, then ships; ``steady`` as well, and may ship twice.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from pathlib import Path
from typing import Any

from agents import Agent, function_tool

from perdure import Engine, effect, tool_call
from tests.crash.scenario import LOG, RuleModel, _call, _message, log, read_log

LOOK_SECONDS = 0.01


def beside_log(name: str) -> Path:
    """A file that tells processes something by being there."""
    return Path(os.environ[LOG]).with_name(name)


async def _until(what: Any) -> None:
    # What another process does is only seen by looking.
    while not what():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)


def _asked_here() -> bool:
    lines = read_log(Path(os.environ[LOG]))
    return any(line["kind"] == "waits" and line["pid"] == os.getpid() for line in lines)


@effect("idempotent")
@function_tool
async def boom(how: str) -> str:
    """End the process, so many times."""
    call = tool_call()
    log("boom", call_id=call.call_id, attempt=call.attempt)
    if beside_log("mended").exists():
        return "mended"
    if how == "hang":
        await asyncio.get_running_loop().create_future()
    if how == "freeze":
        ctypes.PyDLL(None).pause()
    deaths, _, beside = how.partition("b")
    if call.attempt <= int(deaths):
        if call.attempt <= int(beside or 0):
            await _until(_asked_here)
        os.kill(os.getpid(), signal.SIGKILL)
    return f"lived at attempt {call.attempt}"


@function_tool
async def ship() -> str:
    """Do something that must not happen twice."""
    log("shipped")
    return "shipped"


@effect("idempotent")
@function_tool(name_override="ship")
async def ship_again() -> str:
    """Do something that may happen twice."""
    return "shipped"


class PlanModel(RuleModel):
    """Calls ``boom`` for each word of the run's input, one a turn."""

    def _ask(self, model_input: Any) -> list[Any]:
        items = (
            [{"role": "user", "content": model_input}]
            if isinstance(model_input, str)
            else model_input
        )
        plan = str(items[0]["content"]).split()
        outputs = [item["output"] for item in items if item.get("type") == "function_call_output"]
        if len(outputs) < len(plan):
            return [_call("boom", f"c{len(outputs) + 1}", how=plan[len(outputs)])]
        return [_message("; ".join(map(str, outputs)))]


class SlowModel(RuleModel):
    """Takes its time for the first reply."""

    async def stream_response(self, *args: Any, **rest: Any) -> Any:
        if not beside_log("go").exists():
            log("waits")
            await _until(beside_log("go").exists)
        async for event in super().stream_response(*args, **rest):
            yield event


def _slow_rule(outputs: dict[str, str]) -> list[Any]:
    return [_message(outputs["s1"])] if outputs else [_call("ship", "s1")]


def make_engine() -> Engine:
    """Return an engine that no other process finds."""
    return Engine(
        agents=[
            Agent(name="poisoned", model=PlanModel("poisoned", None), tools=[boom]),
            Agent(name="slow", model=SlowModel("slow", _slow_rule), tools=[ship]),
            Agent(name="steady", model=SlowModel("steady", _slow_rule), tools=[ship_again]),
        ]
    )


engine = make_engine()
