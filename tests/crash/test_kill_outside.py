"""Workers killed in the middle of effects that are no functions of ours."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.nursery import Nursery
from tests.crash.outside import REQUESTS
from tests.crash.story import story

pytestmark = pytest.mark.asyncio(loop_scope="module")
MakeDatabase = Callable[[], str]

_CALLS = (
    "SELECT call_id, kind, status, attempt FROM perdure.tool_calls WHERE run_id = %(run_id)s"
    " ORDER BY id"
)


@dataclass(frozen=True)
class Death:
    """Where a worker dies, the n-th time it is there, and what the run comes to after all."""

    place: str
    n: int
    questions: int
    attempts: dict[str, list[int]]
    """By the beginning of the ids of calls."""
    asked: int
    effects: dict[str, int]


DEATHS = [
    # While the provider may be acting: one question, one more request.
    Death("asked clerk", 2, 1, {"ask": [1, 2, 1]}, REQUESTS + 1, {"click": 2, "screenshot": 3}),
    # After a click: a person has seen it, so it is not made again, but looked at.
    Death("effect click", 1, 1, {"ask": [1, 1, 1]}, REQUESTS, {"click": 2, "screenshot": 3}),
    # While it looks: nobody is asked, it looks again.
    Death("effect screenshot", 2, 0, {"c2": [2]}, REQUESTS, {"click": 2, "screenshot": 4}),
]


async def test_hosted_servers_and_computers(
    make_database: MakeDatabase, tmp_path: Path, nursery: Nursery
) -> None:
    async def one(death: Death) -> None:
        url, log = make_database(), tmp_path / death.place
        async with story(url, log, nursery, scene="outside", agent="clerk") as told:
            assert await told.finish(death.place, death.n)
            run = await told.read()
            assert (run["status"], run["output"]) == ("completed", "done"), run["error"]
            assert len(told.uncertain) == death.questions
            assert len(told.events("asked")) == death.asked
            assert Counter(line["tool"] for line in told.events("effect")) == death.effects
            calls = await told.rows(_CALLS)
            assert {call["status"] for call in calls} == {"succeeded"}
            for prefix, tried in death.attempts.items():
                found = [call["attempt"] for call in calls if call["call_id"].startswith(prefix)]
                assert found == tried
            replies = await told.rows(
                "SELECT count(*) AS n FROM perdure.model_responses WHERE run_id = %(run_id)s"
            )
            assert replies == [{"n": REQUESTS}]

    async def noted(death: Death) -> None:
        try:
            await one(death)
        except AssertionError as error:
            error.add_note(f"{death}")
            raise

    # Most of the time they wait for a death to be noticed: that may happen side by side.
    await asyncio.gather(*(noted(death) for death in DEATHS))


async def test_tools_of_an_mcp_server(database_url: str, tmp_path: Path, nursery: Nursery) -> None:
    async with story(
        database_url, tmp_path / "log", nursery, scene="orders", agent="clerk"
    ) as told:
        assert await told.finish("orders")
        run = await told.read()
        assert (run["status"], run["output"]) == ("completed", "done"), run["error"]
        # What its annotations let run again did, and nobody was asked about it.
        assert told.uncertain == ["print"]
        times = {"look": 2, "put": 2, "print": 1}
        assert Counter(line["tool"] for line in told.events("effect")) == times
        calls = await told.rows(_CALLS)
        assert {call["call_id"]: call["attempt"] for call in calls} == times
