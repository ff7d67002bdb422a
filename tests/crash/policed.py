"""A run whose policies answer for people: one call is denied, one allowed that would have waited.

Nobody is asked: the run goes from segment to segment in the transactions in which it rests.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from agents import Agent, function_tool

from perdure import Engine, Policy
from tests.crash.scenario import RuleModel, _begin, _call, _message

OUTPUT = "shipped; Never."


@function_tool(needs_approval=True)
async def ship() -> str:
    """Do something that must not happen twice."""
    _begin("ship")
    return "shipped"


@function_tool
async def erase() -> str:
    """Do something that must not happen at all."""
    _begin("erase")
    return "erased"


def _rule(outputs: dict[str, str]) -> list[Any]:
    if "c1" not in outputs:
        return [_call("ship", "c1"), _call("erase", "c2")]
    return [_message(f"{outputs['c1']}; {outputs['c2']}")]


def at_work(url: str) -> AbstractAsyncContextManager[Any]:
    """A worker of such runs on the database of ``url``, inside the block."""
    agent = Agent(name="policed", model=RuleModel("policed", _rule), tools=[ship, erase])
    policies = [
        Policy("fine", tool="ship", then="allow"),
        Policy("never", tool="erase", then="deny", message="Never."),
    ]
    return Engine(agents=[agent], policies=policies).running(url=url, migrate_first=False)
