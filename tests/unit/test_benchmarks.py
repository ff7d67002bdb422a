"""The benchmarks' own arithmetic, and that every contestant would do the same work."""

from __future__ import annotations

import asyncio
import math

import pytest
from agents import Runner

from benchmarks import workload
from benchmarks.__main__ import MEASURES, parse
from benchmarks.plan import QUICK, Plan
from benchmarks.process import spawned
from benchmarks.report import Figure, Steadiness, at_least, at_most, percentile, shown
from benchmarks.statements import count_log


def test_a_target_includes_its_bound() -> None:
    assert at_most(2.2).met_by(2.2)
    assert not at_most(2.2).met_by(2.3)
    assert at_least(0.6).met_by(0.6)
    assert not at_least(0.6).met_by(0.5)


def test_a_figure_says_whether_it_passed() -> None:
    within = Figure("m", "f", 0.7, "x", at_least(0.6))
    assert within.as_json() == {
        "measure": "m",
        "name": "f",
        "value": 0.7,
        "unit": "x",
        "target": "≥ 0.6",
        "note": "",
        "passed": True,
    }
    assert Figure("m", "f", 0.7).passed is None


def test_a_run_counts_while_commits_vary_no_more_than_threefold() -> None:
    assert Steadiness([1.0, 2.0, 3.0]).counts
    spoiled = Steadiness([1.0, 3.1])
    assert not spoiled.counts
    assert "DOES NOT COUNT" in spoiled.figure("m").note


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 5), (0.9, 9), (0.95, 10), (1.0, 10)]
)
def test_percentiles_are_values_that_were_measured(share: float, expected: int) -> None:
    assert percentile(range(1, 11), share) == expected


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_values_show_three_digits() -> None:
    assert [shown(value) for value in (0.567, 12.34, 1234.5, math.inf)] == [
        "0.57",
        "12.3",
        "1234",
        "inf",
    ]


_LOG = """\
2026-11-22 03:24:37.526 UTC [10] LOG:  statement:
2026-11-22 03:24:37.527 UTC [10] LOG:  statement: BEGIN
2026-11-22 03:24:37.527 UTC [11] LOG:  execute _pg3_1: SELECT 1
2026-11-22 03:24:37.528 UTC [10] LOG:  execute <unnamed>: INSERT INTO t
\tVALUES ('[12] LOG:  statement: not one')
2026-11-22 03:24:37.528 UTC [10] DETAIL:  Parameters: $1 = '1'
2026-11-22 03:24:37.528 UTC [10] LOG:  statement: COMMIT
2026-11-22 03:24:38.000 UTC [9] LOG:  database system is ready to accept connections
"""


def test_statements_of_a_log_are_counted() -> None:
    statements, brackets, transactions = count_log(_LOG)
    # A ping, BEGIN, a SELECT by itself, an INSERT, COMMIT.
    assert (statements, brackets) == (5, 2)
    # The SELECT, and what BEGIN and COMMIT enclose; a ping is none.
    assert transactions == 2


def test_the_command_line_takes_measures_by_name() -> None:
    options = parse(["--only", "turns", "--only", "parked", "--quick", "--tool-bytes", "10"])
    assert options.only == ["turns", "parked"]
    assert (options.quick, options.json, options.tool_bytes) == (True, False, 10)
    assert list(MEASURES) == [
        "turns",
        "statements",
        "throughput",
        "recovery",
        "takeover",
        "latency",
        "parked",
        "streaming",
        "readers",
        "conversations",
        "growth",
        "queries",
    ]


def test_a_quick_look_is_less_of_everything() -> None:
    whole = Plan()
    assert QUICK.rounds_of_20 < whole.rounds_of_20
    assert QUICK.parked < whole.parked
    assert QUICK.tool_bytes == whole.tool_bytes


@pytest.mark.parametrize("turns", [0, 3])
async def test_the_agent_calls_one_tool_a_turn_streamed_or_not(turns: int) -> None:
    agent, prompt = workload.agent(), workload.prompt(turns, 10)
    whole = await Runner.run(agent, prompt, max_turns=turns + 1)
    streamed = Runner.run_streamed(agent, prompt, max_turns=turns + 1)
    async for _ in streamed.stream_events():
        pass
    for result in (whole, streamed):
        assert str(result.final_output).startswith(workload.expected(turns))
        outputs = [item for item in result.new_items if item.type == "tool_call_output_item"]
        assert [item.output for item in outputs] == ["x" * 10] * turns


async def test_a_model_stops_at_the_turn_it_is_told() -> None:
    reached = asyncio.Event()
    agent = workload.agent(before=workload.stop_at(2, reached.set))
    run = asyncio.create_task(Runner.run(agent, workload.prompt(5, 1)))
    async with asyncio.timeout(30):
        await reached.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


@pytest.mark.slow
async def test_a_contestant_answers_from_a_process_of_its_own() -> None:
    async with spawned("bare", "") as child:
        took = await child.ask(op="runs", turns=2, bytes=10, at_once=3)
        assert child.ready_at > child.spawned_at
        assert took["seconds"] > 0
        assert child.memory_bytes() > 1_000_000
