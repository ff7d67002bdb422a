"""Grants: given with an approval, used where a run rests, revoked.

Given: in the transaction of the decision, bound to the tool, its schema, the agent, and what the
decision let run. Used: in the transaction a segment rests in, under a lock on the run's row first
and then on the grant's. Revoked: under a lock on the grant's row alone. Of a use and a revocation
at once the first to hold the grant's row wins, and the other sees what it did.

A grant is one person's approval. What needs more than one person is never answered by a grant, and
no grant is given with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, Entry, record
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.interruptions.grants.rules import (
    LONGEST_SECONDS,
    Remember,
    arguments_digest,
    covers,
    not_ahead,
    read_remember,
    schema_digest,
)
from perdure.interruptions.policies.deciders import Deciders, Person

_SQL = load_sql("perdure.interruptions.grants", "store.sql")
_READ_FOR_GRANT = _SQL["read_for_grant"]
_GIVE = _SQL["give"]
_FITTING = _SQL["fitting"]
_USE = _SQL["use"]
_REVOKE = _SQL["revoke"]


@dataclass(frozen=True, slots=True)
class ByGrant:
    """A grant as the one who decides: whoever gave it, as they were then."""

    id: str
    subject: str | None
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    type: str = "grant"
    source: str = "grant"


@dataclass(frozen=True, slots=True)
class Asked:
    """A pending approval: who calls what, with the tool's schema and the arguments as shown."""

    interruption_id: UUID
    agent: str
    tool: str
    schema: Mapping[str, Any] | None
    arguments: Any


@dataclass(frozen=True, slots=True)
class Use:
    """A grant that was used for an approval, which is to be approved now."""

    interruption_id: UUID
    by: ByGrant


async def give(
    conn: Connection,
    *,
    run_id: UUID,
    interruption_id: UUID,
    decision_id: UUID,
    remember: Any,
    by: Person,
) -> UUID:
    """Give what ``remember`` of a recorded approval asks for; returns the grant's id.

    Within the transaction of the decision, after it was written: the grant is about what the
    interruption shows then, with edited arguments about those.

    Raises:
        InvalidRequestError: it cannot be remembered here, or ends in the past or too late.
    """
    asks = read_remember(remember)
    key = {"run_id": run_id, "interruption_id": interruption_id}
    asked = await (await conn.execute(_READ_FOR_GRANT, key)).fetchone()
    if asked is None:
        raise NotFoundError("interruption", interruption_id)
    _check_fits(asks, asked)
    tool = jsonsafe.loads(asked["tool"])
    cursor = await conn.execute(
        _GIVE,
        {
            **key,
            "id": uuid7(),
            "decision_id": decision_id,
            "schema_digest": schema_digest(tool["schema"]),
            "scope": asks.scope,
            "arguments_digest": None if asks.when else arguments_digest(tool["arguments"]),
            "conditions": jsonsafe.dumps(asks.when) if asks.when else None,
            "until": asks.until,
            "seconds": asks.seconds,
            "longest": LONGEST_SECONDS,
            "by": jsonsafe.dumps(
                {**_who(by), "roles": sorted(map(str, by.roles)), "groups": sorted(by.groups)}
            ),
        },
    )
    given = await cursor.fetchone()
    if given is None:
        raise not_ahead()
    grant_id: UUID = given["grant_id"]
    return grant_id


def _check_fits(asks: Remember, asked: Mapping[str, Any]) -> None:
    if asked["type"] != "tool_approval":
        raise InvalidRequestError.at("/remember", "belongs to the approval of a tool call.")
    if asked["required"] > 1:
        raise InvalidRequestError.at(
            "/remember",
            f"is not possible here: each such call needs {asked['required']} people.",
        )
    if not asked["requester_may_decide"]:
        raise InvalidRequestError.at(
            "/remember",
            "is not possible here: each such call needs another person than who asked for it.",
        )
    if asks.scope == "user" and asked["user_id"] is None:
        raise InvalidRequestError.at("/remember/scope", "cannot be user: the run has no user_id.")
    if asks.scope == "session" and asked["session_id"] is None:
        raise InvalidRequestError.at("/remember/scope", "cannot be session: the run is in none.")


async def use_grants(conn: Connection, *, run_id: UUID, asked: Sequence[Asked]) -> list[Use]:
    """Use a living grant for each of the run's pending approvals that one covers.

    Within a transaction that holds the run's row. Each use is recorded; the decision on each is
    for the caller to record.
    """
    if not asked:
        return []
    rows = [
        {
            "id": str(one.interruption_id),
            "agent": one.agent,
            "tool": one.tool,
            "schema_digest": schema_digest(one.schema),
            "arguments_digest": arguments_digest(one.arguments),
        }
        for one in asked
    ]
    cursor = await conn.execute(_FITTING, {"run_id": run_id, "asked": jsonsafe.dumps(rows)})
    fitting = await cursor.fetchall()
    left = {one.interruption_id: one for one in asked}
    uses: list[Use] = []
    for row in fitting:
        one, by = left.get(row["interruption_id"]), _giver(row)
        if one is None or not _covers(row, one.arguments, by):
            continue
        if await _use(conn, run_id, one.interruption_id, row["grant_id"]):
            del left[one.interruption_id]
            uses.append(Use(one.interruption_id, by))
    return uses


async def _use(conn: Connection, run_id: UUID, interruption_id: UUID, grant_id: UUID) -> bool:
    """Lock a grant and record its use; False when it is over, or was revoked meanwhile."""
    cursor = await conn.execute(
        _USE,
        {
            "id": uuid7(),
            "run_id": run_id,
            "interruption_id": interruption_id,
            "grant_id": grant_id,
        },
    )
    return await cursor.fetchone() is not None


async def revoke(conn: Connection, *, tenant_id: UUID, grant_id: UUID, by: Actor) -> bool:
    """Revoke a grant: nothing that waits, or will, is decided by it.

    Returns False, and changes nothing, when the tenant has no such grant that is not revoked.
    """
    async with conn.transaction():
        cursor = await conn.execute(
            _REVOKE, {"id": grant_id, "tenant_id": tenant_id, "by": jsonsafe.dumps(_who(by))}
        )
        if await cursor.fetchone() is None:
            return False
        await record(conn, Entry("grant.revoked", tenant_id, ("grant", grant_id), by=by))
        return True


def _covers(grant: Mapping[str, Any], arguments: Any, by: ByGrant) -> bool:
    conditions = None if grant["conditions"] is None else jsonsafe.loads(grant["conditions"])
    deciders = None if grant["deciders"] is None else jsonsafe.loads(grant["deciders"])
    if deciders is not None and not Deciders.from_json(deciders).has(by):
        return False
    return covers(conditions, arguments)


def _giver(grant: Mapping[str, Any]) -> ByGrant:
    giver = jsonsafe.loads(grant["granted_by"])
    groups = tuple(giver["groups"])
    return ByGrant(str(grant["grant_id"]), giver["subject"], tuple(giver["roles"]), groups)


def _who(by: Person | Actor) -> dict[str, str | None]:
    return {"type": by.type, "id": by.id, "subject": by.subject}
