"""A connection lost right after a COMMIT: it was done, and whoever asked does not know.

Everything goes through a proxy that loses one connection at one such moment, for each statement
that a run's life depends on. The engine's own are found by their words, DBOS's by theirs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from agents import Agent, function_tool

from perdure import effect, record_operation, tool_call
from perdure.access.principals import local_principal
from perdure.engine import Engine, Run
from perdure.errors import AlreadyDecidedError, UnavailableError
from tests.engine_support import (
    SECONDS,
    Gate,
    call,
    calls_of,
    eventually,
    query,
    running,
    turns,
)
from tests.loopback.pg_proxy import PgProxy, pg_proxy

START = "INSERT INTO perdure.runs ("
BEGIN = "epoch = s.epoch + 1"
LEDGER = "WITH entry AS MATERIALIZED"
STATE = "INSERT INTO perdure.run_states"
REST = "SET status = 'rested'"
FINISH = "SET status = 'succeeded'"
DECISION = "INSERT INTO perdure.decisions"
CANCEL = "SET cancel_requested_at = coalesce"
CLAIM = "UPDATE dbos.workflow_status SET status=$1::VARCHAR, executor_id="
SUCCESS = "WITH updated AS \n(UPDATE dbos.workflow_status"


class _Shop:
    """An agent that hands over to one whose last tool has to be approved, and what they did."""

    def __init__(self) -> None:
        self.done: Counter[tuple[str, str]] = Counter()
        self.keys: dict[str, set[str]] = {}
        self.gate = Gate()
        self.gate.open()

        @function_tool
        async def pay() -> str:
            self.done["pay", tool_call().run_id] += 1
            await self.gate.stop()
            record_operation("PAY", "order/1")
            return "paid"

        @effect("idempotent")
        @function_tool
        async def notify() -> str:
            self.keys.setdefault(tool_call().run_id, set()).add(tool_call().idempotency_key)
            record_operation("TELL", "order/1")
            return "told"

        @effect("transactional")
        @function_tool
        async def book() -> str:
            await tool_call().connection.execute(
                "INSERT INTO bookings VALUES (%s)", (tool_call().run_id,)
            )
            record_operation("BOOK", "order/1")
            return "booked"

        @function_tool(needs_approval=True)
        async def refund() -> str:
            self.done["refund", tool_call().run_id] += 1
            return "refunded"

        self.front = turns([call("pay", "c1")], [call("transfer_to_back", "h1")])
        self.back = turns(
            [], [], [call("notify", "c2"), call("book", "c3")], [call("refund", "c4")], "done"
        )
        back = Agent(name="back", model=self.back, tools=[notify, book, refund])
        self.agent = Agent(name="front", model=self.front, tools=[pay], handoffs=[back])

    @property
    def asked(self) -> int:
        """How often a model was asked."""
        return self.front.asked + self.back.asked


@asynccontextmanager
async def _opened(database_url: str) -> AsyncIterator[tuple[PgProxy, Engine, _Shop]]:
    shop = _Shop()
    with pg_proxy(database_url) as proxy:
        kinds = ["PAY", "TELL", "BOOK"]
        async with running(proxy.url, shop.agent, operations=kinds) as engine:
            await query(engine, "CREATE TABLE bookings (run_id text)")
            yield proxy, engine, shop


async def _finished_once(engine: Engine, shop: _Shop, run: Run, asked_before: int) -> None:
    """Check that a run is complete, and that nothing of it was done or asked for twice."""
    assert (run.status, run.output, run.error) == ("completed", "done", None)
    for tool in ("pay", "refund"):
        assert shop.done[tool, run.id] == 1, tool
    assert len(shop.keys[run.id]) == 1
    assert [row["run_id"] for row in await query(engine, "TABLE bookings")].count(run.id) == 1
    changed = await query(
        engine, "SELECT kind FROM perdure.operations WHERE run_id = %s ORDER BY kind", run.id
    )
    assert [one["kind"] for one in changed] == ["BOOK", "PAY", "TELL"]
    calls = await calls_of(engine, run)
    assert {one["status"] for one in calls.values()} == {"succeeded"}
    assert run.data["usage"]["requests"] == shop.asked - asked_before == 5


async def _approved(engine: Engine, run: Run) -> Run:
    [question] = (await run.wait(SECONDS)).interruptions
    assert question.type == "tool_approval"
    await engine.decide(question.id, "approve", digest=question.digest)
    return await run.wait(SECONDS)


@pytest.mark.parametrize(
    ("marker", "occurrences"),
    [
        (BEGIN, [1, 2]),  # of the first segment, and of the one after the approval
        (LEDGER, [1, 2, 3, 5]),  # replies, intents and outcomes
        (STATE, [1]),  # at the handoff
        (FINISH, [1]),  # of the transactional tool
        (REST, [1, 2]),  # on the question, and at the end
        (SUCCESS, [1, 2]),
        (CLAIM, [1]),
    ],
    ids=["begin", "ledger", "state", "transaction", "rest", "success", "claim"],
)
async def test_a_run_goes_on(database_url: str, marker: str, occurrences: list[int]) -> None:
    async with _opened(database_url) as (proxy, engine, shop):
        for nth in occurrences:
            asked = shop.asked
            cut = proxy.cut_after(marker, nth)
            run = await _approved(engine, await engine.start("front", "hi"))
            await cut.wait(SECONDS)
            await _finished_once(engine, shop, run, asked)

        async def nothing_under_way() -> bool:
            [left] = await query(
                engine,
                "SELECT count(*) AS n FROM dbos.workflow_status WHERE status <> 'SUCCESS'",
            )
            return bool(left["n"] == 0)

        await eventually(nothing_under_way)
        repaired = await query(engine, "SELECT kind FROM perdure.repairs")
        # Of a claim nobody heard of the process that made it cannot know: that is the sweeper's.
        assert [one["kind"] for one in repaired] == (["unheld_claim"] if marker == CLAIM else [])


async def test_a_start_and_a_decision_of_a_program(database_url: str) -> None:
    async with _opened(database_url) as (proxy, engine, shop):
        cut = proxy.cut_after(START)
        with pytest.raises(UnavailableError, match=r"is not known.*same idempotency key"):
            await engine.start("front", "hi", idempotency_key="k")
        assert cut.made
        run = await engine.start("front", "hi", idempotency_key="k")
        assert await query(engine, "SELECT count(*) AS n FROM perdure.runs") == [{"n": 1}]

        [question] = (await run.wait(SECONDS)).interruptions
        cut = proxy.cut_after(DECISION)
        with pytest.raises(UnavailableError, match="is not known"):
            await engine.decide(question.id, "approve", digest=question.digest)
        assert cut.made
        with pytest.raises(AlreadyDecidedError) as told:
            await engine.decide(question.id, "reject")
        assert dict(told.value.recorded or {})["decision"] == "approve"
        await run.wait(SECONDS)
        await _finished_once(engine, shop, run, 0)

        run = await engine.start("front", "hi")
        await run.wait(SECONDS)
        [question] = run.interruptions
        await engine.decide(question.id, "approve", digest=question.digest)
        proxy.refuse()
        with pytest.raises(TimeoutError, match=r"cannot be reached after 0\.2 s.*wait again"):
            await run.wait(0.2)
        for asked in (engine.start("front", "hi"), engine.get(run.id), engine.cancel(run.id)):
            with pytest.raises(UnavailableError, match="cannot be reached now"):
                await asked
        waiting = asyncio.create_task(run.wait(SECONDS))
        await asyncio.sleep(0)
        proxy.accept()
        assert (await waiting).status == "completed"


async def test_requests_over_http(database_url: str) -> None:
    async def anybody(_: object) -> Any:
        return local_principal()

    async with _opened(database_url) as (proxy, engine, shop):
        transport = httpx.ASGITransport(engine.api(authenticate=anybody))
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as http:

            async def twice(marker: str, path: str, body: Any, *, key: str) -> httpx.Response:
                """Send a request whose answer is lost, and again; returns the second answer."""
                headers = {"Idempotency-Key": key}
                cut = proxy.cut_after(marker)
                lost = await http.post(path, json=body, headers=headers)
                assert cut.made
                assert (lost.status_code, lost.json()["code"]) == (503, "unavailable")
                assert int(lost.headers["Retry-After"]) >= 1
                again = await http.post(path, json=body, headers=headers)
                assert again.headers["Idempotent-Replayed"] == "true"
                return again

            start = {"agent": "front", "input": "hi"}
            started = await twice(START, "/v1/runs", start, key="start")
            assert started.status_code == 202
            run = await engine.get(started.json()["id"])
            [question] = (await run.wait(SECONDS)).interruptions

            path = f"/v1/interruptions/{question.id}/decision"
            body = {"decision": "approve", "digest": question.digest}
            decided = await twice(DECISION, path, body, key="decide")
            assert (decided.status_code, decided.json()["status"]) == (200, "approved")
            refused = await http.post(path, json=body)
            assert (refused.status_code, refused.json()["code"]) == (409, "already_decided")
            await run.wait(SECONDS)
            await _finished_once(engine, shop, run, 0)
            assert await query(engine, "SELECT count(*) AS n FROM perdure.runs") == [{"n": 1}]

            shop.gate = Gate()
            run = await engine.start("front", "hi")
            await shop.gate.reached()
            path = f"/v1/runs/{run.id}/cancel"
            cancelled = await twice(CANCEL, path, None, key="cancel")
            assert cancelled.status_code == 202
            shop.gate.open()
            await run.wait(SECONDS)
            assert run.status == "cancelled"
            assert shop.done["pay", run.id] == 1
