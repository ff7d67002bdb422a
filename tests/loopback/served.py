"""An engine whose models are behind HTTP, and the server of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent, OpenAIProvider
from openai import AsyncOpenAI

from perdure.engine import Engine, Run
from tests.engine_support import running
from tests.loopback.replies import Rule
from tests.loopback.server import KEY, Loopback, loopback

MODEL = "gpt-5.6-luna"


@asynccontextmanager
async def provider_of(server: Loopback, *, api: str = "responses") -> AsyncIterator[OpenAIProvider]:
    """The Agents SDK's own provider, with a real client of ``server``, as a program makes it."""
    async with AsyncOpenAI(base_url=server.url, api_key=KEY) as client:
        yield OpenAIProvider(openai_client=client, use_responses=api == "responses")


@asynccontextmanager
async def served(
    url: str, rule: Rule, *agents: Agent[Any], api: str = "responses", **options: Any
) -> AsyncIterator[tuple[Engine, Loopback]]:
    """An engine of ``agents``, or of one called ``a`` with these options, and the server.

    ``api`` is ``responses`` or ``chat``, the one the engine's client speaks.
    """
    for agent in agents:
        agent.model = MODEL
    async with (
        loopback(rule) as server,
        provider_of(server, api=api) as provider,
        running(
            url,
            *(agents or [Agent(name="a", model=MODEL, **options)]),
            model_provider=provider,
        ) as engine,
    ):
        yield engine, server


def assert_failed(run: Run, words: str) -> None:
    """The run failed by its model, and says what the provider said."""
    assert run.status == "failed"
    assert run.error is not None
    assert run.error["type"] == "model_error"
    assert words in run.error["message"]
