"""What of the questions a run rests on needs nobody: settled in the transaction that opens them.

Every question is opened; what a policy allows or denies is closed at once by a decision of that
policy's. If none is left, the run goes on in the same transaction. So there is one path to a
call, whoever decides, and a crash finds all of it or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from perdure.db import Connection
from perdure.interruptions.decisions import decide
from perdure.interruptions.question_rules import Rules
from perdure.interruptions.rules import Decision

if TYPE_CHECKING:
    from perdure.runs.segment import Question


async def settle(
    conn: Connection, *, tenant_id: UUID, questions: Sequence[Question]
) -> list[Question]:
    """Decide, of the interruptions that were just opened, what needs nobody; returns the others.

    In the transaction that opened them, whose lock on the run is held.
    """
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
