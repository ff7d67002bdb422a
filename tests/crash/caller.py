"""A program that starts a run, or decides one, and may be killed at one of its own statements."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents import Agent, function_tool
from psycopg import AsyncConnection

from perdure import Engine
from tests.engine_support import call, turns

KEY = "order 42"


@function_tool(needs_approval=True)
async def pay(cents: int) -> str:
    """Pay."""
    return f"paid {cents}"


def make_engine() -> Engine:
    """The agent that is started and decided."""
    model = turns([call("pay", "c1", cents=5)], "done")
    return Engine([Agent(name="payer", model=model, tools=[pay])])


def main(caller: str, url: str, arguments: dict[str, Any], n: int, when: str) -> None:
    """Call ``start`` or ``decide`` and die before or after the n-th statement, if there is one."""
    asyncio.run(_call(caller, url, arguments, n, when))
    Path(arguments["log"]).write_text("returned")


class _Killer:
    """Counts statements and ends of transactions, and kills this process at one of them."""

    def __init__(self, n: int, when: str) -> None:
        self._n = n
        self._when = when
        self._seen = 0

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        self._seen += 1
        self._at("before")
        yield
        self._at("after")

    def _at(self, moment: str) -> None:
        if moment == self._when and self._seen == self._n:
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


async def _call(caller: str, url: str, arguments: dict[str, Any], n: int, when: str) -> None:
    engine = make_engine()
    async with engine.running(url=url, migrate_first=False, worker=False):
        _Killer(n, when).install()
        if caller == "start":
            await engine.start("payer", "go", idempotency_key=KEY)
        else:
            await engine.decide(arguments["id"], "approve", digest=arguments["digest"])
