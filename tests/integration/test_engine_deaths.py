"""An execution that dies after one of its writes: the next one comes to the same end.

Everything at once in one conversation: parallel tools, a nested agent twice in a turn and again
beneath another, gates at three depths, one refused, a handoff. The execution is dropped as soon
as its n-th write has committed, for every other n, and another begins the segment.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agents import Agent, function_tool
from agents.testing import assistant_message

from perdure import effect, tool_call
from perdure.engine import Engine, Run
from perdure.ledger.writer import Entry, LedgerWriter
from perdure.runs.workflow import SegmentRunner
from tests.engine_support import (
    SECONDS,
    RuleModel,
    call,
    calls_of,
    items_of,
    outputs_in,
    records,
    replies_in,
    turns,
)


@dataclass
class Conversation:
    """The graph, what its tools did and how often its models were asked."""

    effects: Counter[str] = field(default_factory=Counter)
    models: list[RuleModel] = field(default_factory=list)

    def root(self) -> Agent[Any]:
        @effect("idempotent")
        @function_tool
        async def look(what: str) -> str:
            self.effects[tool_call().idempotency_key] += 1
            await asyncio.sleep(0)
            return f"saw {what}"

        @effect("idempotent")
        @function_tool(needs_approval=True)
        async def pay(to: str) -> str:
            self.effects[tool_call().idempotency_key] += 1
            await asyncio.sleep(0)
            return f"paid {to}"

        inner = self._agent("inner", _inner, look, pay)
        middle = self._agent("middle", _middle, inner.as_tool("ask", "asks"), look)
        back = self._agent("back", _back, look, pay)
        asks = [inner.as_tool("ask", "asks"), middle.as_tool("ask_middle", "asks")]
        front = self._agent("front", _front, look, pay, *asks)
        front.handoffs = [back]
        return front

    def _agent(self, name: str, rule: Any, *tools: Any) -> Agent[Any]:
        model = RuleModel(rule)
        self.models.append(model)
        return Agent(name=name, model=model, tools=list(tools))

    @property
    def asked(self) -> int:
        return sum(model.asked for model in self.models)


def _inner(items: list[Any]) -> Any:
    text, said = items[0]["content"], replies_in(items)
    if said == 0:
        return [call("look", "i0", what=text)]
    if said == 1 and "gated" in text:
        return [call("pay", "i1", to=text), call("look", "i2", what=f"{text} again")]
    return _summary(items)


def _middle(items: list[Any]) -> Any:
    text = items[0]["content"]
    if replies_in(items) == 0:
        return [call("ask", "m0", input=text), call("look", "m1", what=f"middle {text}")]
    return _summary(items)


def _front(items: list[Any]) -> Any:
    done = outputs_in(items)
    if "c0" not in done:
        return [call("look", "c0", what="start")]
    if "c1" not in done:
        return [
            call("ask", "c1", input="one"),
            call("ask", "c2", input="gated"),
            call("pay", "c3", to="eve"),
            call("ask_middle", "c4", input="gated deep"),
            call("look", "c5", what="end"),
        ]
    return [call("transfer_to_back", "h1")]


def _back(items: list[Any]) -> Any:
    if "b1" not in outputs_in(items):
        return [call("look", "b1", what="back"), call("pay", "b2", to="bob")]
    return _summary(items)


def _summary(items: list[Any]) -> Any:
    done = outputs_in(items)
    said = "; ".join(f"{key}: {done[key]}" for key in sorted(done) if not key.startswith("h"))
    return [assistant_message(f"({said})")]


class Mortal(LedgerWriter):
    """A ledger writer that says when its ``fatal``-th write has committed."""

    def __init__(self, url: str, fatal: int | None) -> None:
        super().__init__(url)
        self.fatal = fatal
        self.writes = 0
        self.dies = asyncio.Event()

    def submit(self, entry: Entry, *, urgent: bool = True) -> asyncio.Future[bool]:
        written = super().submit(entry, urgent=urgent)
        self.writes += 1
        if self.writes == self.fatal:
            written.add_done_callback(lambda _: self.dies.set())
        return written


async def _execute(engine: Engine, url: str, run: Run, seq: int, fatal: int | None) -> bool:
    """Execute a segment once; returns whether it died."""
    async with Mortal(url, fatal) as writer:
        runner = SegmentRunner(engine.registry, engine.pool, writer, "mortal")
        life = asyncio.create_task(runner.run(UUID(run.id), seq))
        death = asyncio.create_task(writer.dies.wait())
        done, _ = await asyncio.wait(
            {life, death}, timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        assert done, f"segment {seq} hangs after write {fatal}"
        died = not life.done()
        for task in (life, death):
            task.cancel()
        await asyncio.wait({life, death})
        return died


async def _run(engine: Engine, url: str, at: tuple[int, int] | None) -> tuple[Run, bool]:
    """Take a run through all its segments, dying once at write ``at`` = (segment, write)."""
    run = await engine.start("front", "hi")
    died = False
    for seq in (1, 2, 3):
        if at is not None and at[0] == seq:
            died = await _execute(engine, url, run, seq, at[1])
        await run.refresh()
        if run.status in ("queued", "running"):
            assert not await _execute(engine, url, run, seq, None)
        await run.refresh()
        for one in run.interruptions:
            assert one.type == "tool_approval"
            if one.tool["arguments"] == {"to": "eve"}:
                await engine.decide(one.id, "reject", message="not eve")
            else:
                await engine.decide(one.id, "approve", digest=one.digest)
    return await run.refresh(), died


async def _seen(engine: Engine, run: Run) -> dict[str, Any]:
    """What is the same however often the run's executions died."""
    return {
        "status": run.status,
        "error": run.error,
        "output": run.output,
        "usage": run.data["usage"],
        "items": [
            (item["type"], item["agent"], item["item"].get("call_id"), item["text"])
            for item in await items_of(engine, run)
        ],
        "calls": {
            key: (one["status"], one["output"], one["agent"])
            for key, one in (await calls_of(engine, run)).items()
        },
        "states": [one["kind"] for one in await records(engine, run, "checkpoints")],
    }


