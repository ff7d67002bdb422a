"""``/v1/users``: people erased. For administrators."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.responses import Response

from perdure.web import answers
from perdure.web.auth import Admin
from perdure.web.parameters import Query
from perdure.web.rendering import json_response
from perdure.web.state import DELETION_SECONDS, api_of

router = APIRouter(prefix="/v1/users", tags=["users"])

_UserId = Annotated[str, Path(description="The `user_id` of runs and sessions; may have slashes.")]


class UserErasure(answers.Answer):
    """What went of a user."""

    object: Literal["user_erasure"]
    user_id: str
    dry_run: bool
    cancelled: Annotated[int, Field(description="Runs that were cancelled for it.")]
    removed: Annotated[dict[str, int], Field(description="Rows deleted, by table.")]
    changed: Annotated[
        dict[str, int], Field(description="Rows they are named in no more, by table.")
    ]
    workflows: Annotated[int, Field(description="Workflows DBOS has forgotten.")]
    audit_rows: Annotated[int, Field(description="Audit rows whose personal parts are gone.")]
    shared_sessions: Annotated[
        int, Field(description="Conversations of others they spoke in, with runs of others.")
    ]


class Erasure(Query):
    """How."""

    dry_run: Annotated[bool, Field(description="Only say what would go.")] = False
    cancel: Annotated[bool, Field(description="Cancel what is not over first.")] = False
    shared: Annotated[
        Literal["refuse", "erase", "keep"],
        Field(
            description="Conversations of others they spoke in: `erase` takes them whole, `keep` "
            "only what is theirs there, `refuse` changes nothing where there are any."
        ),
    ] = "refuse"


@router.delete("/{user_id:path}", response_model=UserErasure)
async def erase_user(
    request: Request,
    principal: Admin,
    user_id: _UserId,
    query: Annotated[Erasure, QueryParameters()],
) -> Response:
    """Erase a user: runs, conversations and all they left, and their name wherever it stands.

    In one transaction. Runs that have not ended are a 409. Of the audit, pseudonyms and digests
    stay. Asked again, nothing is left to remove.
    """
    # It brings DBOS along, which an API server without a worker needs for nothing else.
    from perdure.runs.keeping import people

    api = api_of(request)
    tenant_id = principal.tenant_id
    cancelled = 0
    async with api.connection(DELETION_SECONDS) as conn:
        if query.cancel and not query.dry_run:
            cancelled = await people.cancel_runs_of(
                conn, tenant_id=tenant_id, user_id=user_id, by=principal
            )
        erased = await people.erase_user(
            conn,
            str(api.pool().conninfo),
            tenant_id=tenant_id,
            user_id=user_id,
            by=principal,
            shared=query.shared,
            dry_run=query.dry_run,
        )
    return json_response(
        {
            "object": "user_erasure",
            "user_id": user_id,
            "dry_run": query.dry_run,
            "cancelled": cancelled,
            **erased.as_dict(),
        }
    )
