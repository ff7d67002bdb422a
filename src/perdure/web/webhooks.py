"""``/v1/webhooks``: who is told what happens."""

from __future__ import annotations

import json
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import ConfigDict, Field
from starlette.responses import Response

from perdure.access.principals import Principal
from perdure.db import Connection
from perdure.web import answers
from perdure.web.auth import Admin, RunReader
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import NewestFirst, WebhookId
from perdure.web.rendering import json_response
from perdure.web.schemas import Body, Nothing, Text255
from perdure.web.state import address, api_of
from perdure.webhooks import deliveries, store
from perdure.webhooks.store import WebhookFields

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


class MakeWebhook(Body):
    """A webhook to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"url": "https://example.com/hooks/perdure", "events": ["interruption.created"]},
                {
                    "url": "https://hooks.example.com/7",
                    "events": ["*"],
                    "description": "refunds channel",
                    "link_subject": "refunds@example.com",
                },
            ]
        }
    )

    url: Annotated[str, Field(min_length=1, description="https, unless the operator allows more.")]
    events: Annotated[
        list[str],
        Field(
            description="What it is told of; * is everything.",
            max_length=50,
            default_factory=lambda: ["*"],
        ),
    ]
    description: Annotated[str, Field(max_length=255)] = ""
    link_subject: Annotated[
        Text255 | None,
        Field(description="With each question comes a link by which this person decides it."),
    ] = None
    link_groups: Annotated[
        list[Text255],
        Field(description="What they belong to, as policies go by.", default_factory=list),
    ]


class ChangeWebhook(Body):
    """What is to change of a webhook; what is left out stays."""

    url: Annotated[str, Field(min_length=1)] = ""
    events: Annotated[list[str], Field(max_length=50, default_factory=list)]
    description: Annotated[str, Field(max_length=255)] = ""
    link_subject: Text255 | None = None
    link_groups: Annotated[list[Text255], Field(default_factory=list)]
    enabled: bool = True


class DeliveriesQuery(NewestFirst):
    """Which deliveries, and which page of them."""

    status: Literal["pending", "delivered", "failed"] | None = None


@router.post("", status_code=201, response_model=answers.WebhookSecret)
async def create_webhook(
    request: Request, principal: Admin, body: MakeWebhook, key: IdempotencyHeader = None
) -> Response:
    """Make a webhook. Its secret is shown in this answer and never again."""
    api = api_of(request)

    async def create(conn: Connection) -> Done:
        webhook = await store.create_webhook(
            conn,
            WebhookFields(**body.model_dump()),
            tenant_id=principal.tenant_id,
            allowed=api.allowed,
            keys=api.settings.encryption_keys,
            by=principal,
        )
        return Done(201, webhook, {"Location": address(request, f"/v1/webhooks/{webhook['id']}")})

    return await _with_secret(request, principal, await perform(request, principal, key, create))


@router.get("", response_model=answers.List[answers.Webhook])
async def list_webhooks(
    request: Request, principal: RunReader, query: Annotated[NewestFirst, QueryParameters()]
) -> Response:
    """List webhooks."""
    async with api_of(request).connection() as conn:
        page = await store.list_webhooks(conn, tenant_id=principal.tenant_id, page=query.page())
    return json_response(page.as_dict())


@router.get("/{id}", response_model=answers.Webhook)
async def get_webhook(request: Request, principal: RunReader, webhook_id: WebhookId) -> Response:
    """Read a webhook."""
    async with api_of(request).connection() as conn:
        webhook = await store.get_webhook(
            conn, tenant_id=principal.tenant_id, webhook_id=webhook_id
        )
    return json_response(webhook)


@router.patch("/{id}", response_model=answers.Webhook)
async def change_webhook(
    request: Request, principal: Admin, webhook_id: WebhookId, body: ChangeWebhook
) -> Response:
    """Change a webhook. Disabled, what still waits for it has failed and can be sent again."""
    api = api_of(request)
    async with api.connection() as conn, conn.transaction():
        before = await store.get_webhook(conn, tenant_id=principal.tenant_id, webhook_id=webhook_id)
        names = tuple(ChangeWebhook.model_fields)
        fields = {name: before[name] for name in names} | body.model_dump(exclude_unset=True)
        webhook = await store.change_webhook(
            conn,
            WebhookFields(**fields),
            tenant_id=principal.tenant_id,
            webhook_id=webhook_id,
            allowed=api.allowed,
            by=principal,
        )
    return json_response(webhook)


@router.delete("/{id}", status_code=204)
async def delete_webhook(request: Request, principal: Admin, webhook_id: WebhookId) -> Response:
    """Delete a webhook and its deliveries."""
    async with api_of(request).connection() as conn:
        await store.delete_webhook(
            conn, tenant_id=principal.tenant_id, webhook_id=webhook_id, by=principal
        )
    return Response(status_code=204)


@router.post("/{id}/test", status_code=202, response_model=answers.Delivery)
async def send_test(
    request: Request,
    principal: Admin,
    webhook_id: WebhookId,
    body: Nothing | None = None,
    key: IdempotencyHeader = None,
) -> Response:
    """Send `webhook.test`, as anything else is sent; see the delivery for what became of it."""

    async def test(conn: Connection) -> Done:
        delivery = await deliveries.send_test(
            conn, tenant_id=principal.tenant_id, webhook_id=webhook_id
        )
        where = address(request, f"/v1/deliveries/{delivery['id']}")
        return Done(202, delivery, {"Location": where})

    return await perform(request, principal, key, test)


@router.post("/{id}/rotate", response_model=answers.WebhookSecret)
async def rotate_secret(
    request: Request,
    principal: Admin,
    webhook_id: WebhookId,
    body: Nothing | None = None,
    key: IdempotencyHeader = None,
) -> Response:
    """Make a new secret. For 24 hours each message carries a signature of the old one too."""

    async def rotate(conn: Connection) -> Done:
        webhook = await store.rotate_secret(
            conn,
            tenant_id=principal.tenant_id,
            webhook_id=webhook_id,
            keys=api_of(request).settings.encryption_keys,
            by=principal,
        )
        return Done(200, webhook)

    return await _with_secret(request, principal, await perform(request, principal, key, rotate))


@router.get("/{id}/deliveries", response_model=answers.List[answers.Delivery])
async def list_deliveries(
    request: Request,
    principal: RunReader,
    webhook_id: WebhookId,
    query: Annotated[DeliveriesQuery, QueryParameters()],
) -> Response:
    """List what a webhook was told, or will be."""
    async with api_of(request).connection() as conn:
        await store.get_webhook(conn, tenant_id=principal.tenant_id, webhook_id=webhook_id)
        page = await deliveries.list_deliveries(
            conn,
            tenant_id=principal.tenant_id,
            webhook_id=webhook_id,
            status=query.status,
            page=query.page(),
        )
    return json_response(page.as_dict())


async def _with_secret(request: Request, principal: Principal, response: Response) -> Response:
    """Add the secret to an answer, of which none is kept: what is replayed gets it here too."""
    if response.status_code >= 300:
        return response
    content = json.loads(bytes(response.body))
    api = api_of(request)
    async with api.connection() as conn:
        content["secret"] = await store.secret_of(
            conn,
            tenant_id=principal.tenant_id,
            webhook_id=UUID(content["id"]),
            keys=api.settings.encryption_keys,
        )
    headers = {k: v for k, v in response.headers.items() if k.lower() != "content-length"}
    return json_response(content, response.status_code, headers)
