"""States that versions of the Agents SDK wrote: this build reads each, and ends what it began."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from agents import run_state
from agents.version import __version__ as sdk_version

from perdure.access.principals import DEFAULT_TENANT
from perdure.db import connect
from perdure.engine import Engine
from perdure.jsonsafe import dumps
from perdure.runs.restoring import load_state
from perdure.runs.resume import retry
from perdure.runs.sdk import current_agent_name, current_turn, items_in, pending_approvals
from tests.corpus.parking import corpus, park
from tests.corpus.write_states import CONTEXT, NAMES, agents
from tests.engine_support import SECONDS, query


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


UNRELEASED = {"1.3", "1.7", "1.8", "1.14", "1.19", "1.20"}
"""Formats numbered between two releases: no version of the SDK that came out writes one."""
ALL_STATES_SINCE = (0, 20)
CORPUS = corpus()
VERSIONS = sorted({entry.version for entry in CORPUS}, key=_numbers)


def test_every_format_of_this_sdk_is_in_the_corpus() -> None:
    written = {entry.facts["schema_version"] for entry in CORPUS}
    missing = run_state.SUPPORTED_SCHEMA_VERSIONS - written - UNRELEASED
    assert not missing, (
        f"openai-agents {sdk_version} reads formats of run states that the corpus lacks: "
        f"{', '.join(sorted(missing))}. Write states with each version of the SDK that writes one "
        "(tests/corpus/write_states.py says how), or add a format no release wrote to UNRELEASED."
    )
    assert run_state.CURRENT_SCHEMA_VERSION in written
    dropped = written - run_state.SUPPORTED_SCHEMA_VERSIONS
    assert not dropped, (
        f"openai-agents {sdk_version} no longer reads {', '.join(sorted(dropped))}: runs that an "
        "older Perdure parked in one could not be resumed. Say so in docs/guarantees.md (G5)."
    )


def test_versions_perdure_may_have_run_on_have_every_state() -> None:
    has = defaultdict(set)
    for entry in CORPUS:
        has[entry.version].add(entry.name)
        assert entry.facts["sdk_version"] == entry.version
        assert entry.facts["schema_version"] == entry.state["$schemaVersion"]
    recent = {version for version in VERSIONS if _numbers(version) >= ALL_STATES_SINCE}
    assert {
        version: set(NAMES) - has[version] for version in recent if NAMES.keys() - has[version]
    } == {}
    minors = {_numbers(version)[:2] for version in recent}
    newest = _numbers(sdk_version)[:2]
    assert newest in minors, (
        f"No state of openai-agents {sdk_version} is in the corpus. Write them: "
        "python tests/corpus/write_states.py"
    )
    assert minors == {(0, minor) for minor in range(20, max(minors)[1] + 1)}


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_found_in_a_state_of_another_version(version: str) -> None:
    for entry in CORPUS:
        if entry.version != version:
            continue
        facts = entry.facts
        # A graph of its own: nothing of one restored state is left for the next.
        state = await load_state(dumps(entry.state), agents()[entry.name], dict(CONTEXT))
        found: dict[str, Any] = {
            "current_agent": current_agent_name(state),
            "turn": current_turn(state),
            "items": items_in(state),
            "pending": [
                {
                    "agent": one.item.agent.name,
                    "tool": one.item.tool_name,
                    "call_id": one.call_id,
                    "arguments": one.item.arguments if facts["pending"][0]["arguments"] else None,
                }
                for one in pending_approvals(state)
            ],
        }
        assert found == {name: facts[name] for name in found}, entry


async def test_runs_that_other_versions_parked_go_on_to_their_end(database_url: str) -> None:
    """Each as rows that Perdure leaves: preflight passes it, and a decision ends it."""
    entries = [entry for entry in CORPUS if entry.name != "final"]
    async with await connect(database_url) as conn:
        parked = {await park(conn, entry): entry for entry in entries}
    engine = Engine(list(agents().values()), database_url=database_url)
    async with engine.running():
        runs = {run_id: await engine.get(run_id) for run_id in parked}
        between_turns = [run_id for run_id in runs if parked[run_id].name == "run_again"]
        for run_id in between_turns:
            async with engine.pool.connection() as conn:
                await retry(conn, tenant_id=DEFAULT_TENANT, run_id=run_id)
        for run_id in between_turns:
            await runs[run_id].wait(SECONDS)
        report = await engine.preflight()
        found = [*report.failing, *report.noticed]
        assert [(str(parked[one.run_id]), one) for one in found] == []
        assert report.looked_at == {"queued": 0, "running": 0, "interrupted": len(entries)}
        for run in runs.values():
            [one] = run.interruptions
            await engine.decide(one.id, "approve", digest=one.digest)
        for run_id, run in runs.items():
            await run.wait(SECONDS)
            name = str(parked[run_id])
            assert (name, run.status, run.error, run.output) == (name, "completed", None, "done")
        [ran] = await query(
            engine,
            "SELECT count(*) AS n FROM perdure.tool_calls"
            " WHERE status = 'succeeded' AND call_id IN ('c2', 'n1')",
        )
        assert ran["n"] == len(entries)
