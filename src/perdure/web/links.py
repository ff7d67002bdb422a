"""Decision links: made by the API, opened and used by people without a key.

``GET /d/{token}`` shows and changes nothing, however often mail scanners fetch it; ``POST``
decides, once. The token is all there is to prove who one is, so it is in no log and no table.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field
from starlette.responses import HTMLResponse, RedirectResponse, Response

from perdure.access.principals import Principal, Role
from perdure.db import Connection
from perdure.errors import (
    AlreadyDecidedError,
    ConflictError,
    ExpiredError,
    ForbiddenError,
    InvalidRequestError,
    InvalidStateError,
    NotFoundError,
)
from perdure.interruptions.queries import get_interruption
from perdure.interruptions.rules import UNSET, Decision
from perdure.runs.resume import decide_and_resume
from perdure.times import rfc3339
from perdure.web import answers
from perdure.web.auth import Decider, source_of
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.link_forms import WrongFieldsError, answer_in, read_form, wrong_fields
from perdure.web.pages.decision import closed_page, message_page, question_page
from perdure.web.pages.filling import fields_to_fill
from perdure.web.pages.layout import HEADERS
from perdure.web.parameters import InterruptionId
from perdure.web.rendering import json_response
from perdure.web.schemas import Body, Text255
from perdure.web.state import api_of
from perdure.webhooks import links
from perdure.webhooks.links import DAY_SECONDS, Link, NewLink

router = APIRouter()
_LOG = logging.getLogger(__name__)
MAX_SECONDS = 30 * DAY_SECONDS
_UNKNOWN = (
    "This link is not valid",
    "It may have been cut off on its way to you. Ask whoever sent it for a new one.",
)
_EXPIRED = (
    "This link's time is over",
    "It can decide nothing any more. If the question still waits, ask for a new link.",
)


class MakeLink(Body):
    """A link to make."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"subject": "alice@example.com", "expires_in": 3600}]}
    )

    subject: Annotated[
        Text255 | None,
        Field(description="Who decides by it; another than one's own subject takes an admin."),
    ] = None
    groups: Annotated[
        list[Text255] | None,
        Field(description="What they belong to; by default, of a link of one's own, as oneself."),
    ] = None
    expires_in: Annotated[
        float, Field(ge=60, le=MAX_SECONDS, description="Seconds; the question's own time ends it.")
    ] = DAY_SECONDS
    decisions: Annotated[
        list[Literal["approve", "answer", "reject"]] | None,
        Field(description="What it can decide; by default all there is to.", min_length=1),
    ] = None


@router.post(
    "/v1/interruptions/{id}/links",
    status_code=201,
    response_model=answers.DecisionLink,
    tags=["interruptions"],
)
async def create_link(
    request: Request,
    principal: Decider,
    interruption_id: InterruptionId,
    body: MakeLink,
    key: IdempotencyHeader = None,
) -> Response:
    """Make a link by which one person decides this question, once, without a key.

    For oneself; who is somebody else is for an admin to say, as policies go by it.
    """
    api = api_of(request)
    subject, groups = _who(principal, body)

    async def create(conn: Connection) -> Done:
        new = NewLink(
            interruption_id,
            subject,
            body.expires_in,
            body.decisions,
            groups,
            principal,
        )
        claims = await links.create_link(
            conn, new, tenant_id=principal.tenant_id, keys=api.settings.secret_keys
        )
        return Done(
            201,
            {
                "id": str(claims.id),
                "object": "decision_link",
                "interruption_id": str(claims.interruption_id),
                "subject": claims.subject,
                "decisions": list(claims.decisions),
                "expires_at": rfc3339(claims.expires_at),
            },
        )

    response = await perform(request, principal, key, create)
    if response.status_code != 201:
        return response
    # Of the answer no address is kept: what is replayed gets it here too.
    content = json.loads(bytes(response.body))
    async with api.connection() as conn:
        token = await links.token_of_link(
            conn,
            tenant_id=principal.tenant_id,
            link_id=UUID(content["id"]),
            keys=api.settings.secret_keys,
        )
    content["url"] = f"{_base(request)}/d/{token}"
    headers = {k: v for k, v in response.headers.items() if k.lower() != "content-length"}
    return json_response(content, 201, headers)


def _who(principal: Principal, body: MakeLink) -> tuple[str, list[str]]:
    """Return who decides by a link, and what they belong to."""
    subject = principal.subject if body.subject is None else body.subject
    if subject is None:
        raise InvalidRequestError.at(
            "/subject", "is needed: the key in use was made without --subject."
        )
    own = subject == principal.subject
    groups = body.groups if body.groups is not None else sorted(principal.groups) if own else []
    if not own or not set(groups) <= principal.groups:
        # Or one could be two people, and the one a policy asks for.
        principal.require(Role.ADMIN)
    return subject, groups


