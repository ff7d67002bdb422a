"""What the SDK does for OpenAI's own address alone: brought to a server of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx2
import pytest
from agents import Agent, OpenAIProvider, function_tool
from openai import AsyncOpenAI

from perdure.engine import Engine
from tests.engine_support import approve, quick_retries, rested, running
from tests.loopback.replies import Asked, Item, Rule, call, in_turn, text
from tests.loopback.served import MODEL
from tests.loopback.server import KEY, Loopback, loopback
from tests.loopback.troubles import Cut


class _OpenAI(httpx2.AsyncBaseTransport):
    """Brings what is meant for api.openai.com to a server of ours."""

    def __init__(self, server: Loopback) -> None:
        self._there = httpx2.URL(server.url)
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.host == "api.openai.com"
        request.url = request.url.copy_with(
            scheme="http", host=self._there.host, port=self._there.port
        )
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def official(
    url: str, rule: Rule, agent: Agent[None], *, api: str = "responses"
) -> AsyncIterator[tuple[Engine, Loopback]]:
    """An engine whose client is OpenAI's, as it comes, and the server it really talks to."""
    async with (
        loopback(rule) as server,
        httpx2.AsyncClient(transport=_OpenAI(server)) as http,
        AsyncOpenAI(api_key=KEY, base_url="https://api.openai.com/v1", http_client=http) as client,
        running(
            url,
            agent,
            model_provider=OpenAIProvider(openai_client=client, use_responses=api == "responses"),
        ) as engine,
    ):
        yield engine, server


def _pays(asked: Asked) -> Sequence[Item]:
    return [text("Paid.")] if asked.outputs else [call("pay", "call_1", cents=300)]


async def test_it_is_given_one_cache_key_a_run(database_url: str) -> None:
    """It sends requests of one key to one place, where what they share is cached."""

    @function_tool(needs_approval=True)
    async def pay(cents: int) -> str:
        return "paid"

    agent = Agent(name="a", model=MODEL, tools=[pay])
    async with official(database_url, _pays, agent) as (engine, server):
        run = await rested(engine, "a")
        other = await rested(engine, "a")
        first, of_another = (one.asked.body["prompt_cache_key"] for one in server.requests)
    async with official(database_url, _pays, agent) as (engine, server):
        run = await approve(engine, await engine.get(run.id))
        assert run.output == "Paid."
        [request] = server.requests
    assert request.asked.body["prompt_cache_key"] == first
    assert of_another != first
    assert other.status == "interrupted"


async def test_a_chat_that_ends_without_a_reason_was_cut(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(name="a", model=MODEL)
    with quick_retries(monkeypatch):
        async with official(database_url, in_turn("whole"), agent, api="chat") as (engine, server):
            server.trouble(Cut(2, "ended"), Cut(0, "ended"))
            run = await rested(engine, "a")
            assert (run.error, run.output) == (None, "whole")
            assert len(server.requests) == 3
            assert run.data["usage"]["requests"] == 1
