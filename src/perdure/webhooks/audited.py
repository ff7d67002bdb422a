"""What the audit is told of webhooks. Pure.

Each row says what a webhook is from then on, so that what it was stands in the one before. Of its
address there is the origin and a digest: what follows the origin is often what lets one in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from perdure.audit.canonical import digest
from perdure.audit.log import Actor, Entry

__all__ = ["ByWebhook", "changed", "created", "deleted", "disabled", "rotated"]

_FIELDS = ("url", "events", "description", "link_subject", "link_groups", "enabled")


@dataclass(frozen=True, slots=True)
class ByWebhook:
    """A webhook that makes links by itself, as whoever made it said."""

    id: str
    type: str = "webhook"
    subject: str | None = None
    source: str = "webhook"


def created(webhook: Mapping[str, Any], *, tenant_id: UUID, by: Actor | None) -> Entry:
    """Return the entry of a webhook that was made; ``webhook`` is as the API shows it."""
    return _entry("webhook.created", webhook, tenant_id, by)


def changed(
    before: Mapping[str, Any], after: Mapping[str, Any], *, tenant_id: UUID, by: Actor | None
) -> Entry:
    """Return the entry of a webhook that was changed: what it is now, and what of it is new."""
    new = [name for name in _FIELDS if before[name] != after[name]]
    return _entry("webhook.changed", after, tenant_id, by, changed=new)


def rotated(webhook: Mapping[str, Any], *, tenant_id: UUID, by: Actor | None) -> Entry:
    """Return the entry of a webhook that signs with a new secret."""
    until = webhook["old_secret_until"]
    return _bare("webhook.rotated", tenant_id, webhook["id"], by, old_secret_until=until)


def deleted(webhook_id: UUID, *, tenant_id: UUID, by: Actor | None) -> Entry:
    """Return the entry of a webhook that was deleted."""
    return _bare("webhook.deleted", tenant_id, webhook_id, by)


def disabled(webhook_id: UUID, *, tenant_id: UUID, reason: str | None) -> Entry:
    """Return the entry of a webhook whose receiver is gone; nobody acted."""
    return _bare("webhook.disabled", tenant_id, webhook_id, None, reason=reason)


def _entry(
    kind: str, webhook: Mapping[str, Any], tenant_id: UUID, by: Actor | None, **more: Any
) -> Entry:
    url = urlsplit(webhook["url"])
    shown = {
        **{name: webhook[name] for name in _FIELDS},
        "url": f"{url.scheme}://{url.netloc}",
        "url_digest": digest(webhook["url"]),
    }
    subject = ("webhook", webhook["id"])
    concerns = webhook["link_subject"]
    details = {**shown, **more}
    return Entry(kind, tenant_id, subject, by=by, concerns=concerns, details=details)


def _bare(
    kind: str, tenant_id: UUID, webhook_id: UUID | str, by: Actor | None, **details: Any
) -> Entry:
    return Entry(kind, tenant_id, ("webhook", webhook_id), by=by, details=details)
