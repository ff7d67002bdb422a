"""A worker killed around the writes of a fork: its calls are answered once, and nothing happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.runs.forking import Fork, fork_run
from tests.crash.nursery import Nursery
from tests.crash.story import Story, story

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CALLS = """
SELECT c.scope, c.call_id, c.tool, c.effect, c.status, c.attempt,
       c.output -> 'answered_from' ->> 'tool_call_id' AS origin,
       (SELECT p.id::text FROM perdure.tool_calls p
         WHERE p.run_id = r.forked_from AND p.scope = c.scope AND p.call_id = c.call_id) AS same
  FROM perdure.tool_calls c JOIN perdure.runs r ON r.id = c.run_id
 WHERE c.run_id = %(run_id)s AND c.effect <> 'nested'
 ORDER BY c.scope, c.call_id"""


async def _fork(told: Story, parent: Any) -> None:
    async with told.pool.connection() as conn:
        told.run_id = await fork_run(
            conn,
            tenant_id=DEFAULT_TENANT,
            run_id=parent,
            fork=Fork(checkpoint=0),
            by=program_principal(None),
        )


async def test_a_forks_calls_are_answered_whatever_dies(
    make_database: Callable[[], str], tmp_path: Path, nursery: Nursery
) -> None:
    async with story(make_database(), tmp_path / "log", nursery) as told:
        assert not await told.finish()
        parent, run = told.run_id, await told.read()
        assert run["status"] == "completed", run
        effects = told.events("effect")
        for n in (2, 4, 6):
            await _fork(told, parent)
            assert await told.finish("write", n, "after")
            fork = await told.read()
            assert (fork["status"], fork["output"]) == ("completed", run["output"]), (n, fork)
            calls = await told.rows(_CALLS)
            for one in calls:
                assert (one["status"], one["attempt"]) == ("succeeded", 0), (n, one)
                assert one["origin"] == one["same"], (n, one)
            assert len(calls) == len({one["origin"] for one in calls})
            # Nothing happened, and nobody was asked whether it did.
            assert told.events("effect") == effects
            assert told.uncertain == []
