"""A worker killed around the writes that give messages to a run: the model reads each one once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from perdure.access.principals import DEFAULT_TENANT, program_principal
from perdure.runs.inputs import add_input
from tests.crash.nursery import Nursery
from tests.crash.steered import MESSAGES, OUTPUT
from tests.crash.story import Story, story
from tests.events_support import check_log, log_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _check(told: Story, *, died: bool) -> None:
    run = await told.read()
    assert (run["status"], run["output"], run["error"]) == ("completed", OUTPUT, None)
    # Whatever was asked again was asked with the very same words.
    asked = [(line["said"], line["outputs"]) for line in told.events("asked")]
    once = [one for n, one in enumerate(asked) if one not in asked[:n]]
    assert len(asked) <= len(once) + died
    assert once == [
        (["go", "queued"], []),
        (["go", "queued", "listening"], ["c1"]),
        (["go", "queued", "listening", "paying"], ["c1", "c2"]),
        (["go", *MESSAGES], ["c1", "c2"]),
    ]
    replies = await told.rows(
        "SELECT count(*) AS n FROM perdure.model_responses WHERE run_id = %(run_id)s"
    )
    # The one that was asked at the death is asked with what has been added since.
    assert replies[0]["n"] == run["usage"]["requests"]
    assert len(once) - died <= replies[0]["n"] <= len(once)
    added = await told.rows(
        "SELECT i.id, i.input -> 0 ->> 'content' AS said, s.kind, i.given_seq"
        " FROM perdure.run_inputs i"
        " LEFT JOIN perdure.run_states s ON s.run_id = i.run_id AND s.seq = i.given_seq"
        " WHERE i.run_id = %(run_id)s ORDER BY i.seq"
    )
    assert [one["said"] for one in added] == list(MESSAGES)
    assert [(one["given_seq"], one["kind"]) for one in added] == [
        (0, None),
        (1, "periodic"),
        (3, "periodic"),
        (4, "periodic"),
    ]
    left = await told.rows("SELECT inputs_waiting AS n FROM perdure.runs WHERE id = %(run_id)s")
    assert left[0]["n"] == 0
    items = await told.rows(
        "SELECT text FROM perdure.run_items WHERE run_id = %(run_id)s AND role = 'user'"
        " ORDER BY seq"
    )
    assert [item["text"] for item in items] == ["go", *MESSAGES]
    log = await log_of(told.pool, told.run_id)
    check_log(log, "completed")
    for kind in ("input.added", "input.given"):
        ids = [one.data["input_id"] for one in log if one.event == kind]
        assert ids == [str(one["id"]) for one in added]


@pytest.mark.parametrize(
    ("place", "when", "times"),
    [
        ("give", "before", 4),
        ("give", "after", 4),
        ("insert_items", "after", 5),
        ("rest_run", "before", 2),
        ("asked steered", "", 4),
        ("effect listen said", "", 1),
        ("effect pay said", "", 1),
    ],
)
async def test_each_message_reaches_the_model_once_whatever_dies(
    make_database: Callable[[], str],
    tmp_path: Path,
    nursery: Nursery,
    place: str,
    when: str,
    times: int,
) -> None:
    for n in count(1):
        log = tmp_path / str(n)
        async with story(make_database(), log, nursery, scene="steered", agent="steered") as told:
            async with told.pool.connection() as conn:
                await add_input(
                    conn,
                    tenant_id=DEFAULT_TENANT,
                    run_id=told.run_id,
                    input=MESSAGES[0],
                    by=program_principal(None),
                )
            died = await told.finish(place, n, when)
            try:
                await _check(told, died=died)
            except AssertionError as error:
                error.add_note(f"killed {when} {place}, time {n}")
                raise
            if not died:
                break
    assert n == times + 1
