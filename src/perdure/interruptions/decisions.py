"""One person's decision on one interruption. It never wakes the run: ``runs.resume`` does.

Of any number of decisions at once exactly one counts. Each locks the run first, then looks; the
first to hold the lock closes the interruption, the others see it closed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import record
from perdure.budgets.limits import Limits
from perdure.budgets.raising import raise_budget, raised
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import (
    AlreadyDecidedError,
    DigestMismatchError,
    ExpiredError,
    InvalidStateError,
    NotFoundError,
)
from perdure.interruptions.audited import decided
from perdure.interruptions.editing import Edited, edit
from perdure.interruptions.forms import check_filled_in
from perdure.interruptions.grants.store import give
from perdure.interruptions.policies.deciders import ByPolicy, Person
from perdure.interruptions.policies.voting import Standing, standing_of
from perdure.interruptions.rules import UNSET, Decision, Effect, check_form, effect_on
from perdure.interruptions.views import decision_object

_SQL = load_sql("perdure.interruptions", "interruptions.sql")
_LOCK_RUN = _SQL["lock_run"]
_READ = _SQL["read_for_decision"]
_DECIDE = _SQL["decide"]

RESULT_UNKNOWN = {
    "type": "text",
    "text": "The call was carried out. What it returned is not known.",
    "unknown": True,
}
"""The output of a call that happened and whose result nobody knows."""

_WHY_CANCELLED = {
    "schema_changed": "The tool takes other arguments since a deploy: there is a new question.",
    "tool_removed": "The tool is gone since a deploy: there is a new question.",
}


@dataclass(frozen=True, slots=True)
class DecidedInterruption:
    """What a decision left behind, under the lock on its run that is still held.

    ``closed`` is False where more people have to approve; ``pending_left`` counts the run's
    interruptions that still wait; the ``run_*`` fields are the run's row.
    """

    id: UUID
    decision: Decision
    pending_left: int
    run_id: UUID
    run_status: str
    run_segment: int
    run_priority: int
    closed: bool = True


async def decide(
    conn: Connection,
    *,
    tenant_id: UUID,
    interruption_id: UUID,
    decision: Decision,
    by: Person,
) -> DecidedInterruption:
    """Record ``decision``, close the interruption and change its tool call, in one transaction.

    While more people have to approve it is recorded and nothing else changes. Joins the caller's
    transaction or makes one. The run stays as it is.

    Raises:
        InvalidRequestError, NotSupportedError: the decision makes no sense, in itself or here.
        NotFoundError: the tenant has no such interruption.
        ForbiddenError: ``by`` may not decide on it.
        AlreadyDecidedError: somebody was first; it carries the recorded decision.
        ExpiredError: the time to decide is over.
        DigestMismatchError: it was made on something else than what would be executed.
        InvalidStateError: the interruption was cancelled, or its call is not in the status it
            has to be in.
    """
    check_form(decision)
    async with conn.transaction():
        judged = await _judge(conn, tenant_id, interruption_id, decision, by)
        decision_id = uuid7()
        if judged.shown["budget"] is not None and decision.decision == "approve":
            # Before anything is told of it: who counts on a budget locks it before its events.
            await raise_budget(
                conn,
                judged.shown["budget"],
                judged.limits,
                tenant_id=tenant_id,
                run_id=judged.run["id"],
                by=by,
            )
        pending_left = await _write(conn, decision_id, judged, decision, by)
        grant_id = None
        if decision.remember is not UNSET:
            grant_id = await give(
                conn,
                run_id=judged.run["id"],
                interruption_id=interruption_id,
                decision_id=decision_id,
                remember=decision.remember,
                by=by,
            )
        entries = decided(
            judged.shown,
            decision,
            tenant_id=tenant_id,
            by=by,
            executes=judged.executes,
            status=judged.effect.closes_as if judged.standing.closes else "pending",
            grant_id=grant_id,
        )
        await record(conn, *entries)
        return DecidedInterruption(
            id=interruption_id,
            decision=decision,
            pending_left=pending_left,
            run_id=judged.run["id"],
            run_status=judged.run["status"],
            run_segment=judged.run["segment"],
            run_priority=judged.run["priority"],
            closed=judged.standing.closes,
        )


@dataclass(frozen=True, slots=True)
class _Judged:
    """A decision that counts, on rows that are locked: the run's, and the interruption as shown."""

    run: dict[str, Any]
    shown: dict[str, Any]
    effect: Effect
    edited: Edited | None
    limits: Limits | None
    """What a budget is raised to."""
    executes: str | None
    standing: Standing


