"""What a segment comes to rest on and nobody need decide: it is closed where it is opened.

In the transaction of the rest, under the lock on the run it already holds: a question that a
living grant answers is approved by the grant, on record like any decision, and when that leaves
nothing to wait for the run goes on at once. Nobody ever sees it interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from perdure.db import Connection
from perdure.interruptions.decisions import decide
from perdure.interruptions.grants import Asked, use_grants
from perdure.interruptions.rules import Decision
from perdure.runs.resume import go_on


async def settle(conn: Connection, *, run_id: UUID, questions: Sequence[Mapping[str, Any]]) -> None:
    """Decide what of a run's new ``questions`` (rows of interruptions) is decided already.

    The run has to rest in this transaction, which holds its row. It goes on when nothing is left.
    """
    asked = [
        Asked(
            interruption_id=UUID(one["id"]),
            agent=one["agent"],
            tool=one["tool"]["name"],
            schema=one["tool"]["schema"],
            arguments=one["tool"]["arguments"],
        )
        for one in questions
        if one["type"] == "tool_approval"
    ]
    decided = None
    for use in await use_grants(conn, run_id=run_id, asked=asked):
        decided = await decide(
            conn,
            tenant_id=use.tenant_id,
            interruption_id=use.interruption_id,
            decision=Decision("approve", digest=use.digest),
            by=use.by,
        )
    if decided is not None and decided.pending_left == 0:
        await go_on(conn, run_id, decided.run_segment, decided.run_priority)
