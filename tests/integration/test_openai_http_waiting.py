"""Waiting for a provider: how long, what ends it, and who decides to ask again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, ModelRetrySettings, ModelSettings, retry_policies

from perdure.runs import asking
from tests.engine_support import SECONDS, quick_retries, records, rested
from tests.loopback.replies import call, in_turn
from tests.loopback.served import MODEL, assert_failed, served
from tests.loopback.troubles import DOWN, Refused, Silence

NO_END = 10**6
"""More events than any reply has."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quick_retries(monkeypatch):
        yield


async def test_a_stream_that_does_not_end_after_its_reply_is_left(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_END_SECONDS", 0.01)
    async with served(database_url, in_turn("whole")) as (engine, server):
        server.trouble(Silence(NO_END))
        run = await rested(engine, "a")
        assert (run.status, run.output) == ("completed", "whole")
        async with asyncio.timeout(SECONDS):
            await server.requests[0].gone.wait()


@pytest.mark.parametrize("header", ["retry-after", "retry-after-ms"])
async def test_the_provider_says_how_long_to_wait(
    database_url: str, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    # By our own measure it would be forever.
    monkeypatch.setattr(asking, "FIRST_DELAY_SECONDS", 10_000.0)
    monkeypatch.setattr(asking, "MAX_DELAY_SECONDS", 10_000.0)
    said = "0.2" if header == "retry-after" else "200"
    async with served(database_url, in_turn("there")) as (engine, server):
        server.trouble(Refused(429, None, "slow down", headers={header: said}))
        run = await rested(engine, "a")
        assert run.output == "there"
        first, second = server.requests
    assert second.at - first.at >= 0.2


async def test_nobody_waits_for_hours(database_url: str) -> None:
    async with served(database_url, in_turn("there")) as (engine, server):
        server.trouble(Refused(429, None, "come back tomorrow", headers={"retry-after": "7200"}))
        run = await rested(engine, "a")
        assert_failed(run, "come back tomorrow")
        assert len(server.requests) == 1


SILENCES = {"before the head": Silence(), "in the middle": Silence(6)}


@pytest.mark.parametrize("name", sorted(SILENCES))
async def test_a_run_is_cancelled_while_its_model_is_silent(database_url: str, name: str) -> None:
    async with served(database_url, in_turn("never")) as (engine, server):
        server.trouble(SILENCES[name])
        run = await engine.start("a", "hi")
        request = await server.request(1)
        await request.silent.wait()
        began = time.monotonic()
        await engine.cancel(run.id)
        await run.wait(SECONDS)
        assert run.status == "cancelled"
        async with asyncio.timeout(SECONDS):
            await request.gone.wait()
        assert time.monotonic() - began < 1.0
        assert len(server.requests) == 1
        assert await records(engine, run, "usage") == []


async def test_a_run_is_cancelled_while_the_model_of_a_nested_agent_is_silent(
    database_url: str,
) -> None:
    inner = Agent(name="inner", model=MODEL)
    tools = [inner.as_tool("ask", "Asks.")]
    rule = in_turn([call("ask", "call_1", input="hi"), call("ask", "call_2", input="hi")], "never")
    async with served(database_url, rule, tools=tools) as (engine, server):
        server.trouble(None, Silence(), Silence(0))
        run = await engine.start("a", "hi")
        requests = [await server.request(2), await server.request(3)]
        for request in requests:
            await request.silent.wait()
        began = time.monotonic()
        await engine.cancel(run.id)
        await run.wait(SECONDS)
        assert run.status == "cancelled"
        async with asyncio.timeout(SECONDS):
            for request in requests:
                await request.gone.wait()
        assert time.monotonic() - began < 1.0
        assert len(server.requests) == 3


async def test_a_run_is_cancelled_while_it_waits_to_ask_again(database_url: str) -> None:
    async with served(database_url, in_turn("never")) as (engine, server):
        server.trouble(Refused(429, None, "slow down", headers={"retry-after": "100"}))
        run = await engine.start("a", "hi")
        await server.request(1)
        began = time.monotonic()
        await engine.cancel(run.id)
        await run.wait(SECONDS)
        assert run.status == "cancelled"
        assert time.monotonic() - began < 1.0
        assert len(server.requests) == 1


async def test_a_worker_that_stops_hangs_up_and_another_asks(database_url: str) -> None:
    async with served(database_url, in_turn("never")) as (engine, server):
        server.trouble(Silence(6))
        run = await engine.start("a", "hi")
        first = await server.request(1)
        await first.silent.wait()
        run_id = run.id
    assert first.gone.is_set()
    async with served(database_url, in_turn("there")) as (engine, server):
        run = await (await engine.get(run_id)).wait(SECONDS)
        assert (run.status, run.output) == ("completed", "there")
        assert run.data["usage"]["requests"] == len(server.requests) == 1


def own_retries(**more: Any) -> ModelSettings:
    """Settings with the SDK's retries in them."""
    return ModelSettings(
        retry=ModelRetrySettings(
            backoff={"initial_delay": 0.0, "max_delay": 0.0, "jitter": False}, **more
        )
    )


OWN = {
    "its own": (own_retries(max_retries=2, policy=retry_policies.http_status([500])), 3),
    "none": (own_retries(max_retries=0), 1),
    "no policy": (own_retries(max_retries=2), asking.MAX_RETRIES + 1),
    "only a pause": (own_retries(), asking.MAX_RETRIES + 1),
}


@pytest.mark.parametrize("name", sorted(OWN))
async def test_one_layer_retries_whatever_the_agents_settings_say(
    database_url: str, name: str
) -> None:
    settings, requests = OWN[name]
    async with served(database_url, in_turn("never"), model_settings=settings) as (engine, server):
        server.trouble_for_ever(DOWN)
        run = await rested(engine, "a")
        assert_failed(run, DOWN.message)
        assert len(server.requests) == requests


async def test_a_time_limit_of_the_users_own_is_a_model_error(database_url: str) -> None:
    settings = ModelSettings(timeout=0.2)
    async with served(database_url, in_turn("never"), model_settings=settings) as (engine, server):
        server.trouble_for_ever(Silence(6))
        run = await rested(engine, "a")
        assert_failed(run, "timed out after 0.2 seconds")
        async with asyncio.timeout(SECONDS):
            await server.requests[0].gone.wait()
