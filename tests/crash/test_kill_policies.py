"""A worker killed around the transaction in which policies answer: all of it is there, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.nursery import Nursery
from tests.crash.policed import OUTPUT
from tests.crash.story import story

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("place", "n", "when"),
    [
        ("insert_interruptions", 1, "after"),
        ("rest_run", 1, "before"),
        ("rest_run", 1, "after"),
        ("rested, before DBOS records it", 1, "before"),
        ("begin", 2, "before"),
        ("begin", 2, "after"),
    ],
)
async def test_what_policies_decide_survives_a_death(
    make_database: Callable[[], str],
    tmp_path: Path,
    nursery: Nursery,
    place: str,
    n: int,
    when: str,
) -> None:
    log = tmp_path / "log"
    async with story(make_database(), log, nursery, scene="policed", agent="policed") as told:
        assert await told.finish(place, n, when)
        run = await told.read()
        assert (run["status"], run["output"], run["error"]) == ("completed", OUTPUT, None)
        assert [line["tool"] for line in told.events("effect")] == ["ship"]
        decisions = await told.rows(
            "SELECT d.decision, d.by_type, d.by_id, i.status FROM perdure.decisions d"
            " JOIN perdure.interruptions i ON i.run_id = d.run_id AND i.id = d.interruption_id"
            " WHERE d.run_id = %(run_id)s ORDER BY d.decision"
        )
        assert [(one["decision"], one["by_id"], one["status"]) for one in decisions] == [
            ("approve", "fine", "approved"),
            ("reject", "never", "rejected"),
        ]
        calls = await told.rows(
            "SELECT tool, status, attempt FROM perdure.tool_calls WHERE run_id = %(run_id)s"
        )
        assert {one["tool"]: (one["status"], one["attempt"]) for one in calls} == {
            "ship": ("succeeded", 1),
            "erase": ("rejected", 0),
        }
