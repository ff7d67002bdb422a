"""The audit, read by tenant: pages of it, and all of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.times import rfc3339

_SQL = load_sql("perdure.audit", "queries.sql")
_LIST = f"{_SQL['select_entries']}\n{_SQL['page_of_entries']}"
_AFTER = f"{_SQL['select_entries']}\n{_SQL['entries_after']}"
_SEALS_AFTER = _SQL["seals_after"]
_WAS_DELETED = _SQL["run_was_deleted"]
_AT_ONCE = 200
_NOTHING = UUID(int=0)
_ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows a list shall hold; None filters nothing.

    ``actor`` is a subject, or ``<type>:<id>`` of somebody without one. It finds rows by pseudonym:
    those of a person too that was erased.
    """

    run_id: UUID | None = None
    kind: str | None = None
    actor: str | None = None


async def list_entries(
    conn: Connection, *, tenant_id: UUID, only: AuditFilter, page: PageRequest
) -> Page:
    """Return a page of the audit as the API shows it, in one query."""
    cursor = await conn.execute(
        in_order(_LIST, page.order),
        {
            "tenant_id": tenant_id,
            "run_id": only.run_id,
            "kind": only.kind,
            "actor": None if only.actor is None else jsonsafe.protect_text(only.actor),
            **page.params(),
        },
    )
    return page_of([entry_object(row) for row in await cursor.fetchall()], page)


async def was_deleted(conn: Connection, *, tenant_id: UUID, run_id: UUID) -> bool:
    """Return whether the tenant had a run that was deleted."""
    params = {"tenant_id": tenant_id, "run_id": run_id}
    row = await (await conn.execute(_WAS_DELETED, params)).fetchone()
    return row is not None and bool(row["deleted"])


async def export(conn: Connection, *, tenant_id: UUID) -> AsyncIterator[dict[str, Any]]:
    """Give all rows of a tenant by age, then all seals, as of one moment.

    They hold every column, so that the chain can be checked from them alone: payloads are the very
    texts the digests are of.
    """
    async with conn.transaction():
        await conn.execute(_ONE_MOMENT)
        last: Any = _NOTHING
        while rows := await _after(conn, _AFTER, tenant_id, last):
            for row in rows:
                yield _exported_row(tenant_id, row)
            last = rows[-1]["id"]
        last = 0
        while rows := await _after(conn, _SEALS_AFTER, tenant_id, last):
            for row in rows:
                yield _exported_seal(tenant_id, row)
            last = rows[-1]["seq"]


async def _after(
    conn: Connection, statement: str, tenant_id: UUID, after: Any
) -> list[dict[str, Any]]:
    params = {"tenant_id": tenant_id, "after": after, "fetch": _AT_ONCE}
    return await (await conn.execute(statement, params)).fetchall()


def entry_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the log with its parts as the API shows it.

    ``erased`` names the parts that are gone; ``seal`` is the seal that has it, null while it waits.
    """
    who = None if row["who"] is None else jsonsafe.loads(row["who"])
    details = None if row["details"] is None else jsonsafe.loads(row["details"])["details"]
    gone = [name for name in ("who", "details") if row[f"{name}_digest"] and row[name] is None]
    actor = None
    if row["actor"] is not None:
        actor = {
            "type": row["actor_type"],
            "id": who and who["id"],
            "subject": who and who["subject"],
            "pseudonym": row["actor"],
        }
    return {
        "id": str(row["id"]),
        "object": "audit_entry",
        "kind": row["kind"],
        "at": rfc3339(row["at"]),
        "subject": {"type": row["subject_type"], "id": row["subject_id"]},
        "run_id": None if row["run_id"] is None else str(row["run_id"]),
        "actor": actor,
        "source": who["source"] if who else row["way"],
        "shown_digest": row["shown_digest"],
        "executed_digest": row["executed_digest"],
        "details_digest": row["details_digest"],
        "details": details,
        "erased": gone,
        "seal": row["seal"],
    }


def _exported_row(tenant_id: UUID, row: Mapping[str, Any]) -> dict[str, Any]:
    columns = {
        name: value for name, value in row.items() if name not in ("who", "details", "seal", "at")
    }
    return {
        "object": "audit_row",
        "tenant_id": str(tenant_id),
        **{name: None if value is None else str(value) for name, value in columns.items()},
        "at": rfc3339(row["at"]),
        "who": row["who"],
        "details": row["details"],
    }


def _exported_seal(tenant_id: UUID, row: Mapping[str, Any]) -> dict[str, Any]:
    rows = zip(row["ids"], row["kinds"], row["ats"], row["hashes"], strict=True)
    return {
        "object": "audit_seal",
        "tenant_id": str(tenant_id),
        **{name: str(row[name]) for name in ("seq", "cluster", "from_tx", "to_tx")},
        "rows": [[str(id_), kind, rfc3339(at), hashed.hex()] for id_, kind, at, hashed in rows],
        "previous": row["previous"].hex(),
        "sealed_at": rfc3339(row["sealed_at"]),
        "hash": row["hash"].hex(),
        "key_id": row["key_id"],
        "mac": None if row["mac"] is None else row["mac"].hex(),
    }


def as_line(exported: Mapping[str, Any]) -> str:
    """Return one line of an export: JSON in ASCII."""
    return json.dumps(exported, ensure_ascii=True, separators=(",", ":"))
