"""What tests of the engine share: a model that follows a rule, an engine, its rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

from agents import Agent, Model, ModelResponse, Usage, set_tracing_disabled
from agents.testing import assistant_message, function_call
from openai.types.responses import Response, ResponseCompletedEvent, ResponseUsage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from perdure.access.principals import DEFAULT_TENANT
from perdure.db import uuid7
from perdure.engine import Engine, Interruption, Run
from perdure.ledger.writer import LedgerWriter
from perdure.paging import PageRequest
from perdure.runs.records import Records, list_records
from perdure.runs.workflow import SegmentRunner

set_tracing_disabled(True)

SECONDS = 15.0
"""How long anything may take before a test fails: far more than it needs."""

Rule = Callable[[list[Any]], Any]
"""Input items in; output items, an exception to raise, or an awaitable of either out."""


class RuleModel(Model):
    """Answers by a rule on the input items, so that the order of calls does not matter.

    ``inputs`` are the inputs it was asked with, ``offered`` the names of the tools of each request
    that was streamed. Each reply costs 10 tokens in and 5 out.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.inputs: list[list[Any]] = []
        self.offered: list[list[str]] = []

    @property
    def asked(self) -> int:
        """How often it was asked."""
        return len(self.inputs)

    async def _reply(self, given: str | list[Any]) -> list[Any]:
        items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
        self.inputs.append(items)
        reply = self._rule(items)
        if isinstance(reply, Awaitable):
            reply = await reply
        if isinstance(reply, Exception):
            raise reply
        return list(reply)

    async def get_response(
        self, system_instructions: Any, input: Any, *args: Any, **rest: Any
    ) -> ModelResponse:
        usage = Usage(requests=1, input_tokens=10, output_tokens=5, total_tokens=15)
        return ModelResponse(await self._reply(input), usage, f"resp_{uuid7().hex}")

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **rest: Any
    ) -> AsyncIterator[Any]:
        _, tools, *_ = args
        self.offered.append(sorted(tool.name for tool in tools))
        output = await self._reply(input)
        yield completed_event(output)


def completed_event(output: Sequence[Any]) -> ResponseCompletedEvent:
    """The last event of a stream whose reply is ``output``."""
    return ResponseCompletedEvent(
        type="response.completed",
        sequence_number=0,
        response=Response(
            id=f"resp_{uuid7().hex}",
            created_at=0,
            model="rules",
            object="response",
            output=list(output),
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=True,
            usage=ResponseUsage(
                input_tokens=10,
                output_tokens=5,
                total_tokens=15,
                input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
                output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            ),
        ),
    )


def turns(*replies: Any) -> RuleModel:
    """A model whose n-th reply is the one to an input with n replies in it.

    A reply is a text or a list of output items; the last one is given for ever.
    """

    def rule(items: list[Any]) -> Any:
        reply = replies[min(replies_in(items), len(replies) - 1)]
        return [assistant_message(reply)] if isinstance(reply, str) else reply

    return RuleModel(rule)


def replies_in(items: Sequence[Any]) -> int:
    """How many replies of a model an input holds: runs of what a model says or calls."""
    count, within = 0, False
    for item in items:
        is_reply = item.get("role") == "assistant" or str(item.get("type", "")).endswith("_call")
        count += is_reply and not within
        within = is_reply
    return count


def outputs_in(items: Sequence[Any]) -> dict[str, Any]:
    """What tools returned, by call id, in an input."""
    return {
        item["call_id"]: item.get("output")
        for item in items
        if str(item.get("type", "")).endswith("_call_output")
    }


def call(name: str, call_id: str, /, **arguments: Any) -> Any:
    """A function call as a model asks for it."""
    return function_call(name, arguments, call_id=call_id)


@asynccontextmanager
async def running(url: str, *agents: Agent[Any], **options: Any) -> AsyncIterator[Engine]:
    """An engine of ``agents`` on the database of ``url``, with a worker, inside the block."""
    engine = Engine(list(agents), **options)
    async with engine.running(url=url):
        yield engine


