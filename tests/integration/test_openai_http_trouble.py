"""Trouble between a run and its provider, made at the socket: what is asked again, and what not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest
from agents import Agent, function_tool

from perdure.access.principals import DEFAULT_TENANT
from perdure.runs import asking
from perdure.runs.resume import retry
from tests.engine_support import (
    SECONDS,
    calls_of,
    items_of,
    query,
    quick_retries,
    records,
    rested,
)
from tests.loopback.replies import Asked, Item, call, in_turn, text
from tests.loopback.served import assert_failed, served
from tests.loopback.troubles import (
    DOWN,
    NO_MONEY,
    RATE_LIMIT,
    TOO_LONG,
    Cut,
    Refused,
    Said,
    Trouble,
)
from tests.loopback.wire import chat_error, error_event

NO_END = 10**6
"""More events than any reply has."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quick_retries(monkeypatch):
        yield


class Looker:
    """A tool that notes how often it ran, and a rule that calls it and never says a thing twice."""

    def __init__(self) -> None:
        self.looked = 0
        self.replies = 0

        @function_tool
        async def look(where: str) -> str:
            self.looked += 1
            return f"saw {where}"

        self.tool = look

    def rule(self, asked: Asked) -> Sequence[Item]:
        self.replies += 1
        if not asked.outputs:
            return [call("look", f"call_{self.replies}", where="everywhere and nowhere")]
        return [text(f"Attempt {self.replies} saw it all.")]


def passing_trouble(api: str) -> dict[str, Trouble]:
    """Trouble that passes, by name."""
    # Some of the reply has come, not all.
    after = 6 if api == "responses" else 2
    common: dict[str, Trouble] = {
        "429": RATE_LIMIT,
        "500": DOWN,
        "503": Refused(503, None, "overloaded"),
        "reset at once": Cut(0),
        "reset": Cut(after),
        "closed": Cut(after, "closed"),
    }
    if api == "chat":
        return common | {
            "error within": Said(lambda _: chat_error(None, "it broke", "server_error"), 2),
            "error of a gateway": Said(lambda _: chat_error(502, "bad gateway", ""), 2),
        }
    return common | {
        "ended too soon": Cut(after, "ended"),
        "nothing at all": Cut(0, "ended"),
        "failed": Said(lambda reply: reply.failed("server_error", "it broke")),
        "limit within": Said(
            lambda _: error_event("rate_limit_exceeded", "slow down", "tokens", nested=True)
        ),
        "error within": Said(lambda _: error_event(None, "it broke", "server_error", nested=True)),
        "flat error within": Said(
            lambda _: error_event("server_error", "it broke", "", nested=False)
        ),
    }


PASSING = [(api, name) for api in ("responses", "chat") for name in passing_trouble(api)]


@pytest.mark.parametrize(("api", "name"), PASSING)
async def test_passing_trouble_costs_one_more_request_each_time(
    database_url: str, api: str, name: str
) -> None:
    looker = Looker()
    trouble = passing_trouble(api)[name]
    async with served(database_url, looker.rule, api=api, tools=[looker.tool]) as (engine, server):
        server.trouble(trouble, None, trouble, trouble)
        run = await rested(engine, "a")
        # The answer is the last attempt's alone, whatever others had begun to say.
        assert run.error is None
        assert run.output == f"Attempt {looker.replies} saw it all."
        assert looker.looked == 1
        assert len(server.requests) == 5
        # Beneath us nobody repeats anything.
        counts = [request.headers["x-stainless-retry-count"] for request in server.requests]
        assert counts == ["0"] * 5
        bodies = [request.asked.body for request in server.requests]
        assert bodies[0] == bodies[1]
        assert bodies[2] == bodies[3] == bodies[4]
        rows = await records(engine, run, "usage")
        items = await items_of(engine, run)
        ledger = await calls_of(engine, run)
        replies = await query(engine, "SELECT request_id FROM perdure.model_responses ORDER BY 1")
    assert [row["request_id"] for row in replies] == ["req_2", "req_5"]
    assert [row["requests"] for row in rows] == [1, 1]
    if api == "responses":
        assert [row["total_tokens"] for row in rows] == [1002 + 52, 1005 + 55]
    assert [item["type"] for item in items] == [
        "message",
        "tool_call",
        "tool_call_output",
        "message_output",
    ]
    assert [one["status"] for one in ledger.values()] == ["succeeded"]


async def test_a_reply_that_had_come_is_not_asked_for_again(database_url: str) -> None:
    """Cut after its last event: there is nothing to wish for."""
    async with served(database_url, in_turn("whole")) as (engine, server):
        server.trouble(Cut(NO_END))
        run = await rested(engine, "a")
        assert (run.status, run.output) == ("completed", "whole")
        assert len(server.requests) == 1


