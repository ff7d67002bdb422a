"""What becomes of questions nobody answers: people are reminded, others asked, and then it ends.

All times are rows, on the database's clock. Any number of workers may look at once: what is due
is done under the lock on its run by whoever gets it, after looking again, in one transaction; the
others pass it by. Somebody who decides in the last moment holds that lock, or waits for it and is
told that the time is over.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from perdure import jsonsafe
from perdure.audit.log import record
from perdure.db import Connection, Pool, load_sql
from perdure.errors import PerdureError
from perdure.interruptions.audited import escalated, withdrawn
from perdure.interruptions.policies.question_rules import Rules
from perdure.interruptions.rules import Decision
from perdure.runs.resume import decide_and_resume
from perdure.runs.traces.run import ended

_SQL = load_sql("perdure.runs", "overdue.sql")
_LOG = logging.getLogger(__name__)

BATCH: Final = 100
NOBODY_DECIDED: Final = "Nobody decided in time."


async def expire_due(pool: Pool) -> int:
    """Settle every interruption whose time is over; returns how many this process settled.

    One that cannot be settled as its policy says, as its rows do not fit together, fails its run.
    """
    settled = 0
    after: dict[str, Any] = {"after_time": None, "after": None}
    while True:
        async with pool.connection() as conn:
            cursor = await conn.execute(_SQL["overdue"], {**after, "batch": BATCH})
            due = await cursor.fetchall()
            for one in due:
                try:
                    settled += await _settle(conn, one)
                except PerdureError as error:
                    _LOG.error("Interruption %s is overdue: %s", one["id"], error)
                    settled += await _settle(conn, one, trouble=str(error))
        if len(due) < BATCH:
            return settled
        after = {"after_time": due[-1]["expires_at"], "after": due[-1]["id"]}


async def _settle(conn: Connection, due: dict[str, Any], *, trouble: str = "") -> bool:
    key = {"run_id": due["run_id"], "id": due["id"]}
    async with conn.transaction():
        if await (await conn.execute(_SQL["lock_run"], key)).fetchone() is None:
            return False
        row = await (await conn.execute(_SQL["read_overdue"], key)).fetchone()
        if row is None:
            return False
        rules = Rules.from_json(jsonsafe.loads(row["rules"]))
        others = rules.escalated()
        if trouble:
            message = f"Interruption {due['id']} expired and cannot be closed: {trouble}"
            await _fail_run(conn, key, message, rules)
            return True
        if others is not None:
            await _escalate(conn, key, others)
            entry = escalated(
                tenant_id=due["tenant_id"],
                run_id=due["run_id"],
                interruption_id=due["id"],
                shown=row["digest"],
                by=rules.by(overdue=True),
                rules=others.as_json(),
            )
            await record(conn, entry)
            await _tell(conn, "interruption.escalated", due)
            return True
        end = rules.at_the_end()
        if end == "approve" and row["edited"]:
            # One of several people changed the arguments: the policy trusts the model's.
            end = "reject"
        if end == "fail":
            await _fail_run(conn, key, _abandoned(due, row, rules), rules)
            return True
        await decide_and_resume(
            conn,
            tenant_id=due["tenant_id"],
            interruption_id=due["id"],
            decision=Decision("approve", digest=row["digest"], message=NOBODY_DECIDED)
            if end == "approve"
            else Decision("reject", message=NOBODY_DECIDED),
            by=rules.by(overdue=True),
        )
        return True


async def _escalate(conn: Connection, key: dict[str, Any], rules: Rules) -> None:
    await conn.execute(
        _SQL["escalate"],
        {
            **key,
            "rules": jsonsafe.dumps(rules.as_json()),
            "expires_after": rules.expires_after,
            "remind_every": rules.remind_every,
        },
    )


async def _fail_run(conn: Connection, key: dict[str, Any], message: str, rules: Rules) -> None:
    cursor = await conn.execute(_SQL["fail_run"], {**key, "message": message})
    failed = await cursor.fetchone()
    assert failed is not None  # noqa: S101 - the run is locked in this status
    ended(key["run_id"], failed["agent"], "failed", "abandoned")
    entries = [
        withdrawn(
            tenant_id=one["tenant_id"],
            run_id=one["run_id"],
            interruption_id=one["id"],
            reason=one["reason"],
            by=rules.by(overdue=True),
            shown=one["digest"],
            expired=one["reason"] == "expired",
        )
        for one in failed["closed"]
    ]
    await record(conn, *entries)


async def remind_due(pool: Pool) -> int:
    """Remind of what is due, and note when to do so next; returns of how many."""
    reminded = 0
    while True:
        async with pool.connection() as conn, conn.transaction():
            cursor = await conn.execute(_SQL["remind"], {"batch": BATCH})
            due = await cursor.fetchall()
            for one in due:
                await _tell(conn, "interruption.reminder", one)
        reminded += len(due)
        if len(due) < BATCH:
            return reminded


async def seconds_to_next(pool: Pool) -> float | None:
    """Return how long it is until something is due, by the database's clock; None: nothing is."""
    async with pool.connection() as conn:
        row = await (await conn.execute(_SQL["next_due"])).fetchone()
    return None if row is None or row["seconds"] is None else float(row["seconds"])


async def _tell(conn: Connection, event: str, one: dict[str, Any]) -> None:
    can = await (await conn.execute(_SQL["can_tell"])).fetchone()
    if can is not None and can["can_tell"]:
        await conn.execute(
            _SQL["tell"],
            {
                "tenant_id": one["tenant_id"],
                "event": event,
                "run_id": one["run_id"],
                "id": one["id"],
            },
        )


def _abandoned(due: dict[str, Any], row: dict[str, Any], rules: Rules) -> str:
    seconds = f"{rules.expires_after:g} s" if rules.expires_after is not None else "its time"
    return (
        f"Nobody decided on interruption {due['id']} ({row['about']}) within {seconds}, and the "
        f"policy {rules.policy!r} fails the run then. Resume the run to be asked again."
    )
