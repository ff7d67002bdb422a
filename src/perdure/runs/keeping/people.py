"""A user erased: their runs and conversations with all these left, and their name everywhere.

One transaction, so that it is all or nothing; DBOS forgets the workflows just before it commits.
What stays of them are pseudonyms and digests in the audit, and sums of usage that are nobody's.
Where others spoke in the same conversation, their runs may quote the person: what is to become of
these has to be said.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg import sql

from perdure import jsonsafe
from perdure.audit.erasing import erase as erase_from_audit
from perdure.audit.log import Actor, Entry, record
from perdure.db import Connection, load_sql
from perdure.errors import ConflictError, InvalidStateError, NotFoundError
from perdure.runs.dbos_inside.forgetting import forget
from perdure.runs.dbos_inside.forgetting import held as in_hand
from perdure.runs.keeping.kin import read_kin
from perdure.runs.keeping.pruning import delete_ended, workflows_of
from perdure.runs.resume import cancel as cancel_run
from perdure.sessions.erasing import erase_session
from perdure.sessions.rules import check_name

__all__ = ["Erased", "Shared", "cancel_runs_of", "erase_user"]

_SQL = load_sql("perdure.runs.keeping", "people.sql")
_STRIP_MAKER = _SQL["strip_maker"]
_DELETE_OF_USER = _SQL["delete_of_user"]
_DELETIONS = {
    "session_items": _SQL["delete_items"],
    "feedback": _SQL["delete_feedback"],
    "user_sessions": _SQL["delete_user_sessions"],
    "budgets": _SQL["delete_budgets"],
    "grants": _SQL["delete_grants"],
    "decision_links": _SQL["delete_links"],
    "idempotency_keys": _SQL["delete_answers"],
}
_STRIPS = {
    "run_events": _SQL["strip_events"],
    "decisions": _SQL["strip_decisions"],
    "run_inputs": _SQL["strip_inputs"],
    "api_keys": _SQL["strip_keys"],
}
_BY_THEMSELVES = ["runs", "sessions", "session_items", "feedback", "user_sessions", "usage_daily"]
"""Tables with users that have statements of their own; any other loses the user's rows."""
_SHOWN = 10

Shared = Literal["refuse", "erase", "keep"]
"""What becomes of conversations of others they spoke in, where runs of others may quote them."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What went: rows by table, rows they are named in no more, DBOS's workflows, audit rows."""

    removed: Mapping[str, int]
    changed: Mapping[str, int]
    workflows: int
    audit_rows: int
    shared_sessions: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "removed": dict(sorted(self.removed.items())),
            "changed": dict(sorted(self.changed.items())),
            "workflows": self.workflows,
            "audit_rows": self.audit_rows,
            "shared_sessions": self.shared_sessions,
        }


async def cancel_runs_of(conn: Connection, *, tenant_id: UUID, user_id: str, by: Actor) -> int:
    """Cancel what is not over of a user's; how many runs. A running one ends a moment later."""
    whose = _whose(tenant_id, user_id)
    sessions = await (await conn.execute(_SQL["sessions"], {**whose, "also": []})).fetchall()
    params = {**whose, "sessions": [one["id"] for one in sessions]}
    runs = await (await conn.execute(_SQL["unfinished"], params)).fetchall()
    for run in runs:
        try:
            await cancel_run(conn, tenant_id=tenant_id, run_id=run["id"], by=by)
        except (InvalidStateError, NotFoundError):
            # It ended meanwhile, or somebody deleted it.
            continue
    return len(runs)


async def erase_user(
    conn: Connection,
    url: str,
    *,
    tenant_id: UUID,
    user_id: str,
    by: Actor,
    shared: Shared = "refuse",
    dry_run: bool = False,
) -> Erased:
    """Erase a user of a tenant and return what went, or with ``dry_run`` would go.

    ``url`` is the database of ``conn``, for DBOS. With ``shared`` "erase" conversations of others
    they spoke in go whole, with "keep" only their own runs and items there.

    Raises:
        ConflictError: a run has not ended, others may quote them and it was not said what then, or
            something was started meanwhile. Nothing has changed.
        InvalidRequestError: this cannot be a user's id.
        NotFoundError: there is no such tenant.
    """
    check_name(user_id, "/user_id")
    whose = _whose(tenant_id, user_id)
    async with conn.transaction():
        # Told first whom it is about: what is recorded below goes with the rest, at the end.
        row = await (await conn.execute(_SQL["pseudonym"], whose)).fetchone()
        if row is None:
            raise NotFoundError("tenant", tenant_id)
        held = await _hold(conn, whose, shared)
        workflows = await workflows_of(conn, held.runs)
        if await asyncio.to_thread(in_hand, url, workflows):
            raise ConflictError(
                f"A worker is just ending a run or a delivery of user {user_id!r}. Nothing was "
                "erased; try again in a moment."
            )
        removed, changed = await _remove(conn, whose, held, by)
        await record(
            conn,
            Entry(
                *("user.erased", tenant_id, ("person", row["pseudonym"])),
                by=by,
                details={"removed": dict(removed), "changed": dict(changed)},
            ),
        )
        audit_rows = await erase_from_audit(conn, tenant_id=tenant_id, person=user_id, by=by)
        params = {**whose, "runs": held.runs, "sessions": held.sessions}
        [meanwhile] = await (await conn.execute(_SQL["started_meanwhile"], params)).fetchall()
        if meanwhile["found"]:
            raise ConflictError(
                f"A run of user {user_id!r} was started while they were erased. Nothing was; stop "
                "what starts them, then try again."
            )
        if dry_run:
            raise psycopg.Rollback
        await asyncio.to_thread(forget, url, workflows)
    return Erased(removed, changed, len(workflows), audit_rows, held.shared)


