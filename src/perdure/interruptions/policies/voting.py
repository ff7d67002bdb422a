"""Whether somebody may decide on an interruption, and whether their decision is the last needed.

Approvals count when they are of different people and on the same thing: what would be executed.
Whoever changes the arguments begins anew: what others approved before was something else. One
person who rejects ends it, whoever approved before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import AlreadyDecidedError
from perdure.interruptions.policies.deciders import (
    ByPolicy,
    Person,
    check_may_decide,
    identity,
    identity_of,
)
from perdure.interruptions.policies.question_rules import Rules
from perdure.interruptions.views import decision_object

_APPROVALS = load_sql("perdure.interruptions.policies", "voting.sql")["approvals"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a decision amounts to: whether it ``closes`` the interruption, and by which rules.

    ``rules`` are new where edited arguments ask for more; None: they stay as they are.
    """

    closes: bool = True
    rules: Rules | None = None


async def standing_of(
    conn: Connection,
    *,
    interruption_id: UUID,
    run: Mapping[str, Any],
    row: Mapping[str, Any],
    decision: str,
    executes: str | None,
    edited: Mapping[str, Any] | None,
    by: Person,
) -> Standing:
    """Pass when ``by`` may decide; returns whether the interruption is closed by their decision.

    The run is locked; ``run`` has ``id``, ``started_by`` (JSON text), ``user_id``, and ``row``
    the interruption's ``rules`` (JSON text) and ``required``. ``executes`` is the digest of what
    an approval would let run, ``edited`` its arguments where they are not those shown.

    Raises:
        InvalidRequestError: a policy denies a call with the edited arguments.
        ForbiddenError: ``by`` may not decide on it.
        AlreadyDecidedError: ``by`` has approved already; it carries that decision.
    """
    if isinstance(by, ByPolicy):
        return Standing()
    rules = Rules.from_json(jsonsafe.loads(row["rules"]))
    _check(interruption_id, rules, run, by)
    if decision != "approve":
        return Standing()
    changed = rules if edited is None else rules.edited(edited)
    if changed != rules:
        _check(interruption_id, changed, run, by)
    required = max(row["required"], changed.required)
    people = {identity_of(by)}
    if required > 1:
        people |= await _approvers(conn, interruption_id, run["id"], executes, by)
    return Standing(len(people) >= required, None if changed == rules else changed)


def _check(interruption_id: UUID, rules: Rules, run: Mapping[str, Any], by: Person) -> None:
    check_may_decide(
        interruption_id,
        by,
        deciders=rules.deciders,
        requester_may_decide=rules.requester_may_decide,
        started_by=None if run["started_by"] is None else jsonsafe.loads(run["started_by"]),
        user_id=run["user_id"],
    )


async def _approvers(
    conn: Connection, interruption_id: UUID, run_id: UUID, executes: str | None, by: Person
) -> set[tuple[str, ...]]:
    """Return who has approved the same; none of them is ``by``."""
    cursor = await conn.execute(
        _APPROVALS, {"run_id": run_id, "id": interruption_id, "executes": executes}
    )
    people: set[tuple[str, ...]] = set()
    for approval in await cursor.fetchall():
        if not approval["same"]:
            continue
        recorded = jsonsafe.loads(approval["recorded"])
        person = identity({name: recorded[f"by_{name}"] for name in ("type", "id", "subject")})
        if person == identity_of(by):
            raise AlreadyDecidedError(
                interruption_id, status="approved by you", recorded=decision_object(recorded)
            )
        people.add(person)
    return people
