"""A run that pays in three ways of which nobody can know at once whether they happened.

``charge`` may happen once and can be looked up, ``pay`` is the same and never answers the first
time, ``send`` takes a key and never answers the first time. What happened is in the log, where the
probe looks.
"""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from agents import Agent, function_tool

from perdure import Done, Engine, effect, tool_call
from tests.crash.scenario import LOG, RuleModel, _begin, _call, _message, at, log, read_log

TOOLS = ("charge", "pay", "send")
OUTPUT = "charged; paid; sent"


async def _look(key: str) -> Done | bool:
    call = tool_call()
    log("probe", call_id=call.call_id, key=key)
    at(f"probe {call.call_id}")
    for line in read_log(Path(os.environ[LOG])):
        if line["kind"] == "effect" and line["key"] == key:
            return Done({"c1": "charged", "c2": "paid"}[call.call_id])
    return False


@effect("at_most_once", probe=_look)
@function_tool
async def charge() -> str:
    """Do something that must not happen twice and can be looked up."""
    at("before charge")
    _begin("charge")
    return "charged"


@effect("at_most_once", probe=_look)
@function_tool
async def pay() -> str:
    """Do the same, but never say so."""
    _begin("pay")
    raise TimeoutError("no answer")


@effect("idempotent")
@function_tool
async def send() -> str:
    """Send something with a key, and say so the second time."""
    _begin("send")
    if tool_call().attempt == 1:
        raise ConnectionResetError("reset")
    return "sent"


def _rule(outputs: dict[str, str]) -> list[Any]:
    for n, name in enumerate(TOOLS, 1):
        if f"c{n}" not in outputs:
            return [_call(name, f"c{n}")]
    return [_message("; ".join(outputs[f"c{n}"] for n in (1, 2, 3)))]


def at_work(url: str) -> AbstractAsyncContextManager[Any]:
    """A worker of the till on the database of ``url``, inside the block."""
    agent = Agent(name="till", model=RuleModel("till", _rule), tools=[charge, pay, send])
    return Engine(agents=[agent]).running(url=url, migrate_first=False)
