"""``/v1/deliveries``: what became of one message to a webhook, and sending it again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.responses import Response

from perdure.db import Connection
from perdure.web import answers
from perdure.web.auth import Admin, RunReader
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import MAX_WAIT_SECONDS, DeliveryId, Query
from perdure.web.rendering import json_response
from perdure.web.schemas import Nothing
from perdure.web.state import api_of
from perdure.webhooks import deliveries

router = APIRouter(prefix="/v1/deliveries", tags=["webhooks"])


class DeliveryQuery(Query):
    """How long to wait."""

    wait: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            allow_inf_nan=False,
            description="Answer when it has been tried, or after so many seconds.",
        ),
    ] = 0


@router.get("/{id}", response_model=answers.Delivery)
async def get_delivery(
    request: Request,
    principal: RunReader,
    delivery_id: DeliveryId,
    query: Annotated[DeliveryQuery, QueryParameters()],
) -> Response:
    """Read a delivery, at once or when its first attempt is over."""
    api = api_of(request)

    async def read() -> dict[str, Any]:
        async with api.connection() as conn:
            return await deliveries.get_delivery(
                conn, tenant_id=principal.tenant_id, delivery_id=delivery_id
            )

    async def tried() -> dict[str, Any] | None:
        delivery = await read()
        over = delivery["status"] != "pending" or delivery["attempts"]
        return delivery if over else None

    delivery = None
    if query.wait:
        delivery = await api.waiters.until(str(delivery_id), tried, seconds=query.wait)
    return json_response(await read() if delivery is None else delivery)


@router.post("/{id}/resend", status_code=202, response_model=answers.Delivery)
async def resend(
    request: Request,
    principal: Admin,
    delivery_id: DeliveryId,
    body: Nothing | None = None,
    key: IdempotencyHeader = None,
) -> Response:
    """Send a delivery again, now: the same id, the same bytes, a new signature."""

    async def again(conn: Connection) -> Done:
        delivery = await deliveries.resend(
            conn, tenant_id=principal.tenant_id, delivery_id=delivery_id
        )
        return Done(202, delivery)

    return await perform(request, principal, key, again)
