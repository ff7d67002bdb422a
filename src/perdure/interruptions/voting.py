"""Whether somebody may decide on an interruption, and whether their decision is the last needed.

Approvals count when they are of different people and on the same thing: what would be executed.
Whoever changes the arguments begins anew: what others approved before was something else. One
person who rejects ends it, whoever approved before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import AlreadyDecidedError
from perdure.interruptions.deciders import (
    ByPolicy,
    Person,
    check_may_decide,
    identity,
    identity_of,
)
from perdure.interruptions.question_rules import Rules
from perdure.interruptions.views import decision_object

_APPROVALS = load_sql("perdure.interruptions", "voting.sql")["approvals"]


async def settles(
    conn: Connection,
    *,
    interruption_id: UUID,
    run: Mapping[str, Any],
    row: Mapping[str, Any],
    decision: str,
    executes: str | None,
    by: Person | ByPolicy,
) -> bool:
    """Pass when ``by`` may decide; returns whether the interruption is closed by their decision.

    The run is locked; ``run`` has ``id``, ``started_by`` (JSON text), ``user_id``, and ``row``
    the interruption's ``rules`` (JSON text) and ``required``. ``executes`` is the digest of what
    an approval would let run.

    Raises:
        ForbiddenError: ``by`` may not decide on it.
        AlreadyDecidedError: ``by`` has approved already; it carries that decision.
    """
    if isinstance(by, ByPolicy):
        return True
    rules = Rules.from_json(jsonsafe.loads(row["rules"]))
    check_may_decide(
        interruption_id,
        by,
        deciders=rules.deciders,
        requester_may_decide=rules.requester_may_decide,
        started_by=None if run["started_by"] is None else jsonsafe.loads(run["started_by"]),
        user_id=run["user_id"],
    )
    if decision != "approve" or row["required"] == 1:
        return True
    cursor = await conn.execute(
        _APPROVALS, {"run_id": run["id"], "id": interruption_id, "executes": executes}
    )
    me = identity_of(by)
    people = {me}
    for approval in await cursor.fetchall():
        recorded = jsonsafe.loads(approval["recorded"])
        person = identity({name: recorded[f"by_{name}"] for name in ("type", "id", "subject")})
        if not approval["same"]:
            continue
        if person == me:
            raise AlreadyDecidedError(
                interruption_id, status="approved by you", recorded=decision_object(recorded)
            )
        people.add(person)
    return len(people) >= row["required"]
