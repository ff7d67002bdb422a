"""What of the questions a run rests on needs nobody: settled in the transaction that opens them.

Every question is opened. What a policy allows or denies is closed at once by a decision of that
policy's, what a living grant answers by one of that grant's. If none is left, the run goes on in
the same transaction. So there is one path to a call, whoever decides, and a crash finds all of it
or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from perdure.db import Connection
from perdure.interruptions.decisions import decide
from perdure.interruptions.grants.store import Asked, use_grants
from perdure.interruptions.policies.question_rules import Rules
from perdure.interruptions.rules import Decision
from perdure.runs.rest import Question


async def settle(
    conn: Connection, *, tenant_id: UUID, run_id: UUID, questions: Sequence[Question]
) -> list[Question]:
    """Decide, of the interruptions that were just opened, what needs nobody; returns the others.

    In the transaction that opened them, whose lock on the run is held.
    """
    left = await _by_policies(conn, tenant_id, questions)
    return await _by_grants(conn, tenant_id, run_id, left)


async def _by_policies(
    conn: Connection, tenant_id: UUID, questions: Sequence[Question]
) -> list[Question]:
    left = []
    for question in questions:
        decision = _decision(question.rules, question.digest)
        if decision is None:
            left.append(question)
            continue
        await decide(
            conn,
            tenant_id=tenant_id,
            interruption_id=question.id,
            decision=decision,
            by=question.rules.by(),
        )
    return left


def _decision(rules: Rules, digest: str) -> Decision | None:
    if rules.policy is None:
        return None
    match rules.then:
        case "allow":
            return Decision("approve", digest=digest, message=rules.message)
        case "deny":
            return Decision("reject", message=rules.denial())
        case _:
            return None


async def _by_grants(
    conn: Connection, tenant_id: UUID, run_id: UUID, questions: Sequence[Question]
) -> list[Question]:
    asked = [
        Asked(one.id, one.agent, one.tool["name"], one.tool["schema"], one.tool["arguments"])
        for one in questions
        if one.type == "tool_approval" and one.tool is not None
    ]
    uses = {one.interruption_id: one for one in await use_grants(conn, run_id=run_id, asked=asked)}
    left = []
    for question in questions:
        if question.id not in uses:
            left.append(question)
            continue
        await decide(
            conn,
            tenant_id=tenant_id,
            interruption_id=question.id,
            decision=Decision("approve", digest=question.digest),
            by=uses[question.id].by,
        )
    return left
