"""A worker killed before and after each of its statements: the run ends as if nothing had been."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from tests.crash.child import COUNTED
from tests.crash.nursery import Nursery
from tests.crash.scenario import INSTEAD, OUTPUT, REQUESTS, SAID
from tests.crash.story import Story, story
from tests.events_support import check_log, log_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
MakeDatabase = Callable[[], str]
STATEMENTS = [
    name
    for name in dict.fromkeys(COUNTED.values())
    if name
    not in (
        *("doubt", "not_begun", "supersede"),
        *("doubt_call", "probed", "begin_again", "keep_late"),
        *("lock_run", "add", "waiting", "give", "read"),
        "release",
    )
]
"""What this run writes; the rest is written only after a crash or a failure, or
where somebody speaks to the run."""

MOST_TIMES = {"reserve": 3, "retire": 2, "insert_results": 2}
"""Before which time a statement is died at no more: each request reserves as the one before, and of
what a state's transaction writes the states themselves are died at each time."""


async def _check(told: Story, *, died: bool) -> None:
    run = await told.read()
    assert run["status"] == "completed", run["error"]
    assert run["output"] == OUTPUT

    # No recorded reply is asked for again: only the one under way at the death may be.
    replies = await told.rows(
        "SELECT count(*) AS n FROM perdure.model_responses WHERE run_id = %(run_id)s"
    )
    assert replies[0]["n"] == REQUESTS
    asked = len(told.events("asked"))
    assert asked <= REQUESTS + (1 if died else 0)

    effects: dict[str, list[dict[str, object]]] = {}
    for line in told.events("effect"):
        effects.setdefault(line["tool"], []).append(line)
    # What must not happen twice did not, or somebody was asked first.
    assert len(effects["ship"]) == 1
    # What repeats, repeats with the same key; one death makes for one repetition at most.
    for tool in ("notify", "refund"):
        assert len({line["key"] for line in effects[tool]}) == 1
        assert len(effects[tool]) <= (2 if died else 1)
    assert len({line["key"] for line in effects["search"]}) == 2
    # A transactional effect is there once, however often it was tried.
    assert len(await told.rows("SELECT * FROM bookings")) == 1

    calls = await told.rows(
        "SELECT scope, call_id, status, attempt FROM perdure.tool_calls WHERE run_id = %(run_id)s"
    )
    assert {call["status"] for call in calls} == {"succeeded"}
    assert len(calls) == 10
    # What a tool changed is there once, with its outcome; with one that a person gave it is not.
    changed = await told.rows(
        "SELECT o.kind, o.target, t.tool FROM perdure.operations o"
        " JOIN perdure.tool_calls t ON t.run_id = o.run_id AND t.id = o.tool_call_id"
        " WHERE o.run_id = %(run_id)s"
    )
    operations = Counter((one["tool"], one["kind"], one["target"]) for one in changed)
    shipped = ("ship", "SHIP", "order/7")
    assert operations.pop(shipped, 0) == 1 or told.uncertain
    assert operations == {
        ("notify", "NOTIFY", "order/7"): 1,
        ("book", "BOOK", "order/7"): 1,
        ("search", "SEARCH", "term/a"): 1,
        ("search", "SEARCH", "term/b"): 1,
    }
    # Whatever died, the refund was the one a person had made of it.
    assert {line["order"] for line in told.events("refunded")} == {INSTEAD["order"]}
    states = await told.rows(
        "SELECT kind, is_active FROM perdure.run_states WHERE run_id = %(run_id)s ORDER BY seq"
    )
    assert [state["kind"] for state in states] == ["handoff", "interrupted", "final"]
    assert [state["is_active"] for state in states] == [False, False, True]
    # Each of them is whole, with what tools returned that stands in their rows alone.
    wholes = await told.rows(
        "SELECT perdure.whole_state(run_id, seq) AS state, (SELECT count(*)"
        " FROM unnest(parts) AS part WHERE starts_with(part, U&'\\E000#')) AS quotes"
        " FROM perdure.run_states WHERE run_id = %(run_id)s ORDER BY seq"
    )
    assert [whole["quotes"] for whole in wholes] == [1, 0, 0]
    assert wholes[-1]["state"]["$schemaVersion"] is not None
    items = await told.rows(
        "SELECT item ->> 'call_id' AS call_id, type FROM perdure.run_items"
        " WHERE run_id = %(run_id)s AND item ? 'call_id'"
    )
    assert max(Counter((item["call_id"], item["type"]) for item in items).values()) == 1
    # Its session has what the run has, once and in order, and is free for the next.
    said = await told.rows(
        "SELECT r.item = s.item::jsonb AS same FROM"
        " (SELECT perdure.whole_item(i) AS item, row_number() OVER (ORDER BY seq) AS n"
        "   FROM perdure.run_items i WHERE run_id = %(run_id)s) r"
        " FULL JOIN (SELECT item, row_number() OVER (ORDER BY seq) AS n"
        "   FROM perdure.session_items WHERE run_id = %(run_id)s) s USING (n)"
    )
    assert said
    assert all(one["same"] for one in said)
    turns = await told.rows(
        "SELECT active_run_id FROM perdure.sessions WHERE id IN"
        " (SELECT session_id FROM perdure.runs WHERE id = %(run_id)s)"
    )
    assert turns == [{"active_run_id": None}]
    # Its log has no gap, ends once, and tells of every reply and the death.
    log = await log_of(told.pool, told.run_id)
    check_log(log, "completed")
    kinds = Counter(one.event for one in log)
    assert kinds["model.completed"] == REQUESTS
    assert kinds["run.started"] == kinds["handoff"] == 1
    assert kinds["run.recovered"] <= (1 if died else 0)
    finished = [one.data["tool_call_id"] for one in log if one.event == "tool.completed"]
    assert len(finished) == len(set(finished)) == len(calls)
    assert run["usage"]["requests"] == REQUESTS
    assert run["usage"]["total_tokens"] == REQUESTS * 15
    await _check_usage(told)