async def _judge(
    conn: Connection, tenant_id: UUID, interruption_id: UUID, decision: Decision, by: Person
) -> _Judged:
    """Lock the run, and pass when the decision fits what is asked and comes from who may decide."""
    run = await _one(conn, _LOCK_RUN, {"id": interruption_id, "tenant_id": tenant_id})
    row = None if run is None else await _one(conn, _READ, {"id": interruption_id})
    if run is None or row is None:
        raise NotFoundError("interruption", interruption_id)
    overdue = isinstance(by, ByPolicy) and by.overdue
    _check_open(interruption_id, row, overdue=overdue)
    effect = effect_on(row["type"], decision)
    if overdue and effect.closes_as == "rejected":
        effect = replace(effect, closes_as="expired")
    if decision.digest is not None and decision.digest != row["digest"]:
        raise DigestMismatchError(interruption_id, given=decision.digest, current=row["digest"])
    shown = _shown(row)
    edited, limits = None, None
    if decision.arguments is not UNSET and shown["budget"] is not None:
        limits = raised(shown["budget"], decision.arguments)
    elif decision.arguments is not UNSET:
        edited = edit(shown, decision.arguments, tenant_id=tenant_id, run_id=run["id"])
    if decision.answer is not UNSET:
        check_filled_in(shown["schema"], decision.answer, pointer="/answer", patterns=False)
    executes = _executes(decision, row["digest"], edited)
    standing = await standing_of(
        conn,
        interruption_id=interruption_id,
        run=run,
        row=row,
        decision=decision.decision,
        executes=executes,
        edited=None if edited is None else decision.arguments,
        by=by,
    )
    return _Judged(run, shown, effect, edited, limits, executes, standing)


async def _write(
    conn: Connection, decision_id: UUID, judged: _Judged, decision: Decision, by: Person
) -> int:
    """Record the decision and what it changes; returns how many of the run's questions are open."""
    shown, effect, standing = judged.shown, judged.effect, judged.standing
    tool = shown["tool"] if judged.edited is None else judged.edited.tool
    rules = standing.rules
    done = await _one(
        conn,
        _DECIDE,
        {
            "id": shown["id"],
            "decision_id": decision_id,
            "run_id": shown["run_id"],
            "tenant_id": judged.run["tenant_id"],
            "decision": decision.decision,
            "by_type": by.type,
            "by_id": by.id,
            "by_subject": by.subject,
            "source": by.source,
            "digest": decision.digest,
            "executes": judged.executes,
            "message": None
            if decision.message is None
            else jsonsafe.protect_text(decision.message),
            "arguments": _json(
                UNSET if judged.edited is None and judged.limits is None else decision.arguments
            ),
            "answer": _json(decision.answer),
            "outcome": decision.outcome,
            "result": _json(decision.result),
            "closes": standing.closes,
            "rules": None if rules is None else jsonsafe.dumps(rules.as_json()),
            "required": None if rules is None else rules.required,
            "closes_as": effect.closes_as,
            "tool": None if judged.edited is None else jsonsafe.dumps(tool),
            "tool_call_id": shown["tool_call_id"],
            "call_from": effect.call_from,
            "call_to": effect.call_to,
            "approved_arguments": _json(
                tool["arguments"] if tool and "original_arguments" in tool else UNSET
            ),
            "output": _output(decision),
            "error": _error(decision),
        },
    )
    assert done is not None  # noqa: S101 - an aggregate gives a row
    if standing.closes and shown["tool_call_id"] is not None and not done["called"]:
        raise InvalidStateError(
            "Tool call",
            shown["tool_call_id"],
            status=f"not {effect.call_from}",
            action="decided on",
            hint="Read its run again.",
        )
    return int(done["pending_left"])


def _check_open(interruption_id: UUID, row: dict[str, Any], *, overdue: bool) -> None:
    match row["status"]:
        case "pending" if overdue or not row["expired"]:
            return
        case "pending" | "expired":
            raise ExpiredError(interruption_id, row["expires_at"])
        case "cancelled":
            raise InvalidStateError(
                "Interruption",
                interruption_id,
                status="cancelled",
                action="decided",
                hint=_WHY_CANCELLED.get(
                    row["reason"],
                    "Its question no longer stands; read the run for what it waits for now.",
                ),
            )
        case status:
            recorded = row["recorded"]
            raise AlreadyDecidedError(
                interruption_id,
                status=status,
                recorded=decision_object(jsonsafe.loads(recorded)) if recorded else None,
            )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of an interruption with its JSON decoded."""
    return {
        **row,
        "tool": jsonsafe.loads(row["tool"]) if row["tool"] else None,
        "schema": jsonsafe.loads(row["schema"]) if row["schema"] else None,
        "budget": jsonsafe.loads(row["budget"]) if row["budget"] else None,
    }


def _executes(decision: Decision, digest: str, edited: Edited | None) -> str | None:
    if decision.decision != "approve":
        return None
    return digest if edited is None else edited.digest


def _json(value: Any) -> str | None:
    return None if value is UNSET else jsonsafe.dumps(value)


def _output(decision: Decision) -> str | None:
    if decision.outcome != "done":
        return None
    if decision.result is UNSET:
        return jsonsafe.dumps(RESULT_UNKNOWN)
    if isinstance(decision.result, str):
        return jsonsafe.dumps({"type": "text", "text": decision.result})
    return jsonsafe.dumps({"type": "json", "value": decision.result})


def _error(decision: Decision) -> str | None:
    if decision.decision != "reject":
        return None
    return jsonsafe.dumps({"type": "rejected", "message": decision.message})


async def _one(conn: Connection, statement: str, params: dict[str, Any]) -> dict[str, Any] | None:
    return await (await conn.execute(statement, params)).fetchone()
