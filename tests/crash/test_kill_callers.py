"""A program killed around each statement of a start, decision, fork or replay: whole, or not."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from perdure import PostgresSession
from perdure.errors import AlreadyDecidedError
from tests.crash.caller import KEY, make_engine
from tests.crash.nursery import Nursery
from tests.engine_support import SECONDS, query

pytestmark = pytest.mark.asyncio(loop_scope="module")

_RUNS = """
SELECT r.id, r.status, r.segment,
       (SELECT count(*) FROM perdure.segments s WHERE s.run_id = r.id) AS segments,
       (SELECT count(*) FROM dbos.workflow_status w
         WHERE w.workflow_uuid LIKE r.id::text || ':%%') AS workflows,
       (SELECT count(*) FROM perdure.decisions d WHERE d.run_id = r.id) AS decisions
  FROM perdure.runs r"""


async def _killed(
    nursery: Nursery, what: str, url: str, log: Path, n: int, when: str, **arguments: Any
) -> bool:
    """Whether the program died at the n-th of its steps; it has fewer, if not."""
    pid = await nursery.order(
        caller=what, url=url, arguments={**arguments, "log": str(log)}, n=n, when=when
    )
    await nursery.death(pid)
    return not os.path.exists(log)  # noqa: ASYNC240, PTH110 - a look, at a local file


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_program_killed_at_any_step_of_a_start_or_a_decision(
    make_database: Callable[[], str], tmp_path: Path, nursery: Nursery, when: str
) -> None:
    engine, url = make_engine(), make_database()
    steps = {"start": 0, "decide": 0}
    async with engine.running(url=url, worker=False):
        for n in count(1):
            killed = await _killed(nursery, "start", url, tmp_path / f"start{n}", n, when)
            runs = await query(engine, _RUNS)
            # All of it is there or nothing, and never twice.
            assert [(r["status"], r["segments"], r["workflows"]) for r in runs] in (
                [],
                [("queued", 1, 1)],
            ), (when, n)
            if not killed:
                break
            steps["start"] = n
            started = await engine.start("payer", "go", idempotency_key=KEY)
            [run] = await query(engine, _RUNS)
            assert str(run["id"]) == started.id
            await query(engine, "DELETE FROM perdure.idempotency_keys")
            await query(engine, "DELETE FROM perdure.runs")
            await query(engine, "DELETE FROM dbos.workflow_status")
    async with engine.running(url=url):
        for n in count(1):
            run_now = await engine.start("payer", "go")
            await run_now.wait(SECONDS)
            [asked] = run_now.interruptions
            decision = {"id": asked.id, "digest": asked.digest}
            killed = await _killed(
                nursery, "decide", url, tmp_path / f"decide{n}", n, when, **decision
            )
            try:
                await engine.decide(asked.id, "approve", digest=asked.digest)
            except AlreadyDecidedError:
                decided = True
            else:
                decided = False
            await run_now.wait(SECONDS)
            assert run_now.status == "completed", run_now.data
            [run] = [r for r in await query(engine, _RUNS) if str(r["id"]) == run_now.id]
            assert (run["segments"], run["workflows"], run["decisions"]) == (2, 2, 1), (when, n)
            calls = await query(
                engine, "SELECT attempt FROM perdure.tool_calls WHERE run_id = %s", run_now.id
            )
            assert calls == [{"attempt": 1}]
            if not killed:
                assert decided
                break
            steps["decide"] = n
    assert steps["start"] >= 3
    assert steps["decide"] >= 4


_REPLAYS = """
SELECT b.id, (SELECT array_agg(r.id::text ORDER BY r.id) FROM perdure.runs r
               WHERE r.session_id = b.id) AS runs,
       (SELECT array_agg(i.text ORDER BY i.seq) FROM perdure.session_items i
         WHERE i.session_id = b.id) AS said
  FROM perdure.sessions b
 WHERE b.parent_session_id IS NOT NULL
 ORDER BY b.id"""


async def test_a_program_killed_while_it_asks_for_a_replay(
    make_database: Callable[[], str], tmp_path: Path, nursery: Nursery
) -> None:
    engine, url = make_engine(), make_database()
    asked = ["a", "b", "c"]
    async with engine.running(url=url, worker=False):
        session = PostgresSession("source", engine=engine)
        for text in asked:
            await session.add_items(
                [{"role": "user", "content": text}, {"role": "assistant", "content": "-"}]
            )
        source = str(await session.id())
        log = tmp_path / "whole"
        assert not await _killed(nursery, "replay", url, log, 0, "", session=source)
        steps = int(log.read_text())
        # Among the runs, before the commit, right after it, before the answer.
        for n, when, made in ((steps - 3, "after", 1), (steps, "before", 1), (steps, "after", 2)):
            log = tmp_path / f"{n}{when}"
            assert await _killed(nursery, "replay", url, log, n, when, session=source)
            found = await query(engine, _REPLAYS)
            assert [len(one["runs"]) for one in found] == [3] * made, (n, when)
    async with engine.running(url=url):
        # The next worker runs what whoever died has left: in order, each once.
        for one in found:
            for run_id in one["runs"]:
                await (await engine.get(run_id)).wait(SECONDS)
        said = [
            text for pair in zip(asked, ("first", "second", "third"), strict=True) for text in pair
        ]
        assert [one["said"] for one in await query(engine, _REPLAYS)] == [said] * 2


_FORKS = """
SELECT r.id, r.status, r.turn, r.session_upto,
       (SELECT count(*) FROM perdure.segments s WHERE s.run_id = r.id) AS segments,
       (SELECT count(*) FROM dbos.workflow_status w
         WHERE w.workflow_uuid LIKE r.id::text || ':%%') AS workflows,
       (SELECT array_agg(s.seq) FROM perdure.run_states s
         WHERE s.run_id = r.id AND s.is_active) AS states,
       (SELECT array_agg(i.type ORDER BY i.seq) FROM perdure.run_items i
         WHERE i.run_id = r.id) AS items,
       (SELECT array_agg(i.item ->> 'type' ORDER BY i.seq) FROM perdure.session_items i
         WHERE i.run_id = r.id) AS said,
       (SELECT array_agg(t.status) FROM perdure.tool_calls t WHERE t.run_id = r.id) AS calls,
       (SELECT count(*) FROM perdure.run_inputs i WHERE i.run_id = r.id) AS inputs,
       (SELECT count(*) FROM perdure.audit_log a
         WHERE a.run_id = r.id AND a.kind = 'run.forked') AS told
  FROM perdure.runs r
 WHERE r.forked_from IS NOT NULL"""

_BRANCHES = "SELECT count(*) AS n FROM perdure.sessions WHERE parent_session_id IS NOT NULL"


async def test_a_program_killed_while_it_forks_a_run(
    make_database: Callable[[], str], tmp_path: Path, nursery: Nursery
) -> None:
    engine, url = make_engine(), make_database()
    async with engine.running(url=url):
        parent = await engine.start("payer", "go", session_key="talk")
        await parent.wait(SECONDS)
        [asked] = parent.interruptions
    async with engine.running(url=url, worker=False):
        before = await query(engine, "SELECT * FROM perdure.runs")
        [before_state] = await query(engine, "SELECT * FROM perdure.run_states")
        log, steps = tmp_path / "whole", 0
        for n in count(1):
            # Every statement but the last few is within the transaction.
            log = tmp_path / f"fork{n}"
            killed = await _killed(nursery, "fork", url, log, 3 * n, "after", run=parent.id)
            if not killed:
                break
            steps = n
            assert await query(engine, _FORKS) == [], n
            assert await query(engine, _BRANCHES) == [{"n": 0}]
        assert steps >= 4
        [made] = await query(engine, _FORKS)
        last = int(log.read_text())
        await query(engine, "DELETE FROM perdure.idempotency_keys")
        for when, there in (("before", 1), ("after", 2)):
            log = tmp_path / f"last{when}"
            assert await _killed(nursery, "fork", url, log, last, when, run=parent.id)
            assert len(await query(engine, _FORKS)) == there, when
        assert await query(engine, _BRANCHES) == [{"n": 2}]
        # Who asks again is told of the fork that was made.
        again = await engine.fork(parent.id, input="more", idempotency_key=KEY)
        forks = await query(engine, _FORKS)
        assert again.id in [str(one["id"]) for one in forks]
        for one in forks:
            assert {**one, "id": None} == {
                "id": None,
                "status": "queued",
                "turn": 1,
                "session_upto": 0,
                "segments": 1,
                "workflows": 1,
                "states": [1],
                "items": ["message", "tool_call"],
                "said": [None, "function_call"],
                "calls": ["awaiting_approval"],
                "inputs": 1,
                "told": 1,
            }
        assert made in forks
        assert before == await query(engine, "SELECT * FROM perdure.runs WHERE forked_from IS NULL")
        assert before_state in await query(engine, "SELECT * FROM perdure.run_states")
    async with engine.running(url=url):
        fork = await (await engine.get(again.id)).wait(SECONDS)
        [anew] = fork.interruptions
        assert anew.digest != asked.digest
        await engine.decide(anew.id, "approve", digest=anew.digest)
        await fork.wait(SECONDS)
        assert fork.status == "completed", fork.data