async def test_wherever_an_execution_dies_the_run_ends_the_same(database_url: str) -> None:
    conversation = Conversation()
    engine = Engine([conversation.root()])
    async with engine.running(url=database_url, worker=False):
        run, _ = await _run(engine, database_url, None)
        expected = await _seen(engine, run)
        asked = conversation.asked
        assert (expected["status"], expected["error"]) == ("completed", None)
        assert expected["output"] == (
            "(b1: saw back; b2: paid bob; c0: saw start; c1: (i0: saw one); "
            "c2: (i0: saw gated; i1: paid gated; i2: saw gated again); c3: not eve; "
            "c4: (m0: (i0: saw gated deep; i1: paid gated deep; i2: saw gated deep again); "
            "m1: saw middle gated deep); c5: saw end)"
        )
        assert expected["states"] == ["interrupted", "handoff", "interrupted", "final"]
        assert asked == expected["usage"]["requests"]
        deaths = 0
        for seq in (1, 2, 3):
            for write in range(1, 100, 2):
                before = conversation.asked
                run, died = await _run(engine, database_url, (seq, write))
                assert await _seen(engine, run) == expected, (seq, write)
                if not died:
                    break
                deaths += 1
                # At most the requests under way when it died are made again.
                assert conversation.asked - before - asked <= 3, (seq, write)
    assert deaths > 12
    # What was under way when it died ran again, with the same key; nothing ran a third time.
    assert max(conversation.effects.values()) == 2


class StopsAt(LedgerWriter):
    """A ledger writer that has its runner stopped the moment an intent has committed."""

    runner: SegmentRunner | None = None

    def submit(self, entry: Entry, *, urgent: bool = True) -> asyncio.Future[bool]:
        written = super().submit(entry, urgent=urgent)
        if entry["kind"] == "intent" and (runner := self.runner) is not None:
            written.add_done_callback(lambda _: runner.stop())
        return written


async def test_an_effect_does_not_begin_once_its_worker_stops(database_url: str) -> None:
    """Its intent commits all the same; it is taken back, so that nobody has to be asked."""
    sent: list[int] = []

    @function_tool(needs_approval=True)
    async def send() -> str:
        sent.append(tool_call().attempt)
        await asyncio.sleep(0)
        return "sent"

    agent = Agent(name="a", model=turns([call("send", "c1")], "done"), tools=[send])
    engine = Engine([agent])
    async with engine.running(url=database_url, worker=False):
        run = await engine.start("a", "hi")
        assert not await _execute(engine, database_url, run, 1, None)
        [one] = (await run.refresh()).interruptions
        await engine.decide(one.id, "approve", digest=one.digest)
        async with StopsAt(database_url) as writer:
            writer.runner = SegmentRunner(engine.registry, engine.pool, writer, "stopping")
            life = asyncio.create_task(writer.runner.run(UUID(run.id), 2))
            async with asyncio.timeout(SECONDS):
                while not writer.runner._stop.is_set():  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0)
                await writer.runner.quiet()
            life.cancel()
            await asyncio.wait({life})
        assert sent == []
        assert (await calls_of(engine, run))["c1"]["attempt"] == 0
        assert not await _execute(engine, database_url, run, 2, None)
        await run.refresh()
        assert (run.status, run.output) == ("completed", "done")
    assert sent == [1]
