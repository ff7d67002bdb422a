"""The policies a tenant made by the API, as rows. Every change raises the tenant's revision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, Entry, record
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.interruptions.policies.policy import Policy
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.times import rfc3339

_SQL = load_sql("perdure.interruptions.policies", "store.sql")

MAX_POLICIES: Final = 200
"""Policies a tenant may have: each call of its runs is held against all of them."""
MAX_POSITION: Final = 1_000_000


async def standing(conn: Connection, tenant_id: UUID) -> tuple[int, tuple[Policy, ...]]:
    """Return a tenant's policies in their order, and the revision they are of, in one query."""
    cursor = await conn.execute(_SQL["standing"], {"tenant_id": tenant_id})
    row = await cursor.fetchone()
    if row is None:
        return 0, ()
    return row["revision"], tuple(
        Policy.from_json(one["definition"], UUID(one["id"]))
        for one in jsonsafe.loads(row["policies"])
    )


async def create_policy(
    conn: Connection,
    *,
    tenant_id: UUID,
    policy: Policy,
    position: int | None,
    created_by: Mapping[str, Any],
    by: Actor | None = None,
) -> dict[str, Any]:
    """Make a policy, the last in order where no ``position`` is given; returns it as shown.

    What stands at that position, and behind it, moves back by one. The audit is told, and by whom
    (``by``): so of every change.

    Raises:
        InvalidRequestError: there are too many, or the position is out of range.
    """
    _check_position(position)
    async with conn.transaction():
        await conn.execute(_SQL["change"], {"tenant_id": tenant_id})
        cursor = await conn.execute(_SQL["count_policies"], {"tenant_id": tenant_id})
        counted = await cursor.fetchone()
        if counted is not None and counted["policies"] >= MAX_POLICIES:
            raise InvalidRequestError.at(
                "", f"there are {MAX_POLICIES} policies already, as many as there may be."
            )
        await _make_room(conn, tenant_id, None, position)
        cursor = await conn.execute(
            _SQL["insert_policy"],
            {
                "id": uuid7(),
                "tenant_id": tenant_id,
                "position": position,
                "definition": jsonsafe.dumps(policy.as_json()),
                "created_by": jsonsafe.dumps(created_by),
            },
        )
        made = await _shown(cursor)
        await record(conn, _entry("policy.created", tenant_id, made["id"], by, after=made))
        return made


async def get_policy(conn: Connection, *, tenant_id: UUID, policy_id: UUID) -> dict[str, Any]:
    """Return a policy as the API shows it.

    Raises:
        NotFoundError: the tenant has no such policy.
    """
    cursor = await conn.execute(_SQL["get_policy"], {"tenant_id": tenant_id, "id": policy_id})
    return await _shown(cursor, policy_id)


async def list_policies(conn: Connection, *, tenant_id: UUID, page: PageRequest) -> Page:
    """Return a page of policies as the API shows them, by position."""
    cursor = await conn.execute(
        in_order(_SQL["list_policies"], page.order), {"tenant_id": tenant_id, **page.params()}
    )
    rows = await cursor.fetchall()
    return page_of([policy_object(jsonsafe.loads(row["policy"])) for row in rows], page)


async def update_policy(
    conn: Connection,
    *,
    tenant_id: UUID,
    policy_id: UUID,
    changes: Mapping[str, Any],
    position: int | None,
    by: Actor | None = None,
) -> dict[str, Any]:
    """Change fields of a policy's definition, and its position where one is given.

    Interruptions that wait keep the rules they were opened with.

    Raises:
        NotFoundError: the tenant has no such policy.
        InvalidRequestError: what would come of it is no policy.
    """
    _check_position(position)
    key = {"tenant_id": tenant_id, "id": policy_id}
    async with conn.transaction():
        await conn.execute(_SQL["change"], {"tenant_id": tenant_id})
        before = await get_policy(conn, tenant_id=tenant_id, policy_id=policy_id)
        definition = {name: before[name] for name in _DEFINITION} | dict(changes)
        policy = Policy.from_json(definition)
        await _make_room(conn, tenant_id, policy_id, position)
        cursor = await conn.execute(
            _SQL["update_policy"],
            {**key, "position": position, "definition": jsonsafe.dumps(policy.as_json())},
        )
        after = await _shown(cursor, policy_id)
        entry = _entry("policy.changed", tenant_id, policy_id, by, before=before, after=after)
        await record(conn, entry)
        return after


async def delete_policy(
    conn: Connection, *, tenant_id: UUID, policy_id: UUID, by: Actor | None = None
) -> None:
    """Let a policy count no more; what it opened goes on by the rules it had.

    Raises:
        NotFoundError: the tenant has no such policy.
    """
    async with conn.transaction():
        await conn.execute(_SQL["change"], {"tenant_id": tenant_id})
        cursor = await conn.execute(
            _SQL["delete_policy"], {"tenant_id": tenant_id, "id": policy_id}
        )
        if await cursor.fetchone() is None:
            raise NotFoundError("policy", policy_id)
        await record(conn, _entry("policy.deleted", tenant_id, policy_id, by))


def _entry(
    kind: str, tenant_id: UUID, policy_id: UUID | str, by: Actor | None, **shown: Any
) -> Entry:
    details = {
        when: {name: policy[name] for name in ("position", *_DEFINITION)}
        for when, policy in shown.items()
    }
    return Entry(kind, tenant_id, ("policy", policy_id), by=by, details=details)


def policy_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``policies`` (its JSON values decoded) as the API shows it."""
    return {
        "id": str(row["id"]),
        "object": "policy",
        "position": row["position"],
        **Policy.from_json(row["definition"]).as_json(),
        "created_by": row["created_by"],
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


_DEFINITION: Final = tuple(Policy("any").as_json())


async def _shown(cursor: Any, policy_id: UUID | None = None) -> dict[str, Any]:
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("policy", str(policy_id))
    return policy_object(jsonsafe.loads(row["policy"]))


async def _make_room(
    conn: Connection, tenant_id: UUID, policy_id: UUID | None, position: int | None
) -> None:
    if position is not None:
        key = {"tenant_id": tenant_id, "id": policy_id, "position": position}
        await conn.execute(_SQL["make_room"], key)


def _check_position(position: int | None) -> None:
    if position is not None and not 0 <= position <= MAX_POSITION:
        raise InvalidRequestError.at("/position", f"has to be from 0 to {MAX_POSITION}.")
