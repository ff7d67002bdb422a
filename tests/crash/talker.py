"""Runs whose model talks for a while, and never twice the same, as models do."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from agents import Agent, function_tool

from perdure import Engine, effect
from perdure.runs import quarantine
from tests.engine_support import RuleModel, replies_in
from tests.streaming_support import streamed

REPLIES = 4
PIECES = 120
PIECE_SECONDS = 0.002


class Talker(RuleModel):
    """Streams text of its own making, then calls ``look``; the last reply is text alone."""

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **rest: Any
    ) -> AsyncIterator[Any]:
        items = [] if isinstance(input, str) else list(input)
        n = replies_in(items)

        async def pace() -> None:
            # A provider's: there is nothing to wait for but time.
            await asyncio.sleep(PIECE_SECONDS)

        said: list[Any] = []
        for _ in range(PIECES):
            said += [f"{secrets.token_hex(2)} ", pace]
        if n < REPLIES - 1:
            said.append(("call", "look", f"c{n}", "{}"))
        async for event in streamed(said):
            yield event


@effect("idempotent")
@function_tool
async def look() -> str:
    """Look."""
    return "seen"


def talker() -> Agent[Any]:
    """The agent of these runs."""
    return Agent(name="talker", model=Talker(lambda _: []), tools=[look])


def at_work(url: str) -> AbstractAsyncContextManager[Any]:
    """A worker of such runs on the database of ``url``, inside the block."""
    # Here it is not the run that kills its workers, however often they die.
    quarantine.MOST_STALLED = 10**6
    return Engine(agents=[talker()]).running(url=url, migrate_first=False)
