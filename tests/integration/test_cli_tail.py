"""``perdure runs tail`` and ``--follow``: the real command, a run that lives through a lot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from agents import Agent, function_tool
from typer.testing import CliRunner

from perdure import effect
from perdure.access.keys import create_key
from perdure.cli.app import app
from perdure.events import Event
from perdure.runs.asking import StreamCut
from tests.cli_following import Following, following, plain, without_times
from tests.engine_support import Gate, call, other_worker, quick_retries, running, turns
from tests.events_support import check_log, log_of
from tests.loopback.api import serving
from tests.streaming_support import StreamingModel

# What a model writes that would like to be taken for us.
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


async def _command(env: dict[str, str], *words: str) -> tuple[int, str]:
    """Run a command to its end, in this process."""
    result = await asyncio.to_thread(CliRunner().invoke, app, words, env=env)
    return result.exit_code, result.stdout


async def test_a_run_is_followed_through_all_that_happens_to_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mid_sentence = Gate()
    watching: asyncio.Future[Following] = asyncio.get_running_loop().create_future()

    def shown(text: str) -> Callable[[], Awaitable[None]]:
        """What the model waits for: an outcome commits beside what it says next."""

        async def until() -> None:
            await (await asyncio.shield(watching)).until(text)

        return until

    look = [
        ("reasoning", "First ", "the order."),
        ("call", "ask_clerk", "k1", '{"input": ', '"Where?"}'),
    ]
    moment = ["One ", "moment, ", "please.\n", f"{HOSTILE} ", "and so on " * 6]
    teller = Agent(
        name="teller",
        model=StreamingModel(
            *([], [], ["Your ", "refund of 49 euros is ", "on its way."]),
            before=[
                look,
                [shown("ask_clerk gave"), "One ", "moment, ", mid_sentence.stop],
                [*moment, ("call", "refund", "r1", '{"cents": 4900}')],
                [
                    shown("refund gave"),
                    *("Your ", "wrong ", shown("Your wrong "), StreamCut("gone")),
                ],
            ],
        ),
    )
    answers = turns([call("find", "f1", order="7")], "It was delivered.")
    clerk = Agent(name="clerk", model=answers, tools=[find])
    teller.tools = [clerk.as_tool("ask_clerk", "Ask."), refund]
    failing = Agent(name="failing", model=StreamingModel([RuntimeError("no model today")]))
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
                    watching.set_result(seen)
                    # Live: what the model has begun to say stands there while it says it.
                    await seen.until("teller: One moment, ")
                    # Its worker dies: another one asks anew, and the run comes to its question.
                    async with other_worker(engine, database_url) as other:
                        assert await other.run(UUID(run.id), 1) == "interrupted"
                    mid_sentence.open()
                    [question] = (await run.refresh()).interruptions
                    await as_json.until('"event": "run.interrupted"')
                    for one in (piped, seen):
                        await one.until(f"perdure approve {question.id}")
                    # The server goes away, and comes back.
                    await server.kill()
                    for one in (as_json, piped, seen):
                        await one.until("is away; waiting for it", note=True)
                    async with serving(engine.api(), server.port):
                        await engine.decide(question.id, "approve", digest=question.digest)
                        for one in (as_json, piped, seen):
                            assert await one.ended() == 0, one.notes
                        assert "The server is back." in seen.notes
                        late = await _command(env, *tail)
                        ids = [json.loads(line)["id"] for line in as_json.said.splitlines()]
                        rest = await _command(env, *tail, "--after", str(ids[-1]))
                        failed = await _command(env, "runs", "start", "failing", "x", "--follow")
                log = await log_of(engine.pool, run.id)
    check_log(log, "completed")
    assert [Event.of(json.loads(line)) for line in as_json.said.splitlines()] == log

    told = without_times(piped.said)
    assert told == _expected(question.id)
    assert without_times(late[1]) == told
    # Who begins at the end is given the output.
    assert rest == (0, "Your refund of 49 euros is on its way.\n")
    assert failed[0] == 1
    assert without_times(failed[1])[-1] == "T failed: model_error: RuntimeError: no model today"

    # On a terminal the same, with what was void before it was known to be.
    assert "\x1b[2m" in seen.said
    assert "\x1b[2J" not in seen.said
    screen = without_times(plain(seen.said))
    assert all(len(line) < 60 or "perdure approve" in line for line in screen)
    wrapped = [
        "T teller: One moment, please.",
        r"         13:00:00 completed \x1b[2J\u202e! and so on and so",
        "         on and so on and so on and so on and so on ",
    ]
    at = told.index("T its worker died; the reply begins anew")
    until = told.index("T the provider failed; the reply begins anew")
    assert screen == [
        *told[:at],
        "T teller: One moment, ",
        *told[at : at + 2],
        *wrapped,
        *told[at + 4 : until],
        "T teller: Your wrong ",
        *told[until:],
    ]


def _expected(question: str) -> list[str]:
    return [
        "T queued",
        "T started",
        "T teller thinks: First the order.",
        "T teller: turn 1, 15 tokens, N s",
        'T ask_clerk({"input": "Where?"})',
        'T ask_clerk > find({"order": "7"})',
        "T ask_clerk > find gave order 7: 4900 cents",
        "T ask_clerk gave It was delivered.",
        "T its worker died; the reply begins anew",
        "T another worker took it up",
        "T teller: One moment, please.",
        r"         13:00:00 completed \x1b[2J\u202e! " + "and so on " * 6,
        "T teller: turn 2, 60 tokens, N s",
        "T waits for you: refund wants to be approved",
        f"         perdure approve {question}",
        "T refund: approved by program",
        "T queued",
        "T goes on",
        'T refund({"cents": 4900})',
        "T refund gave refunded 4900",
        "T the provider failed; the reply begins anew",
        "T teller: Your refund of 49 euros is on its way.",
        "T teller: turn 3, 75 tokens, N s",
        "T completed",
    ]
