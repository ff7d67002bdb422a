"""A worker killed in the middle of effects that are no functions of ours."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.crash.nursery import Nursery
from tests.crash.outside import REQUESTS
from tests.crash.story import story

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CALLS = (
    "SELECT call_id, kind, status, attempt FROM perdure.tool_calls WHERE run_id = %(run_id)s"
    " ORDER BY id"
)


@pytest.mark.parametrize(
    ("place", "n", "asks", "attempts", "asked", "effects"),
    [
        # Killed while the provider may be acting: one question, one more request.
        ("asked clerk", 2, 1, {"ask": [1, 2, 1]}, REQUESTS + 1, {"click": 2, "screenshot": 3}),
        # Killed after a click: a person has seen it, so it is not made again, but looked at.
        ("effect click", 1, 1, {"ask": [1, 1, 1]}, REQUESTS, {"click": 2, "screenshot": 3}),
        # Killed while it looks: nobody is asked, it looks again.
        ("effect screenshot", 2, 0, {"c2": [2]}, REQUESTS, {"click": 2, "screenshot": 4}),
    ],
)
async def test_hosted_servers_and_computers(
    database_url: str,
    tmp_path: Path,
    nursery: Nursery,
    place: str,
    n: int,
    asks: int,
    attempts: dict[str, list[int]],
    asked: int,
    effects: dict[str, int],
) -> None:
    async with story(
        database_url, tmp_path / "log", nursery, scene="outside", agent="clerk"
    ) as told:
        assert await told.finish(place, n)
        run = await told.read()
        assert (run["status"], run["output"]) == ("completed", "done"), run["error"]
        assert len(told.uncertain) == asks
        assert len(told.events("asked")) == asked
        assert Counter(line["tool"] for line in told.events("effect")) == effects
        calls = await told.rows(_CALLS)
        assert {call["status"] for call in calls} == {"succeeded"}
        for prefix, tried in attempts.items():
            found = [call["attempt"] for call in calls if call["call_id"].startswith(prefix)]
            assert found == tried
        replies = await told.rows(
            "SELECT count(*) AS n FROM perdure.model_responses WHERE run_id = %(run_id)s"
        )
        assert replies == [{"n": REQUESTS}]


async def test_tools_of_an_mcp_server(database_url: str, tmp_path: Path, nursery: Nursery) -> None:
    async with story(
        database_url, tmp_path / "log", nursery, scene="orders", agent="clerk"
    ) as told:
        assert await told.finish("orders")
        run = await told.read()
        assert (run["status"], run["output"]) == ("completed", "done"), run["error"]
        # What its annotations let run again did, and nobody was asked about it.
        assert told.uncertain == ["print"]
        assert Counter(line["tool"] for line in told.events("effect")) == {
            "look": 2,
            "put": 2,
            "print": 1,
        }
        calls = {call["call_id"]: call for call in await told.rows(_CALLS)}
        assert {name: call["attempt"] for name, call in calls.items()} == {
            "look": 2,
            "put": 2,
            "print": 1,
        }