def _base(request: Request) -> str:
    return api_of(request).settings.public_url or str(request.base_url).rstrip("/")


@router.api_route("/d/{token}", methods=["GET", "HEAD"], include_in_schema=False)
async def show(request: Request, token: str) -> Response:
    """Show what a link is about; changes nothing."""
    async with api_of(request).connection() as conn:
        link = await _find(request, conn, token)
        return _html(*await _page(conn, link, token))


@router.post("/d/{token}", include_in_schema=False)
async def decide(request: Request, token: str) -> Response:
    """Decide what a link is about, by the form of its page."""
    try:
        form = read_form(await request.body())
    except ValueError:
        return _html(message_page("That was not the form of this page."), 422)
    async with api_of(request).connection() as conn:
        link = await _find(request, conn, token)
        if link is None or link.expired or link.used_at is not None:
            page, status = await _page(conn, link, token)
            return _html(page, status if status >= 400 else 409)
        if form.get("token") != token or form.get("decision") not in link.claims.decisions:
            problem = "That was not the form of this page. Nothing was decided."
            page, status = await _page(conn, link, token, problem=problem)
            return _html(page, 422 if status == 200 else status)
        try:
            await _decide(conn, link, form, source=source_of(request, "link"))
        except WrongFieldsError as wrong:
            page, status = await _page(conn, link, token, form=form, problems=wrong.problems)
            return _html(page, 422 if status == 200 else status)
        except (ConflictError, ForbiddenError, InvalidRequestError) as refusal:
            page, status = await _page(conn, link, token, form=form, problem=refusal.message)
            return _html(page, _refused(refusal) if status == 200 else status)
    # Loaded again, the page is only shown.
    return RedirectResponse(token, 303, headers=dict(HEADERS))


async def _find(request: Request, conn: Connection, token: str) -> Link | None:
    return await links.find_link(conn, token, keys=api_of(request).settings.secret_keys)


async def _decide(conn: Connection, link: Link, form: Mapping[str, str], *, source: str) -> None:
    claims = link.claims
    message = form.get("message", "").replace("\r\n", "\n").strip()
    by = Principal(
        type="link",
        id=str(claims.id),
        subject=claims.subject,
        tenant_id=claims.tenant_id,
        roles=frozenset({Role.DECISIONS_WRITE}),
        groups=frozenset(claims.groups),
        source=source,
    )
    fields = fields_to_fill(await _interruption(conn, link), form["decision"])
    filled = answer_in(fields, form) if fields else UNSET
    answer, arguments = (
        (filled, UNSET) if form["decision"] == "answer" else (UNSET, filled or UNSET)
    )
    async with conn.transaction():
        # Of two at once the second waits here, and finds it used.
        if not await links.use_link(conn, link):
            raise AlreadyDecidedError(claims.interruption_id, status="decided by this link")
        try:
            await decide_and_resume(
                conn,
                tenant_id=claims.tenant_id,
                interruption_id=claims.interruption_id,
                decision=Decision(
                    form["decision"],
                    digest=claims.digest,
                    message=message or None,
                    answer=answer,
                    arguments=arguments,
                ),
                by=by,
            )
        except InvalidRequestError as refusal:
            raise wrong_fields(fields, refusal) from refusal


async def _interruption(conn: Connection, link: Link) -> dict[str, Any]:
    return await get_interruption(
        conn, tenant_id=link.claims.tenant_id, interruption_id=link.claims.interruption_id
    )


async def _page(
    conn: Connection,
    link: Link | None,
    token: str,
    *,
    problem: str | None = None,
    form: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
) -> tuple[str, int]:
    """Return the page of a link as things stand, and its status."""
    if link is None:
        return message_page(*_UNKNOWN), 404
    claims = link.claims
    try:
        interruption = await _interruption(conn, link)
    except NotFoundError:
        return message_page(*_UNKNOWN), 404
    if interruption["status"] != "pending":
        mine = any(one["by"]["id"] == str(claims.id) for one in interruption["decisions"])
        gone = interruption["status"] in ("expired", "cancelled")
        return closed_page(interruption, mine=mine), 410 if gone else 200
    if link.used_at is not None:
        said = "You have decided. It takes others to decide as well, and the run waits for them."
        return message_page("Thank you", said), 200
    if link.expired:
        return message_page(*_EXPIRED), 410
    page = question_page(
        interruption,
        token=token,
        subject=claims.subject,
        decisions=claims.decisions,
        expires_at=rfc3339(claims.expires_at),
        problem=problem,
        typed=form,
        problems=problems,
    )
    return page, 200


def _refused(refusal: Exception) -> int:
    match refusal:
        case ExpiredError():
            return 410
        case ConflictError() | InvalidStateError():
            return 409
        case ForbiddenError():
            return 403
        case _:
            return 422


def _html(page: str, status: int) -> HTMLResponse:
    return HTMLResponse(page, status, headers=dict(HEADERS))
