"""A program that starts, decides, forks or replays something, and may be killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from agents import Agent, function_tool
from psycopg import AsyncConnection

from perdure import Engine
from perdure.access.principals import Principal, local_principal
from tests.engine_support import call, turns

KEY = "order 42"


@function_tool(needs_approval=True)
async def pay(cents: int) -> str:
    """Pay."""
    return f"paid {cents}"


def make_engine() -> Engine:
    """The agent that is started and decided, and one to talk to."""
    model = turns([call("pay", "c1", cents=5)], "done")
    talker = Agent(name="talker", model=turns("first", "second", "third"))
    return Engine([Agent(name="payer", model=model, tools=[pay]), talker])


def main(caller: str, url: str, arguments: dict[str, Any], n: int, when: str) -> None:
    """Do what ``caller`` says and die before or after the n-th step, if there is one.

    Who lives writes how many there were.
    """
    seen = asyncio.run(_call(caller, url, arguments, n, when))
    Path(arguments["log"]).write_text(str(seen))


class _Killer:
    """Counts statements and ends of transactions, and kills this process at one of them."""

    def __init__(self, n: int, when: str) -> None:
        self._n = n
        self._when = when
        self.seen = 0

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        self.seen += 1
        self._at("before")
        yield
        self._at("after")

    def _at(self, moment: str) -> None:
        if moment == self._when and self.seen == self._n:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        killer = self
        execute, transaction = AsyncConnection.execute, AsyncConnection.transaction

        async def executed(conn: Any, *args: Any, **rest: Any) -> Any:
            async with killer.step():
                return await execute(conn, *args, **rest)

        @asynccontextmanager
        async def in_transaction(conn: Any, *args: Any, **rest: Any) -> AsyncIterator[Any]:
            inner = transaction(conn, *args, **rest)
            given = await inner.__aenter__()
            try:
                yield given
            except BaseException:
                await inner.__aexit__(*sys.exc_info())
                raise
            async with killer.step():
                await inner.__aexit__(None, None, None)

        AsyncConnection.execute = executed  # type: ignore[method-assign,assignment]
        AsyncConnection.transaction = in_transaction  # type: ignore[method-assign,assignment]


async def _anybody(_: Any) -> Principal:
    return local_principal()


async def _call(caller: str, url: str, arguments: dict[str, Any], n: int, when: str) -> int:
    engine = make_engine()
    async with engine.running(url=url, migrate_first=False, worker=False):
        killer = _Killer(n, when)
        killer.install()
        if caller == "start":
            await engine.start("payer", "go", idempotency_key=KEY)
        elif caller == "fork":
            await engine.fork(arguments["run"], input="more", idempotency_key=KEY)
        elif caller == "replay":
            transport = httpx.ASGITransport(engine.api(authenticate=_anybody))
            async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
                path = f"/v1/sessions/{arguments['session']}/replay"
                (await client.post(path, json={"agent": "talker"})).raise_for_status()
        else:
            await engine.decide(arguments["id"], "approve", digest=arguments["digest"])
        return killer.seen