async def rested(engine: Engine, agent: str, input: Any = "hi", **options: Any) -> Run:
    """Start a run and return it at its first rest."""
    run = await engine.start(agent, input, **options)
    return await run.wait(SECONDS)


async def approve(engine: Engine, run: Run, **options: Any) -> Run:
    """Approve all a run waits for and return it at its next rest."""
    for one in run.interruptions:
        await engine.decide(one.id, "approve", digest=one.digest, **options)
    return await run.wait(SECONDS)


def error_of(run: Run) -> dict[str, Any]:
    """The error of a run that failed."""
    assert run.status == "failed", run.data
    assert run.error is not None
    return run.error


def waiting_for(run: Run, **wanted: Any) -> Interruption:
    """The one interruption of ``run`` whose tool has these fields."""
    [one] = [
        one
        for one in run.interruptions
        if all(one.tool[key] == value for key, value in wanted.items())
    ]
    return one


async def records(engine: Engine, run: Run, kind: Records) -> list[dict[str, Any]]:
    """All records of a run of one kind, as the API shows them."""
    found: list[dict[str, Any]] = []
    after: UUID | None = None
    while True:
        page = PageRequest(limit=100, after=after, order="asc")
        async with engine.pool.connection() as conn:
            answer = await list_records(
                conn, kind, tenant_id=DEFAULT_TENANT, run_id=UUID(run.id), page=page
            )
        found += [dict(one) for one in answer.data]
        if not answer.has_more:
            return found
        after = UUID(found[-1]["id"])


async def calls_of(engine: Engine, run: Run) -> dict[str, dict[str, Any]]:
    """The tool calls of a run by scope and call id: ``outer/inner``."""
    return {
        f"{one['scope']}/{one['call_id']}".lstrip("/"): one
        for one in await records(engine, run, "tool_calls")
    }


async def items_of(engine: Engine, run: Run) -> list[dict[str, Any]]:
    """The items of a run, checked to be numbered without gaps or doubles."""
    items = await records(engine, run, "items")
    assert [item["seq"] for item in items] == list(range(1, len(items) + 1))
    return items


async def query(engine: Engine, statement: str, *params: Any) -> list[dict[str, Any]]:
    """The rows of a statement."""
    async with engine.pool.connection() as conn:
        cursor = await conn.execute(statement.encode(), params)
        return await cursor.fetchall() if cursor.description else []


async def eventually(look: Callable[[], Awaitable[Any]]) -> Any:
    """Look until there is something to see, and return it; for what nothing announces."""
    async with asyncio.timeout(SECONDS):
        while not (seen := await look()):  # noqa: ASYNC110 - each look is a query
            await asyncio.sleep(0)
    return seen


class Gate:
    """A place a tool stops at until it is let through; both sides can wait for the other."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._open = asyncio.Event()
        self.passed = 0

    async def stop(self) -> None:
        """Wait here."""
        self._reached.set()
        async with asyncio.timeout(SECONDS):
            await self._open.wait()
        self.passed += 1

    @property
    def was_reached(self) -> bool:
        """Whether somebody has come to it."""
        return self._reached.is_set()

    async def reached(self) -> None:
        """Wait until somebody stopped."""
        async with asyncio.timeout(SECONDS):
            await self._reached.wait()

    def open(self) -> None:
        """Let through whoever stops, now and later."""
        self._open.set()

    def shut(self) -> None:
        """Stop whoever comes from now on, as if nobody had come to it yet."""
        self._reached, self._open = asyncio.Event(), asyncio.Event()


@asynccontextmanager
async def other_worker(engine: Engine, url: str) -> AsyncIterator[SegmentRunner]:
    """A second runner of segments beside the engine's: what a takeover would begin with."""
    async with LedgerWriter(url) as writer:
        yield SegmentRunner(engine.registry, engine.pool, writer, "another-executor")


@contextmanager
def quick_retries(monkeypatch: Any) -> Iterator[None]:
    """Retries of the model without their pauses."""
    with monkeypatch.context() as patch:
        patch.setattr("perdure.runs.asking.FIRST_DELAY_SECONDS", 0.0)
        yield


def as_json(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))
