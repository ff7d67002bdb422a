"""What moves a resting run on, or ends it: decisions, a retry, a cancellation.

Each is one transaction that locks the run's row first, so that of two at once the second sees
what the first did: two last decisions enqueue the next segment once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from perdure.audit.log import Actor, Entry, record
from perdure.db import Connection, load_sql
from perdure.errors import (
    InvalidRequestError,
    InvalidStateError,
    NotFoundError,
    PerdureError,
    within,
)
from perdure.interruptions.audited import withdrawn
from perdure.interruptions.decisions import DecidedInterruption, decide
from perdure.interruptions.policies.deciders import Person
from perdure.interruptions.rules import Decision
from perdure.runs.enqueue import enqueue
from perdure.runs.traces.run import ended

_SQL = load_sql("perdure.runs", "resume.sql")
_LOCK_RUN = _SQL["lock_run"]
_LOCK_RUNS = _SQL["lock_runs"]
_LOCK_DECIDED_RUN = _SQL["lock_decided_run"]
_NEXT_SEGMENT = _SQL["next_segment"]
_FIND_ABANDONMENT = _SQL["find_abandonment"]
_SESSION_TURN = _SQL["session_turn"]
_FIND_REFUSED_BUDGET = _SQL["find_refused_budget"]
_FAIL_RUN = _SQL["fail_run"]
_REPEAT_FAILED_CALLS = _SQL["repeat_failed_calls"]
_CANCEL_RESTING = _SQL["cancel_resting"]
_ASK_TO_CANCEL = _SQL["ask_to_cancel"]


async def decide_and_resume(
    conn: Connection,
    *,
    tenant_id: UUID,
    interruption_id: UUID,
    decision: Decision,
    by: Person,
) -> DecidedInterruption:
    """Record a decision and, if it was the last the run waited for, move the run on.

    The run's next segment is enqueued; if one of its uncertain calls was abandoned, the run fails
    instead. Joins the caller's transaction or makes one.

    Raises:
        PerdureError: everything ``interruptions.decisions.decide`` raises.
    """
    async with conn.transaction():
        decided = await decide(
            conn,
            tenant_id=tenant_id,
            interruption_id=interruption_id,
            decision=decision,
            by=by,
        )
        if decided.pending_left == 0 and decided.run_status == "interrupted":
            await _go_on(conn, decided.run_id, decided.run_segment, decided.run_priority)
        return decided


async def decide_all_and_resume(
    conn: Connection,
    *,
    tenant_id: UUID,
    decisions: Sequence[tuple[UUID, Decision]],
    by: Person,
) -> list[DecidedInterruption]:
    """Record decisions on several interruptions, all or none; each run goes on once.

    ``decisions`` are interruption ids with what is decided on each. Joins the caller's
    transaction or makes one.

    Raises:
        PerdureError: what ``decide`` raises; ``pointer`` or the pointers of its fields say which
            of them it is about (``/decisions/0/…``).
    """
    async with conn.transaction():
        # In the order of their ids: two batches with runs in common wait, and do not lock up.
        ids = [interruption_id for interruption_id, _ in decisions]
        await conn.execute(_LOCK_RUNS, {"ids": ids, "tenant_id": tenant_id})
        decided: list[DecidedInterruption] = []
        for index, (interruption_id, decision) in enumerate(decisions):
            try:
                if interruption_id in ids[:index]:
                    raise InvalidRequestError.at("/interruption_id", "is decided on before this.")
                decided.append(
                    await decide(
                        conn,
                        tenant_id=tenant_id,
                        interruption_id=interruption_id,
                        decision=decision,
                        by=by,
                    )
                )
            except PerdureError as error:
                raise within(error, f"/decisions/{index}") from error
        for one in {one.run_id: one for one in decided}.values():
            if one.pending_left == 0 and one.run_status == "interrupted":
                await _go_on(conn, one.run_id, one.run_segment, one.run_priority)
        return decided


async def go_on_if_decided(conn: Connection, *, run_id: UUID, segment: int) -> bool:
    """Move a run on that is interrupted in ``segment`` and waits for nobody.

    Does what the last decision would have done. Returns False, and changes nothing, when it is not
    so or somebody else is at it. Joins the caller's transaction or makes one.
    """
    async with conn.transaction():
        cursor = await conn.execute(_LOCK_DECIDED_RUN, {"id": run_id, "segment": segment})
        run = await cursor.fetchone()
        if run is None:
            return False
        await _go_on(conn, run_id, segment, run["priority"])
        return True


async def _go_on(conn: Connection, run_id: UUID, segment: int, priority: int) -> None:
    cursor = await conn.execute(_FIND_ABANDONMENT, {"id": run_id, "segment": segment})
    abandonment = await cursor.fetchone()
    if abandonment is not None:
        message = (
            f"{abandonment['who']} abandoned the run: the outcome of call "
            f"{abandonment['call_id']} of {abandonment['tool']} is not known. "
            "Resume the run to be asked again."
        )
        await _fail(conn, run_id, "abandoned", message)
        return
    cursor = await conn.execute(_FIND_REFUSED_BUDGET, {"id": run_id, "segment": segment})
    refused = await cursor.fetchone()
    if refused is not None:
        why = f": {refused['message']}" if refused["message"] else "."
        message = (
            f"{refused['who']} gave the run no more budget{why} Raise the budget, then resume the "
            "run."
        )
        await _fail(conn, run_id, "budget", message)
        return
    await _enqueue_next(conn, run_id, "interrupted", priority)


async def _fail(conn: Connection, run_id: UUID, kind: str, message: str) -> None:
    cursor = await conn.execute(_FAIL_RUN, {"id": run_id, "type": kind, "message": message})
    failed = await cursor.fetchone()
    if failed is not None:
        ended(run_id, failed["agent"], "failed", kind)


async def retry(conn: Connection, *, tenant_id: UUID, run_id: UUID) -> None:
    """Start a failed run again from its latest state.

    Calls made since that state whose tool raised are made again; all else that was recorded
    stands.

    Raises:
        NotFoundError: the tenant has no such run.
        InvalidStateError: the run is not failed.
    """
    async with conn.transaction():
        run = await _lock(conn, tenant_id, run_id)
        if run["status"] != "failed":
            raise InvalidStateError(
                "Run",
                run_id,
                status=run["status"],
                action="resumed",
                hint="Only a failed run can; an interrupted one goes on when it is decided.",
            )
        await _check_turn(conn, run)
        await conn.execute(_REPEAT_FAILED_CALLS, {"id": run_id})
        await _enqueue_next(conn, run_id, "failed", run["priority"])


async def cancel(
    conn: Connection, *, tenant_id: UUID, run_id: UUID, by: Actor | None = None
) -> bool:
    """Cancel a run: at once where it rests, else by asking the worker that runs it.

    Returns False when it was cancelled already. The audit is told who it was (``by``), and of each
    question that was withdrawn.

    Raises:
        NotFoundError: the tenant has no such run.
        InvalidStateError: the run finished otherwise.
    """
    async with conn.transaction():
        run = await _lock(conn, tenant_id, run_id)
        match run["status"]:
            case "cancelled":
                return False
            case "running":
                await conn.execute(_ASK_TO_CANCEL, {"id": run_id})
                await record(
                    conn, Entry("run.cancel_asked", tenant_id, ("run", run_id), by, run_id)
                )
            case "queued" | "interrupted":
                cursor = await conn.execute(_CANCEL_RESTING, {"id": run_id})
                cancelled = await cursor.fetchone()
                assert cancelled is not None  # noqa: S101 - the run is locked in this status
                ended(run_id, cancelled["agent"], "cancelled")
                await record(
                    conn,
                    Entry("run.cancelled", tenant_id, ("run", run_id), by, run_id),
                    *(
                        withdrawn(
                            tenant_id=tenant_id,
                            run_id=run_id,
                            interruption_id=one["id"],
                            reason="run_cancelled",
                            by=by,
                            shown=one["digest"],
                        )
                        for one in cancelled["withdrawn"]
                    ),
                )
            case status:
                raise InvalidStateError("Run", run_id, status=status, action="cancelled")
        return True


async def _check_turn(conn: Connection, run: dict[str, Any]) -> None:
    if run["session_id"] is None:
        return
    cursor = await conn.execute(_SESSION_TURN, {"session_id": run["session_id"]})
    session = await cursor.fetchone()
    if session is not None and session["active_run_id"] is not None:
        raise InvalidStateError(
            "Run",
            run["id"],
            status="failed",
            action="resumed",
            hint=f"In its session it is the turn of run {session['active_run_id']}: wait for its "
            "end or cancel it.",
        )


async def _lock(conn: Connection, tenant_id: UUID, run_id: UUID) -> dict[str, Any]:
    cursor = await conn.execute(_LOCK_RUN, {"id": run_id, "tenant_id": tenant_id})
    run = await cursor.fetchone()
    if run is None:
        raise NotFoundError("run", run_id)
    return run


async def _enqueue_next(conn: Connection, run_id: UUID, from_status: str, priority: int) -> None:
    cursor = await conn.execute(_NEXT_SEGMENT, {"id": run_id, "from_status": from_status})
    segment = await cursor.fetchone()
    assert segment is not None  # noqa: S101 - the run is locked in this status
    await enqueue(conn, run_id, segment["seq"], priority=priority)
