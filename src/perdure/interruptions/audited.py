"""What the audit is told of decisions and of questions that were withdrawn. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from perdure.audit.log import Actor, Entry
from perdure.interruptions.policies.deciders import ByPolicy
from perdure.interruptions.rules import UNSET, Decision


def decided(
    shown: Mapping[str, Any],
    decision: Decision,
    *,
    tenant_id: UUID,
    by: Actor,
    executes: str | None,
    status: str,
    grant_id: UUID | None = None,
) -> list[Entry]:
    """Return the entries of a decision that was recorded, and of the grant given with it, if any.

    ``shown`` is the interruption as statement ``read_for_decision`` gave it, its JSON decoded;
    ``executes`` is the digest of what may run now, ``status`` what the interruption has come to:
    ``pending`` where more people have to decide. A policy that settles what nobody decided in time
    is no decision: that is an expiry.
    """
    expired = isinstance(by, ByPolicy) and by.overdue
    decided_now = Entry(
        "interruption.expired" if expired else "interruption.decided",
        tenant_id,
        ("interruption", shown["id"]),
        by=by,
        run_id=shown["run_id"],
        shown=shown["digest"],
        executed=executes,
        details={
            "type": shown["type"],
            "agent": shown["agent"],
            "tool": shown["tool"],
            "question": shown["question"],
            "decision": decision.decision,
            "status": status,
            **{
                name: value
                for name in ("message", "outcome", "result", "arguments", "answer", "remember")
                if (value := getattr(decision, name)) is not UNSET and value is not None
            },
        },
    )
    if grant_id is None:
        return [decided_now]
    grant = Entry(
        "grant.created",
        tenant_id,
        ("grant", grant_id),
        by=by,
        run_id=shown["run_id"],
        executed=executes,
        details={"tool": shown["tool"], "remember": decision.remember},
    )
    return [decided_now, grant]


def withdrawn(
    *,
    tenant_id: UUID,
    run_id: UUID,
    interruption_id: UUID | str,
    reason: str,
    by: Actor | None = None,
    shown: str | None = None,
    expired: bool = False,
) -> Entry:
    """Return the entry of an interruption that was closed without a decision.

    It was cancelled, or its time was over (``expired``) and its run fails. ``by`` is None where
    nobody asked for it: what it had shown no longer stands.
    """
    return Entry(
        "interruption.expired" if expired else "interruption.cancelled",
        tenant_id,
        ("interruption", interruption_id),
        by=by,
        run_id=run_id,
        shown=shown,
        details={"reason": reason},
    )


def escalated(
    *,
    tenant_id: UUID,
    run_id: UUID,
    interruption_id: UUID,
    shown: str,
    by: Actor,
    rules: Mapping[str, Any],
) -> Entry:
    """Return the entry of an interruption others are asked about from now on, by ``rules``."""
    return Entry(
        "interruption.escalated",
        tenant_id,
        ("interruption", interruption_id),
        by=by,
        run_id=run_id,
        shown=shown,
        details={"rules": rules},
    )
