"""Webhooks: made, read, changed, rotated, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure.audit.log import Actor, record
from perdure.config import NamedKey
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.webhooks import audited
from perdure.webhooks.addresses import Allowed, parse_target
from perdure.webhooks.sealing import seal, unseal
from perdure.webhooks.signing import new_secret
from perdure.webhooks.views import webhook_object

__all__ = [
    "EVENTS",
    "WebhookFields",
    "change_webhook",
    "create_webhook",
    "delete_webhook",
    "get_webhook",
    "list_webhooks",
    "rotate_secret",
    "secret_of",
]

_SQL = load_sql("perdure.webhooks", "webhooks.sql")

EVENTS = (
    "interruption.created",
    "interruption.decided",
    "interruption.reminder",
    "interruption.escalated",
    "run.completed",
    "run.failed",
    "run.cancelled",
)
"""What a webhook can be told of; ``*`` is all of it, and what comes later too."""
OLD_SECRET_SECONDS = 24 * 3600.0
"""For how long a secret that was replaced signs as well."""


@dataclass(frozen=True, slots=True)
class WebhookFields:
    """What its maker says of a webhook.

    ``link_subject``, of ``link_groups``, decides by links sent to it; without, none are.
    """

    url: str
    events: Sequence[str] = ("*",)
    description: str = ""
    link_subject: str | None = None
    link_groups: Sequence[str] = ()
    enabled: bool = True

    def check(self, allowed: Allowed) -> None:
        """Pass when a webhook may be so.

        Raises:
            InvalidRequestError: names the field.
        """
        try:
            parse_target(self.url, allowed)
        except ValueError as refusal:
            raise InvalidRequestError.at("/url", str(refusal)) from None
        if not self.events:
            raise InvalidRequestError.at("/events", "has to name at least one event, or *.")
        for index, event in enumerate(self.events):
            if event != "*" and event not in EVENTS:
                raise InvalidRequestError.at(
                    f"/events/{index}", f"has to be * or one of {', '.join(EVENTS)}."
                )


async def create_webhook(
    conn: Connection,
    fields: WebhookFields,
    *,
    tenant_id: UUID,
    allowed: Allowed,
    keys: Sequence[NamedKey],
    by: Actor | None = None,
) -> dict[str, Any]:
    """Make a webhook with a new secret and return it as the API shows it.

    This and each change is told to the audit, as ``by``'s, in one transaction.

    Raises:
        InvalidRequestError: a field is wrong, or the URL leads where none may.
    """
    fields.check(allowed)
    webhook_id = uuid7()
    async with conn.transaction():
        row = await _one(
            conn,
            "insert",
            id=webhook_id,
            tenant_id=tenant_id,
            url=fields.url,
            events=_distinct(fields.events),
            description=fields.description,
            link_subject=fields.link_subject,
            link_groups=list(fields.link_groups),
            secret=seal(new_secret(), webhook_id, keys),
        )
        assert row is not None  # noqa: S101 - INSERT … RETURNING
        webhook = webhook_object(row)
        await record(conn, audited.created(webhook, tenant_id=tenant_id, by=by))
    return webhook


async def get_webhook(conn: Connection, *, tenant_id: UUID, webhook_id: UUID) -> dict[str, Any]:
    """Return a webhook as the API shows it.

    Raises:
        NotFoundError: the tenant has no such webhook.
    """
    return webhook_object(await _found(conn, "get", tenant_id, webhook_id))


async def list_webhooks(conn: Connection, *, tenant_id: UUID, page: PageRequest) -> Page:
    """Return a page of a tenant's webhooks as the API shows them."""
    cursor = await conn.execute(
        in_order(_SQL["page"], page.order), {"tenant_id": tenant_id, **page.params()}
    )
    return page_of([webhook_object(row) for row in await cursor.fetchall()], page)


async def change_webhook(
    conn: Connection,
    fields: WebhookFields,
    *,
    tenant_id: UUID,
    webhook_id: UUID,
    allowed: Allowed,
    by: Actor | None = None,
) -> dict[str, Any]:
    """Make a webhook as ``fields`` say and return it; disabled, what waits for it has failed.

    Raises:
        InvalidRequestError, NotFoundError: as for the other calls.
    """
    fields.check(allowed)
    async with conn.transaction():
        before = webhook_object(await _found(conn, "lock", tenant_id, webhook_id))
        row = await _found(
            conn,
            "change",
            tenant_id,
            webhook_id,
            url=fields.url,
            events=_distinct(fields.events),
            description=fields.description,
            link_subject=fields.link_subject,
            link_groups=list(fields.link_groups),
            enabled=fields.enabled,
        )
        if not fields.enabled:
            await conn.execute(_SQL["give_up"], {"id": webhook_id})
        webhook = webhook_object(row)
        await record(conn, audited.changed(before, webhook, tenant_id=tenant_id, by=by))
    return webhook


async def rotate_secret(
    conn: Connection,
    *,
    tenant_id: UUID,
    webhook_id: UUID,
    keys: Sequence[NamedKey],
    by: Actor | None = None,
) -> dict[str, Any]:
    """Give a webhook a new secret and return it; for a day the old one signs as well.

    Raises:
        NotFoundError: the tenant has no such webhook.
    """
    secret = seal(new_secret(), webhook_id, keys)
    async with conn.transaction():
        row = await _found(
            conn, "rotate", tenant_id, webhook_id, secret=secret, seconds=OLD_SECRET_SECONDS
        )
        webhook = webhook_object(row)
        await record(conn, audited.rotated(webhook, tenant_id=tenant_id, by=by))
    return webhook


async def secret_of(
    conn: Connection, *, tenant_id: UUID, webhook_id: UUID, keys: Sequence[NamedKey]
) -> str:
    """Return what signs for a webhook, to be shown to its maker, once.

    Raises:
        NotFoundError: the tenant has no such webhook.
        ConfigurationError: the key it is sealed with is not here.
    """
    row = await _found(conn, "get", tenant_id, webhook_id)
    return unseal(row["secret"], webhook_id, keys)


async def delete_webhook(
    conn: Connection, *, tenant_id: UUID, webhook_id: UUID, by: Actor | None = None
) -> None:
    """Delete a webhook and its deliveries.

    Raises:
        NotFoundError: the tenant has no such webhook.
    """
    async with conn.transaction():
        cursor = await conn.execute(_SQL["delete"], {"tenant_id": tenant_id, "id": webhook_id})
        if not cursor.rowcount:
            raise NotFoundError("webhook", webhook_id)
        await record(conn, audited.deleted(webhook_id, tenant_id=tenant_id, by=by))


def _distinct(events: Sequence[str]) -> list[str]:
    return ["*"] if "*" in events else list(dict.fromkeys(events))


async def _found(
    conn: Connection, statement: str, tenant_id: UUID, webhook_id: UUID, **more: object
) -> dict[str, Any]:
    row = await _one(conn, statement, tenant_id=tenant_id, id=webhook_id, **more)
    if row is None:
        raise NotFoundError("webhook", webhook_id)
    return row


async def _one(conn: Connection, statement: str, **params: object) -> dict[str, Any] | None:
    return await (await conn.execute(_SQL[statement], params)).fetchone()
