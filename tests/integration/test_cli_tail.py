"""``perdure runs tail`` and ``--follow``: the real command, a run that lives through a lot."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from agents.testing import assistant_message

from perdure import effect
from perdure.access.keys import create_key
from perdure.events import Event
from perdure.runs.asking import StreamCut
from tests.engine_support import (
    Gate,
    call,
    other_worker,
    quick_retries,
    replies_in,
    running,
)
from tests.events_support import check_log, log_of
from tests.following import following, run_to_end
from tests.loopback.api import serving
from tests.sdk_stream_support import StreamedModel, thought

HOSTILE = "13:00:00 completed \x1b[2J\u202e!"


@effect("read")
@function_tool
async def find(order: str) -> str:
    """Find an order."""
    return f"order {order}: 4900 cents"


@function_tool(needs_approval=True)
async def refund(cents: int) -> str:
    """Pay."""
    return f"refunded {cents}"


def _replies(items: list[Any]) -> list[Any]:
    return [
        [thought("First the order."), call("ask_clerk", "k1", input="where is order 7?")],
        [
            assistant_message(f"One moment, please.\n{HOSTILE} " + "and so on " * 6),
            call("refund", "r1", cents=4900),
        ],
        [assistant_message("Your refund of 49 euros is on its way.")],
    ][replies_in(items)]


def _clerk(items: list[Any]) -> list[Any]:
    if replies_in(items):
        return [assistant_message("It was delivered.")]
    return [call("find", "f1", order="7")]


async def test_a_run_is_followed_through_all_that_happens_to_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mid_sentence = Gate()

    async def cut() -> None:
        raise StreamCut("gone")

    # The third word of the second reply, the second of the third.
    model = StreamedModel(_replies, {10: mid_sentence.stop})
    clerk = Agent(name="clerk", model=StreamedModel(_clerk), tools=[find])
    teller = Agent(name="teller", model=model, tools=[clerk.as_tool("ask_clerk", "Ask."), refund])
    failing = Agent(name="failing", model=StreamedModel(lambda _: RuntimeError("no model today")))
    with quick_retries(monkeypatch):
        async with running(database_url, teller, failing) as engine:
            async with engine.pool.connection() as conn:
                key = (await create_key(conn)).secret
            run = await engine.start("teller", "hi")
            async with serving(engine.api()) as server:
                env = {"PERDURE_URL": server.url, "PERDURE_API_KEY": key}
                tail = ("runs", "tail", run.id)
                async with (
                    following(env, *tail, "--json") as as_json,
                    following(env, *tail) as piped,
                    following(env, *tail, terminal=True) as seen,
                ):
                    # Live: what the model has begun to say stands there while it says it.
                    await mid_sentence.reached()
                    await seen.until("teller: One moment,")
                    # Its worker dies: another one asks anew, and the run comes to its question.
                    async with other_worker(engine, database_url) as other:
                        assert await other.run(UUID(run.id), 1) == "interrupted"
                    for one in (as_json, piped, seen):
                        await one.until("refund")
                    await run.refresh()
                    [question] = run.interruptions
                    await seen.until(f"perdure approve {question.id}")
                    # The server goes away, and comes back.
                    await server.kill()
                    await asyncio.gather(
                        *(one.until("is away; waiting for it", note=True) for one in (piped, seen))
                    )
                    model.pauses[model.pieces + 3] = cut
                    async with serving(engine.api(), server.port):
                        await engine.decide(question.id, "approve", digest=question.digest)
                        ends = [one.ended() for one in (as_json, piped, seen)]
                        assert await asyncio.gather(*ends) == [0, 0, 0]
                        late, rest, failed = await asyncio.gather(
                            run_to_end(env, *tail),
                            run_to_end(env, *tail, "--after", str(len(as_json.lines))),
                            run_to_end(env, "runs", "start", "failing", "x", "--follow", code=1),
                        )
                log = await log_of(engine.pool, run.id)
                check_log(log, "completed")
    print(piped.said)
    print(seen.said)
    print(late.said)
    print(rest.said)
    print(failed.said)
    assert [Event.of(json.loads(line)) for line in as_json.said.splitlines()] == log
    assert 0
