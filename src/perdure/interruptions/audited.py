"""What the audit is told of a decision. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, Entry
from perdure.interruptions.rules import UNSET, Decision


def decided(
    row: Mapping[str, Any],
    decision: Decision,
    *,
    tenant_id: UUID,
    interruption_id: UUID,
    by: Actor,
    executes: str | None = None,
) -> Entry:
    """Return the entry of a decision that was recorded.

    ``row`` is the interruption as statement ``read_for_decision`` gave it; ``executes`` is the
    digest of what may run, where that is another than was shown.
    """
    approved = decision.decision == "approve"
    return Entry(
        "interruption.decided",
        tenant_id,
        ("interruption", interruption_id),
        by=by,
        run_id=row["run_id"],
        shown=row["digest"],
        executed=(executes or row["digest"]) if approved else None,
        details={
            "type": row["type"],
            "agent": row["agent"],
            "tool": None if row["tool"] is None else jsonsafe.loads(row["tool"]),
            "question": row["question"],
            "decision": decision.decision,
            **{
                name: value
                for name in ("message", "outcome", "result", "arguments", "answer", "remember")
                if (value := getattr(decision, name)) is not UNSET and value is not None
            },
        },
    )
