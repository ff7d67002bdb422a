"""A cancellation as its readers see it: over HTTP, whatever the run is in the middle of."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from agents import Agent, Model, ModelResponse, function_tool

from perdure.access.principals import local_principal
from perdure.engine import Engine, Run
from tests.engine_support import SECONDS, Gate, calls_of, completed_event, running, turns
from tests.engine_support import call as calls
from tests.integration.api.test_server import served


class _Endless(Model):
    """Begins to answer and does not end."""

    def __init__(self) -> None:
        self.gate = Gate()

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        raise NotImplementedError

    async def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        await self.gate.stop()
        yield completed_event([])


class _Reader:
    """Follows a run over HTTP; knows when each event came."""

    def __init__(self, client: httpx.AsyncClient, run: Run) -> None:
        self._client = client
        self._path = f"/v1/runs/{run.id}"
        self.came: dict[str, float] = {}
        self.events: list[dict[str, Any]] = []
        self.connected = asyncio.Event()

    async def follow(self) -> None:
        async with self._client.stream("GET", f"{self._path}/events", timeout=SECONDS) as response:
            self.connected.set()
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    self.events.append(event)
                    self.came[event["event"]] = time.monotonic()

    async def cancel(self) -> float:
        """Cancel; return the seconds from there until the stream said so, and ended."""
        following = asyncio.create_task(self.follow())
        await self.connected.wait()
        began = time.monotonic()
        answer = await self._client.post(f"{self._path}/cancel")
        assert answer.status_code == 202, answer.text
        async with asyncio.timeout(SECONDS):
            await following
        assert self.events[-1]["event"] == "run.cancelled"
        return self.came["run.cancelled"] - began


@asynccontextmanager
async def _client(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    async def anybody(_: Any) -> Any:
        return local_principal()

    async with (
        served(engine.api(authenticate=anybody)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


async def test_cancelled_shows_at_once_wherever_the_run_is(database_url: str) -> None:
    """Deadlines are generous: what it takes on a quiet machine stands in docs/streaming.md."""
    working, tidying = Gate(), Gate()
    thread, thread_may_end = threading.Event(), threading.Event()
    endless = _Endless()

    @function_tool
    async def work() -> str:
        await working.stop()
        return "did"

    @function_tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    @function_tool
    async def cling() -> str:
        # Does not let itself be cut off.
        try:
            await working.stop()
        except asyncio.CancelledError:
            return "clung"
        return "did"

    @function_tool
    async def tidy() -> str:
        try:
            await working.stop()
        finally:
            await tidying.stop()
        return "did"

    @function_tool
    def block() -> str:
        thread.set()
        thread_may_end.wait(SECONDS)
        return "blocked"

    agents: list[Agent[Any]] = [
        Agent(name="stream", model=endless),
        Agent(name="tool", model=turns([calls("work", "c1")]), tools=[work]),
        Agent(name="clinging", model=turns([calls("cling", "c1")], "done"), tools=[cling]),
        Agent(name="tidying", model=turns([calls("tidy", "c1")], "done"), tools=[tidy]),
        Agent(name="parked", model=turns([calls("pay", "c1")]), tools=[pay]),
        Agent(name="thread", model=turns([calls("block", "c1")]), tools=[block]),
    ]
    took: dict[str, float] = {}
    async with running(database_url, *agents) as engine, _client(engine) as client:
        run = await engine.start("stream", "hi", delay_seconds=3600)
        took["queued"] = await _Reader(client, run).cancel()

        run = await (await engine.start("parked", "hi")).wait(SECONDS)
        took["interrupted"] = await _Reader(client, run).cancel()

        run = await engine.start("stream", "hi")
        await endless.gate.reached()
        took["in a model's answer"] = await _Reader(client, run).cancel()

        run = await engine.start("tool", "hi")
        await working.reached()
        took["in a tool"] = await _Reader(client, run).cancel()
        assert (await calls_of(engine, run))["c1"]["status"] == "uncertain"

        for agent in ("clinging", "tidying"):
            working.shut()
            run = await engine.start(agent, "hi")
            await working.reached()
            took[agent] = await _Reader(client, run).cancel()
            tidying.open()

        # A thread cannot be cut, and is not waited for either: what it does is not known.
        run = await engine.start("thread", "hi")
        await asyncio.to_thread(thread.wait, SECONDS)
        try:
            took["in a thread"] = await _Reader(client, run).cancel()
        finally:
            thread_may_end.set()
        assert (await calls_of(engine, run))["c1"]["status"] == "uncertain"
    assert max(took.values()) < 10, took
