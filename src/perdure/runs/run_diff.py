"""Two runs beside each other: what both said and called first, and what each did then.

Meant for a fork and the run it came from, or two forks of one; any two of a tenant can be compared.
Usage is told from where they part: a fork's own is all after its checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import InvalidRequestError
from perdure.runs.checkpoints import usage_between
from perdure.runs.store import get_run
from perdure.runs.views import Object, item_object
from perdure.sessions.comparing import Turn, compare, essence

__all__ = ["MAX_ITEMS", "diff_runs"]

_ITEMS = load_sql("perdure.runs", "run_diff.sql")["items"]

MAX_ITEMS = 1000
"""Of each run."""


async def diff_runs(
    conn: Connection, *, tenant_id: UUID, run_id: UUID, base_id: UUID | None = None
) -> dict[str, Any]:
    """Return two runs, how many items they begin with alike, and the turns after those.

    ``base_id``: the other run, by default the one this was forked from.

    Raises:
        NotFoundError: one of the two is not there.
        InvalidRequestError: they are one; or none is given and this is no fork.
    """
    run = await get_run(conn, tenant_id=tenant_id, run_id=run_id)
    origin = run["forked_from"] or {}
    if base_id is None and origin.get("run_id") is None:
        raise InvalidRequestError.at(
            "/query/with", "is needed: the run is no fork, or what it was forked from is deleted."
        )
    base_id = base_id or UUID(origin["run_id"])
    if base_id == run_id:
        raise InvalidRequestError.at("/query/with", "is the run itself.")
    base = await get_run(conn, tenant_id=tenant_id, run_id=base_id)
    theirs, ours = await _items(conn, base_id), await _items(conn, run_id)
    # Words are compared beside what else this process answers.
    shared, turns = await asyncio.to_thread(_compared, base, run, theirs, ours)
    return {
        "object": "run_diff",
        "base": base,
        "run": run,
        "shared_items": shared,
        "turns": turns,
        "usage": {
            "base": await _usage_after(conn, base, run),
            "run": await _usage_after(conn, run, base),
        },
        "same_output": base["output"] == run["output"],
        "truncated": max(len(theirs), len(ours)) > MAX_ITEMS,
    }


async def _items(conn: Connection, run_id: UUID) -> list[Object]:
    cursor = await conn.execute(_ITEMS, {"run_id": run_id, "fetch": MAX_ITEMS + 1})
    return [item_object(jsonsafe.loads(row["item"])) for row in await cursor.fetchall()]


async def _usage_after(conn: Connection, run: Object, other: Object) -> dict[str, Any]:
    """Return what a run used, from where the other was forked from it."""
    origin = other["forked_from"] or {}
    if origin.get("run_id") != run["id"]:
        return dict(run["usage"])
    return await usage_between(conn, UUID(run["id"]), origin["checkpoint"])


def _compared(
    base: Object, run: Object, theirs: list[Object], ours: list[Object]
) -> tuple[int, list[Object]]:
    theirs, ours = theirs[:MAX_ITEMS], ours[:MAX_ITEMS]
    shared = 0
    for one, other in zip(theirs, ours, strict=False):
        if essence(one) != essence(other):
            break
        shared += 1
    sides = _turns(base, theirs[shared:]), _turns(run, ours[shared:])
    turns = []
    for number in count():
        pair = [one[number] if number < len(one) else None for one in sides]
        if pair == [None, None]:
            break
        turns.append(compare(number, pair[0], pair[1], ours="run"))
    return shared, turns


def _turns(run: Object, items: Sequence[Object]) -> list[Turn]:
    """Return items by turn: each message of the user begins one, where it follows what is none."""
    turns: list[Turn] = []
    said = False
    for item in items:
        says = item["role"] == "user" and item["item"].get("type", "message") == "message"
        if not turns or (says and not said):
            turns.append(Turn(run_id=run["id"], run_status=run["status"]))
        turns[-1].items.append(item)
        said = says
    return turns
