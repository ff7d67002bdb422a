"""What models stream: told as it comes, closed where it ends, written once, in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from agents import Agent, function_tool

from perdure import effect
from perdure.access.principals import DEFAULT_TENANT
from perdure.db import open_pool
from perdure.engine import Engine, Run
from perdure.events import Event
from perdure.ledger import unsent
from perdure.ledger.streams import StreamWriter
from perdure.ledger.unsent import Source
from perdure.runs.asking import StreamCut
from perdure.runs.segment import begin
from perdure.runs.store import NewRun, start_run
from perdure.worker.thinning import keep_thinning
from tests.engine_support import (
    SECONDS,
    Gate,
    eventually,
    other_worker,
    query,
    quick_retries,
    rested,
    running,
    turns,
)
from tests.events_support import check_log, log_of
from tests.streaming_support import StreamingModel, replies_told


@effect("idempotent")
@function_tool
async def look(order: str) -> str:
    return f"order {order}"


def _agent(*replies: Any, **options: Any) -> Agent[None]:
    return Agent(name="writer", model=StreamingModel(*replies, **options), tools=[look])


@asynccontextmanager
async def _read_until(run: Run, text: str) -> AsyncIterator[list[Event]]:
    """A reader of ``run`` that has seen ``text`` streamed; goes on reading in the block."""
    seen: list[Event] = []
    there = asyncio.Event()

    async def read() -> None:
        async with aclosing(run.events()) as events:
            async for event in events:
                seen.append(event)
                if text in "".join(one.data.get("delta", "") for one in seen):
                    there.set()

    reading = asyncio.create_task(read())
    async with asyncio.timeout(SECONDS):
        await there.wait()
        yield seen
        await reading


async def test_text_reasoning_and_arguments_are_told_as_they_come(database_url: str) -> None:
    gate = Gate()
    agent = _agent(
        [
            ("reasoning", "Let me ", "look."),
            "I ",
            "look",
            ("call", "look", "c1", '{"order"', ':"7"}'),
        ],
        ["Your order ", gate.stop, "is ", "there\0."],
    )
    async with running(database_url, agent) as engine:
        run = await engine.start("writer", "where is it?")
        async with _read_until(run, "Your order ") as seen:
            # Seen while the model still talks.
            assert not gate.passed
            gate.open()
        assert (await run.wait(SECONDS)).output == "Your order is there\0."
        check_log(seen, "completed")
        assert replies_told(seen) == [
            {"reasoning": "Let me look.", "text": "I look", "arguments": '{"order":"7"}'},
            {"text": "Your order is there\0."},
        ]
        [arguments] = [one.data for one in seen if one.data.get("type") == "arguments"]
        assert (arguments["tool"], arguments["call_id"]) == ("look", "c1")
        # What came together is one event, and what the reply brought along is in its commit.
        assert len([one for one in seen if one.event == "model.delta"]) <= 6
        assert await log_of(engine.pool, run.id) == seen


async def test_an_attempt_that_failed_is_taken_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    agent = _agent(
        ["whole"],
        before=[["half a", gate.stop, StreamCut("cut")], [StreamCut("at once")]],
    )
    with quick_retries(monkeypatch):
        async with running(database_url, agent) as engine:
            run = await engine.start("writer", "hi")
            async with _read_until(run, "half a") as seen:
                gate.open()
    check_log(seen, "completed")
    assert replies_told(seen) == [{"text": "whole"}]
    told = [one for one in seen if one.event.startswith("model.")]
    # Of an attempt that failed before anything of it was sent nothing is said.
    assert [(one.event, one.data["attempt"]) for one in told] == [
        ("model.started", 1),
        ("model.delta", 1),
        ("model.superseded", 1),
        ("model.started", 3),
        ("model.delta", 3),
        ("model.completed", 3),
    ]
    assert told[2].data["reason"] == "retry"
    assert len({one.data["model_response_id"] for one in told}) == 1


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
async def test_a_run_that_ends_in_mid_stream_closes_it(database_url: str, ends: str) -> None:
    gate = Gate()
    last = [gate.stop, ValueError("no model")] if ends == "failed" else [gate.stop]
    async with running(database_url, _agent(["half a", *last])) as engine:
        run = await engine.start("writer", "hi")
        async with _read_until(run, "half a") as seen:
            if ends == "cancelled":
                await engine.cancel(run.id)
            else:
                gate.open()
    check_log(seen, ends)
    assert replies_told(seen) == []
    assert [one.event for one in seen[-2:]] == ["model.superseded", f"run.{ends}"]
    assert seen[-2].data["reason"] == ends


async def test_who_takes_over_closes_what_was_streamed_and_nothing_comes_after(
    database_url: str,
) -> None:
    first, later = Gate(), Gate()
    model = StreamingModel(["half a", first.stop, " late"])
    agent = Agent(name="writer", model=model)
    async with running(database_url, agent) as engine:
        run = await engine.start("writer", "hi")
        async with _read_until(run, "half a") as seen:
            # The first execution goes on streaming while another one has the segment.
            model.replies = (["the ", later.stop, "whole"],)
            async with other_worker(engine, database_url) as other:
                taking = asyncio.create_task(other.run(UUID(run.id), 1))
                await later.reached()
                first.open()
                await eventually(lambda: _superseded(engine, run))
                later.open()
                assert await taking == "completed"
    check_log(seen, "completed")
    assert replies_told(seen) == [{"text": "the whole"}]
    [void] = [one for one in seen if one.event == "model.superseded"]
    # In this process nobody died: the row still names its executor.
    assert void.data["reason"] in ("death", "trouble")
    assert " late" not in "".join(one.data.get("delta", "") for one in seen)


async def _superseded(engine: Engine, run: Run) -> bool:
    return any(one.event == "model.superseded" for one in await log_of(engine.pool, run.id))


async def test_a_model_that_streams_nothing_is_told_of_by_its_reply(database_url: str) -> None:
    async with running(database_url, Agent(name="writer", model=turns("all at once"))) as engine:
        run = await rested(engine, "writer")
        log = await log_of(engine.pool, run.id)
    assert replies_told(log) == [{"text": "all at once"}]


async def test_a_head_that_somebody_holds_delays_deltas_and_nothing_else(
    database_url: str,
) -> None:
    gate, held = Gate(), Gate()
    agents = [
        _agent(["one", gate.stop, " more", held.stop, "."]),
        Agent(name="other", model=StreamingModel(["beside", gate.stop])),
    ]
    async with running(database_url, *agents) as engine:
        run = await engine.start("writer", "hi")
        async with _read_until(run, "one") as seen:
            async with engine.pool.connection() as conn, conn.transaction():
                await conn.execute(
                    "SELECT FROM perdure.run_event_heads WHERE run_id = %s FOR UPDATE", (run.id,)
                )
                gate.open()
                await held.reached()
                # Another run of the process streams on past it.
                other = await rested(engine, "other")
                assert other.status == "completed"
                assert " more" not in "".join(one.data.get("delta", "") for one in seen)
            held.open()
    check_log(seen, "completed")
    assert replies_told(seen) == [{"text": "one more."}]


async def test_too_much_text_is_dropped_and_said_and_the_run_goes_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsent, "MAX_WAITING", 10)
    gate = Gate()
    agent = _agent(["0123456", "789abc", "d", gate.stop, "ef"])
    async with running(database_url, agent) as engine:
        run = await engine.start("writer", "hi")
        async with _read_until(run, "0123456") as seen:
            gate.open()
        assert (await run.wait(SECONDS)).output == "0123456789abcdef"
    deltas = [one.data for one in seen if one.event == "model.delta"]
    assert [(one["delta"], one.get("dropped")) for one in deltas] == [
        ("0123456", None),
        ("d", 6),
        ("ef", None),
    ]


async def test_a_batch_whose_answer_is_lost_is_written_once(database_url: str) -> None:
    async with await open_pool(database_url, 1, 4) as pool:
        async with pool.connection() as conn:
            run_id = await start_run(
                conn, NewRun(tenant_id=DEFAULT_TENANT, agent="a", input="hi", max_turns=3)
            )
        assert await begin(pool, run_id, 1, "me") is not None
        source = Source(str(run_id), str(DEFAULT_TENANT), 1, 1)
        about = {"model_response_id": "r", "attempt": 1, "agent": "a", "scope": ""}
        async with StreamWriter(database_url) as writer:
            sent = 0
            send = writer._send

            async def lose_the_answer(*batch: Any) -> Any:
                nonlocal sent
                answer = await send(*batch)
                sent += 1
                if sent == 1:
                    raise psycopg.OperationalError("server closed the connection")
                return answer

            writer._send = lose_the_answer  # type: ignore[method-assign,assignment]
            writer.add(source, "model.started", {**about, "model": "m"})
            writer.add(source, "model.delta", {**about, "type": "text", "index": 0}, "once")
            async with asyncio.timeout(SECONDS):
                await writer.flush(str(run_id))
            assert sent == 2
            # One that was taken over writes nothing, and is not waited for.
            writer.add(source._replace(epoch=0), "model.delta", about, "never")
            assert await begin(pool, run_id, 1, "another") is not None
            writer.add(source, "model.delta", {**about, "type": "text", "index": 0}, "never")
            async with asyncio.timeout(SECONDS):
                await writer.flush(str(run_id))
        log = await log_of(pool, run_id)
    told = [(one.event, one.data.get("delta")) for one in log if one.event.startswith("model.")]
    assert told == [("model.started", None), ("model.delta", "once"), ("model.superseded", None)]


async def test_what_was_streamed_is_thinned_away_when_its_reply_is_old(database_url: str) -> None:
    gate = Gate()
    agent = _agent([("call", "look", "c1", '{"order": "7"}')], ["new ", gate.stop, "reply"])
    async with running(database_url, agent) as engine:
        run = await engine.start("writer", "hi")
        async with _read_until(run, "new ") as seen:
            # Of the first reply everything is older than an hour; the second one is not over.
            [second] = [one.id for one in seen if one.event == "model.started"][1:]
            await query(
                engine,
                "UPDATE perdure.run_events SET created_at = created_at - interval '61 minutes'"
                " WHERE run_id = %s AND seq < %s",
                run.id,
                second,
            )
            await query(engine, "UPDATE perdure.run_event_heads SET thin_at = now()")
            thinning = asyncio.create_task(keep_thinning(engine.pool))
            log = await eventually(lambda: _thinned(engine, run))
            thinning.cancel()
            gate.open()
        left = [(o.id, o.event) for o in seen if o.data.get("type") != "arguments"]
        assert [(one.id, one.event) for one in await log_of(engine.pool, run.id)] == left
        assert len(left) == len(seen) - 1
        assert [(one.id, one.event) for one in log] == left[: len(log)]
        # Somebody looks again, and then no more.
        assert await query(
            engine, "SELECT thin_at > now() AS later FROM perdure.run_event_heads"
        ) == [{"later": True}]


async def _thinned(engine: Engine, run: Run) -> list[Event]:
    log = await log_of(engine.pool, run.id)
    return log if not any(one.data.get("type") == "arguments" for one in log) else []