LASTING: dict[str, tuple[Trouble, str]] = {
    "429": (RATE_LIMIT, RATE_LIMIT.message),
    "500": (DOWN, DOWN.message),
    "closed": (Cut(6, "closed"), "peer closed connection"),
    "ended too soon": (Cut(6, "ended"), "ended before its reply was complete"),
    "failed": (Said(lambda reply: reply.failed("server_error", "it broke")), "it broke"),
    "error within": (
        Said(lambda _: error_event(None, "it broke", "server_error", nested=True)),
        "it broke",
    ),
}


@pytest.mark.parametrize("name", sorted(LASTING))
async def test_lasting_trouble_fails_the_run_in_the_providers_words(
    database_url: str, name: str
) -> None:
    trouble, words = LASTING[name]
    looker = Looker()
    async with served(database_url, looker.rule, tools=[looker.tool]) as (engine, server):
        server.trouble(None)
        server.trouble_for_ever(trouble)
        run = await rested(engine, "a")
        assert_failed(run, words)
        assert run.output is None
        assert len(server.requests) == 1 + 1 + asking.MAX_RETRIES
        assert run.data["usage"]["requests"] == 1
        assert run.data["usage"]["total_tokens"] == 1001 + 51
        # When the provider is well again, so is the run: from where it stood.
        server.trouble_for_ever(None)
        async with engine.pool.connection() as conn:
            await retry(conn, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id))
        await run.wait(SECONDS)
        assert (run.status, run.error) == ("completed", None)
        assert len(server.requests) == 1 + 1 + asking.MAX_RETRIES + 1
        assert looker.looked == 1
        assert run.data["usage"]["requests"] == 2


HOPELESS: dict[str, tuple[Trouble, str]] = {
    "400": (TOO_LONG, TOO_LONG.message),
    "401": (Refused(401, "invalid_api_key", "Incorrect API key provided"), "Incorrect API key"),
    "404": (Refused(404, "model_not_found", "There is no such model"), "no such model"),
    "quota": (NO_MONEY, NO_MONEY.message),
    "told not to": (
        Refused(500, None, "never again", headers={"x-should-retry": "false"}),
        "never again",
    ),
    "failed": (
        Said(lambda reply: reply.failed("context_length_exceeded", TOO_LONG.message)),
        TOO_LONG.message,
    ),
    "error within": (
        Said(lambda _: error_event(NO_MONEY.code, NO_MONEY.message, NO_MONEY.kind, nested=True)),
        NO_MONEY.message,
    ),
    "incomplete": (Said(lambda reply: reply.cut_off("max_output_tokens")), "max_output_tokens"),
}


@pytest.mark.parametrize("name", sorted(HOPELESS))
async def test_what_would_fail_again_is_not_asked_again(database_url: str, name: str) -> None:
    trouble, words = HOPELESS[name]
    async with served(database_url, in_turn("never")) as (engine, server):
        server.trouble_for_ever(trouble)
        run = await rested(engine, "a")
        assert_failed(run, words)
        assert len(server.requests) == 1


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_the_model_of_an_agent_used_as_a_tool(database_url: str, api: str) -> None:
    """It is asked without a stream: cut, half a body has come."""

    def rule(asked: Asked) -> Sequence[Item]:
        if "ask" not in asked.tools:
            return [text("inside")]
        return in_turn([call("ask", "call_1", input="hi")], "done")(asked)

    inner = Agent(name="inner", model="gpt-5.6-luna")
    tools = [inner.as_tool("ask", "Asks.")]
    async with served(database_url, rule, api=api, tools=tools) as (engine, server):
        failed = Said(lambda reply: reply.failed_whole("server_error", "it broke"), 0)
        server.trouble(
            None, RATE_LIMIT, DOWN, Cut(0), Cut(0, "closed") if api == "chat" else failed
        )
        run = await rested(engine, "a")
        assert (run.error, run.output) == (None, "done")
        assert server.requests[-1].asked.outputs == {"call_1": "inside"}
        assert len(server.requests) == 7
        counts = {request.headers["x-stainless-retry-count"] for request in server.requests}
        assert counts == {"0"}
        assert run.data["usage"]["requests"] == 3


async def test_an_agent_used_as_a_tool_whose_model_fails_for_good(database_url: str) -> None:
    """Its failure is the outcome of the call, which the agent above is told, as by the SDK."""

    def rule(asked: Asked) -> Sequence[Item]:
        return in_turn([call("ask", "call_1", input="hi")], "I could not ask.")(asked)

    inner = Agent(name="inner", model="gpt-5.6-luna")
    tools = [inner.as_tool("ask", "Asks.")]
    async with served(database_url, rule, tools=tools) as (engine, server):
        server.trouble(None, TOO_LONG)
        run = await rested(engine, "a")
        assert (run.status, run.output) == ("completed", "I could not ask.")
        ledger = await calls_of(engine, run)
    assert ledger["call_1"]["status"] == "failed"
    assert TOO_LONG.message in ledger["call_1"]["error"]["message"]
    assert len(server.requests) == 3
