"""Deliveries: listed, tested, sent again; an attempt's begin and end.

States. A delivery is *pending* until an answer of success (*delivered*) or until nothing is tried
any more (*failed*). A pending one waits for ``due_at``, or an attempt at it is with the queue or
under way (``queued_at``).

Who wins. An attempt begins while the delivery is at its number and not over. A success is recorded
whoever brings it; a failure only by the attempt the delivery is at, so that one that was given up
for lost cannot put off the one that took its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure.audit.log import record
from perdure.db import Connection, load_sql
from perdure.errors import InvalidStateError, NotFoundError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.webhooks import audited
from perdure.webhooks.schedule import Sent, Verdict
from perdure.webhooks.views import delivery_object

__all__ = [
    "Begun",
    "begin",
    "finish",
    "get_delivery",
    "keep_payload",
    "list_deliveries",
    "lock_payload",
    "resend",
    "send_test",
]

_SQL = load_sql("perdure.webhooks", "deliveries.sql")


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt that was begun: what to tell of, whom, and as the how-manieth try.

    ``secret`` and ``old_secret`` are as they are kept; ``now`` is the database's time (UTC).
    """

    tenant_id: UUID
    webhook_id: UUID
    event: str
    run_id: UUID | None
    interruption_id: UUID | None
    payload: str | None
    tries: int
    created_at: datetime
    url: str
    secret: str
    old_secret: str | None
    link_subject: str | None
    link_groups: list[str]
    now: datetime


async def get_delivery(conn: Connection, *, tenant_id: UUID, delivery_id: UUID) -> dict[str, Any]:
    """Return a delivery as the API shows it.

    Raises:
        NotFoundError: the tenant has no such delivery.
    """
    row = await _one(conn, "get", tenant_id=tenant_id, id=delivery_id)
    if row is None:
        raise NotFoundError("delivery", delivery_id)
    return delivery_object(row)


async def list_deliveries(
    conn: Connection, *, tenant_id: UUID, webhook_id: UUID, status: str | None, page: PageRequest
) -> Page:
    """Return a page of a webhook's deliveries as the API shows them."""
    cursor = await conn.execute(
        in_order(_SQL["page"], page.order),
        {"tenant_id": tenant_id, "webhook_id": webhook_id, "status": status, **page.params()},
    )
    return page_of([delivery_object(row) for row in await cursor.fetchall()], page)


async def send_test(conn: Connection, *, tenant_id: UUID, webhook_id: UUID) -> dict[str, Any]:
    """Make a delivery of ``webhook.test`` and return it.

    Raises:
        NotFoundError: the tenant has no such webhook.
    """
    row = await _one(conn, "test", tenant_id=tenant_id, webhook_id=webhook_id)
    if row is None:
        raise NotFoundError("webhook", webhook_id)
    return delivery_object(row)


async def resend(conn: Connection, *, tenant_id: UUID, delivery_id: UUID) -> dict[str, Any]:
    """Send a delivery again, now, with the same id and bytes, and return it.

    One that waits is sent before its time; one under way is left to it. Joins the caller's
    transaction.

    Raises:
        NotFoundError: the tenant has no such delivery.
        InvalidStateError: its webhook is disabled.
    """
    row = await _one(conn, "lock_for_resend", tenant_id=tenant_id, id=delivery_id)
    if row is None:
        raise NotFoundError("delivery", delivery_id)
    if row["disabled_at"] is not None:
        raise InvalidStateError(
            "Webhook",
            row["webhook_id"],
            status="disabled",
            action="sent to",
            hint="Enable it first: PATCH it with enabled: true.",
        )
    if row["queued_at"] is None:
        row = await _one(conn, "resend", id=delivery_id)
        assert row is not None  # noqa: S101 - the row is locked
    return delivery_object(row)


async def begin(conn: Connection, delivery_id: UUID, attempt: int) -> Begun | None:
    """Begin an attempt; None where the delivery is not at it, is over, or nobody wants it."""
    row = await _one(conn, "begin", id=delivery_id, attempt=attempt)
    return None if row is None else Begun(**row)


async def lock_payload(conn: Connection, delivery_id: UUID) -> str | None:
    """Return what is sent, if somebody has made it already; who makes it holds this lock."""
    row = await _one(conn, "lock_payload", id=delivery_id)
    return None if row is None else row["payload"]


async def keep_payload(conn: Connection, delivery_id: UUID, payload: str) -> None:
    """Keep what is sent at each attempt from now on; to be called under ``lock_payload``."""
    await conn.execute(_SQL["keep_payload"], {"id": delivery_id, "payload": payload})


async def finish(
    conn: Connection, delivery_id: UUID, attempt: int, sent: Sent, verdict: Verdict
) -> bool:
    """Record what became of an attempt; False where that does not count any more.

    Where the webhook is disabled by it, the audit is told in the same transaction.
    """
    params = {
        "id": delivery_id,
        "attempt": attempt,
        "status": verdict.status,
        "status_code": sent.status_code,
        "error": verdict.error,
        "response": sent.response,
        "latency_ms": sent.latency_ms,
        "retry_seconds": verdict.retry_seconds or 0.0,
        "disable": verdict.disable,
    }
    if not verdict.disable:
        return await _one(conn, "finish", **params) is not None
    async with conn.transaction():
        finished = await _one(conn, "finish", **params)
        if finished is not None and finished["gone_id"] is not None:
            entry = audited.disabled(
                finished["gone_id"],
                tenant_id=finished["tenant_id"],
                reason=finished["disabled_reason"],
            )
            await record(conn, entry)
    return finished is not None


async def _one(conn: Connection, statement: str, **params: object) -> dict[str, Any] | None:
    return await (await conn.execute(_SQL[statement], params)).fetchone()
