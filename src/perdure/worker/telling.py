"""What a delivery says: read when its first attempt begins, and the same from then on."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from perdure.config import Settings
from perdure.db import Connection
from perdure.interruptions.queries import get_interruption
from perdure.runs.store import get_run
from perdure.webhooks.deliveries import Begun
from perdure.webhooks.payloads import payload


class Teller:
    """Reads what deliveries tell of."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def tell(self, conn: Connection, delivery_id: UUID, begun: Begun) -> str:
        """Return what a delivery says.

        Raises:
            NotFoundError: what it would tell of is gone.
        """
        return payload(begun.event, begun.created_at, await self._data(conn, delivery_id, begun))

    def complete(self, delivery_id: UUID, text: str) -> str:
        """Return what is sent: ``text`` as it is kept, with what is not."""
        return text

    async def _data(self, conn: Connection, delivery_id: UUID, begun: Begun) -> dict[str, Any]:
        if begun.interruption_id is not None:
            interruption = await get_interruption(
                conn, tenant_id=begun.tenant_id, interruption_id=begun.interruption_id
            )
            return {"interruption": interruption}
        if begun.run_id is not None:
            return {"run": await get_run(conn, tenant_id=begun.tenant_id, run_id=begun.run_id)}
        return {"webhook_id": str(begun.webhook_id)}