async def _check_usage(told: Story) -> None:
    """What was used in all is the sum of its parts, each of which is there once."""
    [sums] = await told.rows(
        "SELECT sum(total_tokens) AS tokens, sum(requests) AS requests, sum(cost_usd) AS cost,"
        " count(DISTINCT model_response_id) AS replies, count(*) AS parts"
        " FROM perdure.request_usage_entries WHERE run_id = %(run_id)s"
    )
    assert sums["parts"] == sums["replies"] == sums["requests"] == REQUESTS
    kept = await told.rows(
        "SELECT agent, model, requests, unpriced_requests, total_tokens, cost_usd"
        " FROM perdure.usage_metrics WHERE run_id = %(run_id)s ORDER BY agent"
    )
    assert sum(one["total_tokens"] for one in kept) == sums["tokens"]
    assert sum(one["cost_usd"] for one in kept) == sums["cost"]
    by_agent = {one["agent"]: one for one in kept}
    # An agent used as a tool counts once, by itself.
    assert by_agent["researcher"]["requests"] == 2
    assert by_agent["researcher"]["cost_usd"] == Decimal("0.00004")
    assert by_agent["triage"]["unpriced_requests"] == by_agent["triage"]["requests"]
    # What is spent of its budget is what it used, whoever died with a call under way.
    [budget] = await told.rows(
        "SELECT p.spent_tokens, (SELECT count(*) FROM perdure.budget_reservations) AS reserved"
        " FROM perdure.budgets b JOIN perdure.budget_periods p ON p.budget_id = b.id"
        " WHERE b.run_id = %(run_id)s"
    )
    assert budget == {"spent_tokens": sums["tokens"], "reserved": 0}
    said = await told.rows(
        "SELECT guardrail, kind, agent FROM perdure.guardrail_results WHERE run_id = %(run_id)s"
        " UNION ALL SELECT guardrail, kind, tool FROM perdure.tool_guardrail_results"
        " WHERE run_id = %(run_id)s ORDER BY guardrail"
    )
    assert [tuple(one.values()) for one in said] == SAID


async def test_an_undisturbed_run_is_what_the_others_are_held_against(
    database_url: str, tmp_path: Path, nursery: Nursery
) -> None:
    async with story(database_url, tmp_path / "log", nursery) as told:
        assert not await told.finish()
        await _check(told, died=False)
        assert len(told.events("asked")) == REQUESTS
        assert told.uncertain == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_killed_at_any_of_its_statements_loses_and_repeats_nothing(
    make_database: MakeDatabase, tmp_path: Path, nursery: Nursery, when: str
) -> None:
    points = Counter[str]()
    for name in STATEMENTS:
        for n in range(1, MOST_TIMES.get(name, 1000)):
            async with story(make_database(), tmp_path / f"{name}{n}", nursery) as told:
                if not await told.finish(name, n, when):
                    break
                points[name] += 1
                try:
                    await _check(told, died=True)
                    assert set(told.uncertain) <= {"d2"}
                except AssertionError as error:
                    error.add_note(f"killed {when} {name}, time {n}")
                    raise
    # The sweep went through all that this run writes, each as often as it is written, or as told.
    assert {name: times for name, times in points.items() if name != "write"} == {
        "begin": 2,
        "load": 1,
        "mark_resumed": 1,
        "finish": 1,
        "operations": 1,
        "fence": 3,
        "retire": 1,
        "insert": 3,
        "carry_calls": 3,
        "checkpoint_run": 3,
        "insert_items": 3,
        "await_approval": 1,
        "insert_interruptions": 1,
        "rest_run": 2,
        "insert_results": 1,
        "reserve": 2,
    }
    # Seven replies and the outcomes and intents of ten calls, some of them in one statement; the
    # slower the machine, the more.
    assert points["write"] > REQUESTS


@pytest.mark.parametrize(
    ("place", "uncertain"),
    [
        ("effect look_up", []),
        ("effect notify", []),
        ("effect ship", ["d2"]),
        ("effect book", []),
        ("effect book written", []),
        ("effect search", []),
        ("effect refund", []),
        ("rested, before DBOS records it", []),
    ],
)
async def test_a_worker_killed_between_an_effect_and_its_record(
    database_url: str, tmp_path: Path, nursery: Nursery, place: str, uncertain: list[str]
) -> None:
    async with story(database_url, tmp_path / "log", nursery) as told:
        assert await told.finish(place, 1)
        await _check(told, died=True)
        # Siblings of the call that died may be in doubt too: they were under way.
        assert [call for call in told.uncertain if call != "d2"] == []
        if uncertain:
            assert told.uncertain == uncertain
        repeated = place.removeprefix("effect ").split()[0]
        attempts = [line["attempt"] for line in told.events("effect") if line["tool"] == repeated]
        if repeated in ("notify", "refund", "book"):
            assert attempts == [1, 2]
