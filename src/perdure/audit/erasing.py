"""Taking people out of the audit without breaking the chain.

The log has pseudonyms and digests, which stay; who it was, from where, and what it was about stand
beside it and go. Each erasure is a row of the log itself, under the pseudonym of who was erased, so
that ``verify`` can tell it from payloads that somebody deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, Entry, record
from perdure.db import Connection, load_sql
from perdure.errors import InvalidRequestError, NotFoundError

_SQL = load_sql("perdure.audit", "erasing.sql")
_ERASE = _SQL["erase"]
_FORGET_RUNS = _SQL["forget_runs"]


async def erase(conn: Connection, *, tenant_id: UUID, person: str, by: Actor) -> int:
    """Delete what is personal of ``person`` and record that; returns of how many rows.

    ``person`` is a subject, or ``<type>:<id>`` of somebody without one, or the ``user_id`` of runs.
    Gone are: who acted and from where, in rows where they did; what it was about, in those and in
    rows on runs that were for them or on keys of theirs. In one transaction.

    Raises:
        InvalidRequestError: no person is named.
        NotFoundError: there is no such tenant.
    """
    if not person:
        raise InvalidRequestError.at("/subject", "has to name somebody.")
    async with conn.transaction():
        cursor = await conn.execute(
            _ERASE, {"tenant_id": tenant_id, "person": jsonsafe.protect_text(person)}
        )
        row = await cursor.fetchone()
        if row is None:
            raise NotFoundError("tenant", tenant_id)
        entry = Entry(
            *("audit.erased", tenant_id, ("person", row["pseudonym"])),
            by=by,
            details={"rows": row["rows"]},
        )
        await record(conn, entry)
        erased: int = row["rows"]
        return erased


async def forget_runs(conn: Connection, run_ids: Sequence[UUID]) -> None:
    """Delete what audit rows of runs were about, not who acted; joins the caller's transaction.

    A row ``run.deleted`` has to be recorded for each.
    """
    await conn.execute(_FORGET_RUNS, {"run_ids": list(run_ids)})
