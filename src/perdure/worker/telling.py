"""What a delivery says: read when its first attempt begins, and the same from then on.

A link to decide by is made with it. Its token stands in no row: what is kept has a mark in its
place, and the token is put there each time it is sent.
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from perdure.config import Settings
from perdure.db import Connection
from perdure.errors import InvalidStateError, NotSupportedError
from perdure.interruptions.queries import get_interruption
from perdure.runs.store import get_run
from perdure.times import rfc3339
from perdure.webhooks.audited import ByWebhook
from perdure.webhooks.deliveries import Begun
from perdure.webhooks.links import NewLink, create_link, token_of_delivery
from perdure.webhooks.payloads import payload

_LOG = logging.getLogger(__name__)
_ASKING = frozenset(("interruption.created", "interruption.reminder", "interruption.escalated"))


class Teller:
    """Reads what deliveries tell of."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def tell(self, conn: Connection, delivery_id: UUID, begun: Begun) -> str:
        """Return what a delivery says, as it is kept. To be called once, under its row's lock.

        Raises:
            NotFoundError: what it would tell of is gone.
        """
        return payload(begun.event, begun.created_at, await self._data(conn, delivery_id, begun))

    async def complete(self, conn: Connection, delivery_id: UUID, text: str) -> str:
        """Return what is sent: ``text`` as it is kept, with the token of its link.

        Raises:
            ConfigurationError: the key of the link is not here.
        """
        mark = _mark(delivery_id)
        if mark not in text:
            return text
        keys = self._settings.secret_keys
        token = await token_of_delivery(conn, delivery_id, keys=keys)
        return text if token is None else text.replace(mark, token)

    async def _data(self, conn: Connection, delivery_id: UUID, begun: Begun) -> dict[str, Any]:
        if begun.interruption_id is not None:
            interruption = await get_interruption(
                conn, tenant_id=begun.tenant_id, interruption_id=begun.interruption_id
            )
            data: dict[str, Any] = {"interruption": interruption}
            if begun.link_subject is not None and begun.event in _ASKING:
                data["link"] = await self._link(conn, delivery_id, begun, begun.link_subject)
            return data
        if begun.run_id is not None:
            return {"run": await get_run(conn, tenant_id=begun.tenant_id, run_id=begun.run_id)}
        return {"webhook_id": str(begun.webhook_id)}

    async def _link(
        self, conn: Connection, delivery_id: UUID, begun: Begun, subject: str
    ) -> dict[str, Any] | None:
        """Return the link that goes with a question; None where there can be none."""
        assert begun.interruption_id is not None  # noqa: S101 - the event is about one
        base = self._settings.public_url
        if base is None:
            _LOG.warning(
                "Webhook %s is to get links to decide by, and PERDURE_PUBLIC_URL is not set here.",
                begun.webhook_id,
            )
            return None
        new = NewLink(
            begun.interruption_id,
            subject,
            groups=begun.link_groups,
            created_by=ByWebhook(str(begun.webhook_id)),
            delivery_id=delivery_id,
        )
        try:
            claims = await create_link(
                conn, new, tenant_id=begun.tenant_id, keys=self._settings.secret_keys
            )
        except NotSupportedError as reason:
            _LOG.warning("Webhook %s gets no link: %s", begun.webhook_id, reason)
            return None
        except InvalidStateError:
            # It was decided before it could be told of.
            return None
        return {
            "url": f"{base}/d/{_mark(delivery_id)}",
            "subject": subject,
            "expires_at": rfc3339(claims.expires_at),
        }


def _mark(delivery_id: UUID) -> str:
    return f"perdure-link-{delivery_id}"
