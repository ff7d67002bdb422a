"""Workers that die while it is being found out whether something happened."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.nursery import Nursery
from tests.crash.story import story
from tests.crash.till import OUTPUT

pytestmark = pytest.mark.asyncio(loop_scope="module")
MakeDatabase = Callable[[], str]
Death = tuple[str, int, str]

_DIED_IN_CHARGE: Death = ("effect charge", 1, "before")
DEATHS: list[tuple[list[Death], dict[str, int]]] = [
    # In mid-effect, and then when the probe has looked, before or after that is written.
    ([_DIED_IN_CHARGE, ("probed", 1, "before")], {"charge": 1}),
    ([_DIED_IN_CHARGE, ("probed", 1, "after")], {"charge": 1}),
    # Before the effect: the probe says so, and the call is made again.
    ([("before charge", 1, "before"), ("probed", 1, "after")], {"charge": 2}),
    # After an exception that left it open, in a process that lived until then.
    ([("doubt_call", 1, "before")], {"pay": 1}),
    ([("doubt_call", 1, "after")], {"pay": 1}),
    ([("begin_again", 1, "after")], {"send": 3}),
]
"""Who dies where, one after the other, and the attempt a call is made at last."""


async def _told(
    url: str, log: Path, nursery: Nursery, deaths: list[Death], attempts: dict[str, int]
) -> None:
    async with story(url, log, nursery, scene="till", agent="till") as told:
        for death in deaths:
            await told.worker(*death)
            assert await told.until_rest_or_death() is None, f"nobody died at {death}"
        await told.worker()
        assert not await told.to_the_end()
        run = await told.read()
        assert (run["status"], run["output"]) == ("completed", OUTPUT), run
        # Nobody was asked, and what must not happen twice did not.
        assert told.uncertain == []
        made = Counter(line["tool"] for line in told.events("effect"))
        assert (made["charge"], made["pay"]) == (1, 1)
        assert len({line["key"] for line in told.events("effect") if line["tool"] == "send"}) == 1
        calls = await told.rows(
            "SELECT t.tool, t.status, t.attempt, count(e.id) AS evidence"
            "  FROM perdure.tool_calls t"
            "  LEFT JOIN perdure.tool_call_evidence e ON e.tool_call_id = t.id"
            " WHERE t.run_id = %(run_id)s GROUP BY t.id, t.run_id ORDER BY t.call_id"
        )
        assert {call["status"] for call in calls} == {"succeeded"}
        asked = "charge" if "charge" in attempts else None
        # What a probe said is kept once, however often it was asked.
        assert [call["evidence"] for call in calls] == [1 if asked else 0, 1, 0]
        assert {call["tool"]: call["attempt"] for call in calls} == {
            "charge": 1,
            "pay": 1,
            "send": 2,
        } | attempts


async def test_a_worker_killed_while_a_doubt_is_settled(
    make_database: MakeDatabase, tmp_path: Path, nursery: Nursery
) -> None:
    async def one(n: int) -> None:
        deaths, attempts = DEATHS[n]
        try:
            await _told(make_database(), tmp_path / str(n), nursery, deaths, attempts)
        except AssertionError as error:
            error.add_note(f"deaths: {deaths}")
            raise

    # Most of the time they wait for a death to be noticed: that may happen side by side.
    await asyncio.gather(*(one(n) for n in range(len(DEATHS))))