@dataclass(frozen=True, slots=True)
class _Held:
    tenants: Mapping[UUID, UUID]
    sessions: Sequence[UUID]
    tops: Sequence[UUID]
    shared: int

    @property
    def runs(self) -> list[UUID]:
        return list(self.tenants)


def _whose(tenant_id: UUID, user_id: str) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "user_id": jsonsafe.protect_text(user_id)}


async def _hold(conn: Connection, whose: Mapping[str, Any], shared: Shared) -> _Held:
    held = await _hold_theirs(conn, whose, ())
    params = {**whose, "runs": held.runs, "sessions": list(held.sessions)}
    others = await (await conn.execute(_SQL["shared"], params)).fetchall()
    quoting = [one for one in others if one["others"]]
    if quoting and shared == "refuse":
        raise ConflictError(
            f"They spoke in {len(quoting)} conversation(s) of others, whose runs may quote them: "
            f"{_named([one['id'] for one in quoting])}. Nothing was erased. Say what is to become "
            "of these: shared=erase takes the conversations whole, with the runs of others; "
            "shared=keep takes this user's runs and items alone."
        )
    if quoting and shared == "erase":
        held = await _hold_theirs(conn, whose, [one["id"] for one in quoting])
    return _Held(held.tenants, held.sessions, held.tops, len(quoting))


async def _hold_theirs(conn: Connection, whose: Mapping[str, Any], also: Sequence[UUID]) -> _Held:
    cursor = await conn.execute(_SQL["sessions"], {**whose, "also": list(also)})
    sessions = await cursor.fetchall()
    ids = [one["id"] for one in sessions]
    params = {**whose, "sessions": ids}
    runs = await (await conn.execute(_SQL["hold_runs"], params)).fetchall()
    await conn.execute(_SQL["hold_sessions"], params)
    unfinished = [
        run["id"] for run in runs if run["status"] in ("queued", "running", "interrupted")
    ]
    if unfinished:
        raise ConflictError(
            f"{len(unfinished)} run(s) have not ended: {_named(unfinished)}. Nothing was erased. "
            "Cancel them (cancel=true asks for that), and try again when they have ended."
        )
    return _Held(
        {run["id"]: run["tenant_id"] for run in runs},
        ids,
        [one["id"] for one in sessions if one["top"]],
        0,
    )


def _named(ids: Sequence[UUID]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(map(str, ids[:_SHOWN])) + more


async def _remove(
    conn: Connection, whose: Mapping[str, Any], held: _Held, by: Actor
) -> tuple[Counter[str], Counter[str]]:
    user_id: str = whose["user_id"]
    quoted = {
        "quoted": json.dumps(user_id, ensure_ascii=False),
        "ascii": json.dumps(user_id),
    }
    params = {**whose, **quoted, "runs": held.runs, "sessions": list(held.sessions)}
    removed = (await (await read_kin(conn)).count(conn, held.runs)).rows
    [of_sessions] = await (await conn.execute(_SQL["count_sessions"], params)).fetchall()
    removed.update(
        sessions=len(held.sessions),
        session_items=of_sessions["items"],
        session_holes=of_sessions["holes"],
    )
    for table, statement in _DELETIONS.items():
        removed[table] += (await conn.execute(statement, params)).rowcount
    cursor = await conn.execute(_SQL["tables_of_users"], {"but": _BY_THEMSELVES})
    for row in await cursor.fetchall():
        removed[row["name"]] += await _changed(conn, _DELETE_OF_USER, whose, table=row["name"])
    if held.runs:
        await delete_ended(conn, held.tenants, by=by)
    for top in held.tops:
        await erase_session(
            *(conn,), tenant_id=whose["tenant_id"], session_id=top, by=by, cascade=True
        )
    changed: Counter[str] = Counter()
    for table, statement in _STRIPS.items():
        changed[table] += (await conn.execute(statement, params)).rowcount
    for row in await (await conn.execute(_SQL["makers"])).fetchall():
        changed[row["name"]] += await _changed(
            conn, _STRIP_MAKER, whose, table=row["name"], column=row["column_name"]
        )
    [usage] = await (await conn.execute(_SQL["keeps_usage"])).fetchall()
    if usage["present"]:
        # After the runs: what they used was added as they went.
        changed["usage_daily"] = (await conn.execute(_SQL["give_away_usage"], whose)).rowcount
    return +removed, +changed


async def _changed(
    conn: Connection, statement: str, params: Mapping[str, Any], **names: str
) -> int:
    put = {name: sql.Identifier(value) for name, value in names.items()}
    # The names are the catalogue's, quoted; the rest is a statement of ours.
    composed = sql.SQL(statement).format(**put)
    return (await conn.execute(composed, params)).rowcount
