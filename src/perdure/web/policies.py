"""``/v1/policies``: which calls people are asked about, and who they are. For admins."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import ConfigDict, Field
from starlette.responses import Response

from perdure.db import Connection
from perdure.interruptions.policies import store as policies
from perdure.interruptions.policies.policy import OnExpire, Policy, Then
from perdure.web import answers
from perdure.web.auth import Admin
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import OldestFirst, PolicyId
from perdure.web.rendering import json_response
from perdure.web.schemas import Body
from perdure.web.state import address, api_of

router = APIRouter(prefix="/v1/policies", tags=["policies"])

_EXAMPLE: Any = {
    "name": "large refunds",
    "tool": "refund*",
    "when": {"/cents": {"gt": 5000}},
    "deciders": {"groups": ["finance"]},
    "requester_may_decide": False,
    "required": 2,
    "expires_after": 14400,
    "on_expire": "escalate",
    "escalate_to": [{"groups": ["heads"]}],
}
_Names = Annotated[str | list[str], Field(description="One name or several; globs.")]
_Seconds = float | None


class _People(Body):
    """Who may decide: whoever has one of the roles, is in one of the groups, or is a subject."""

    roles: list[str] = Field(default_factory=list)
    groups: list[str] = Field(default_factory=list)
    subjects: list[str] = Field(default_factory=list)


class ChangePolicy(Body):
    """What shall be different of a policy; what is left out stays."""

    name: str = ""
    tool: _Names = "*"
    agent: _Names = "*"
    when: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description="By JSON pointer into the arguments: operators and operands.",
        ),
    ]
    then: Then = "ask"
    deciders: _People | None = None
    requester_may_decide: bool = True
    required: Annotated[int, Field(description="How many different people have to approve.")] = 1
    expires_after: Annotated[_Seconds, Field(description="Seconds.")] = None
    on_expire: OnExpire = "reject"
    escalate_to: Annotated[
        list[_People],
        Field(default_factory=list, description="Who is asked when the time is over, one by one."),
    ]
    remind_every: Annotated[_Seconds, Field(description="Seconds.")] = None
    message: str | None = None
    position: Annotated[
        int | None, Field(description="What stands there, and behind it, moves back by one.")
    ] = None

    def definition(self) -> dict[str, Any]:
        """Return what was sent, less the position."""
        return self.model_dump(exclude_unset=True, exclude={"position"})


class MakePolicy(ChangePolicy):
    """A policy to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: str


@router.post("", status_code=201, response_model=answers.Policy)
async def create_policy(
    request: Request, principal: Admin, body: MakePolicy, key: IdempotencyHeader = None
) -> Response:
    """Make a policy, the last in order unless a position is given.

    It counts for every call asked for from now on; what waits goes on by the rules it has.
    """

    async def make(conn: Connection) -> Done:
        made = await policies.create_policy(
            conn,
            tenant_id=principal.tenant_id,
            policy=Policy.from_json(body.definition()),
            position=body.position,
            created_by=principal.as_requester(),
            by=principal,
        )
        return Done(201, made, {"Location": address(request, f"/v1/policies/{made['id']}")})

    return await perform(request, principal, key, make)


@router.get("", response_model=answers.List[answers.Policy])
async def list_policies(
    request: Request, principal: Admin, query: Annotated[OldestFirst, QueryParameters()]
) -> Response:
    """List policies in the order in which they are held against a call."""
    async with api_of(request).connection() as conn:
        page = await policies.list_policies(conn, tenant_id=principal.tenant_id, page=query.page())
    return json_response(page.as_dict())


@router.get("/{id}", response_model=answers.Policy)
async def get_policy(request: Request, principal: Admin, policy_id: PolicyId) -> Response:
    """Read a policy."""
    async with api_of(request).connection() as conn:
        policy = await policies.get_policy(conn, tenant_id=principal.tenant_id, policy_id=policy_id)
    return json_response(policy)


@router.patch("/{id}", response_model=answers.Policy)
async def change_policy(
    request: Request, principal: Admin, policy_id: PolicyId, body: ChangePolicy
) -> Response:
    """Change a policy. What waits goes on by the rules it was opened with."""
    async with api_of(request).connection() as conn:
        policy = await policies.update_policy(
            conn,
            tenant_id=principal.tenant_id,
            policy_id=policy_id,
            changes=body.definition(),
            position=body.position,
            by=principal,
        )
    return json_response(policy)


@router.delete("/{id}", status_code=204)
async def delete_policy(request: Request, principal: Admin, policy_id: PolicyId) -> Response:
    """Let a policy count no more. It is kept, as decisions name it."""
    async with api_of(request).connection() as conn:
        await policies.delete_policy(
            conn, tenant_id=principal.tenant_id, policy_id=policy_id, by=principal
        )
    return Response(status_code=204)
