"""``/v1/decisions``: several decisions at once, all or none."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from perdure.db import Connection
from perdure.errors import NotFoundError, within
from perdure.interruptions import queries
from perdure.interruptions.rules import Decision
from perdure.paging import Page
from perdure.runs.resume import decide_all_and_resume
from perdure.web import answers
from perdure.web.auth import Decider
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.schemas import DecideAll

router = APIRouter(prefix="/v1/decisions", tags=["interruptions"])


@router.post("", response_model=answers.List[answers.Interruption])
async def decide_all(
    request: Request, principal: Decider, body: DecideAll, key: IdempotencyHeader = None
) -> Response:
    """Decide several interruptions, all or none. Each run they belong to goes on once.

    A refusal names by `pointer` (or by those of its `errors`) which decision it is about.
    """
    decisions = [_parsed(index, one.interruption_id, one.to_decision())
                 for index, one in enumerate(body.decisions)]  # fmt: skip

    async def record(conn: Connection) -> Done:
        tenant_id = principal.tenant_id
        await decide_all_and_resume(conn, tenant_id=tenant_id, decisions=decisions, by=principal)
        ids = [interruption_id for interruption_id, _ in decisions]
        found = await queries.get_interruptions(conn, tenant_id=tenant_id, ids=ids)
        return Done(200, Page(found, has_more=False).as_dict())

    return await perform(request, principal, key, record)


def _parsed(index: int, interruption_id: str, decision: Decision) -> tuple[UUID, Decision]:
    try:
        return UUID(interruption_id), decision
    except ValueError:
        unknown = NotFoundError("interruption", interruption_id[:64])
        raise within(unknown, f"/decisions/{index}") from None
